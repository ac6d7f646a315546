"""A trial: one run of a scenario, as the options of `xorbit sim` describe it.

What is run, and the words that run it again, come from the same fields: a row of a table and a run
that failed name a command that is exactly theirs. Nothing here runs anything.
"""

import msgspec
from msgspec import Struct

from xorbit.errors import MisuseError
from xorbit.sim.scenario import Expected, Phase, Scenario, load


class Trial(Struct, frozen=True, kw_only=True):
    """A scenario, what is changed of it, and the seed."""

    scenario: str = "plain"
    nodes: int | None = None
    """None: as many as the scenario has."""
    seed: str = "1"
    hours: float = 0.0
    """So many more hours pass at the end."""
    churn_minutes: float = 0.0
    """The median session, once all have joined; 0: as the scenario says."""
    loss: float = 0.0
    liars: float = 0.0
    limits: dict[str, int | float] = {}
    """Limits of the nodes that differ from the scenario's."""

    def story(self) -> Scenario:
        """Return the scenario with what is changed of it.

        How much succeeds it expects of its own weather only: under another one promises hold.

        Raises:
            MisuseError: there is no such scenario, or no such limit.
        """
        story = load(self.scenario)
        if self.nodes is not None:
            story = story.of_nodes(self.nodes)
        phases = tuple(self._changed(phase) for phase in story.phases)
        if self.hours:
            churn_s = 60 * self.churn_minutes
            more = Phase(
                name=f"{self.hours:g} hours",
                seconds=3_600 * self.hours,
                churn_s=churn_s,
                loss=self.loss,
            )
            phases = (*phases, more)
        try:
            limits = {**story.limits, **self.limits}
            return msgspec.structs.replace(
                story, phases=phases, limits=limits, expected=self._expected(story)
            )
        except ValueError as error:
            raise MisuseError(str(error)) from error

    def _changed(self, phase: Phase) -> Phase:
        # Churn takes those who live when it begins: nobody does before the joining.
        churn_s = 0.0 if phase.join else 60 * self.churn_minutes
        return msgspec.structs.replace(
            phase,
            loss=max(phase.loss, self.loss),
            liars=self.liars if phase.join and self.liars else phase.liars,
            churn_s=churn_s or phase.churn_s,
        )

    def _expected(self, story: Scenario) -> Expected:
        if not (self.churn_minutes or self.loss or self.liars):
            return story.expected
        lost = story.expected.items_lost
        return Expected(lookups_ok=0.0, puts_ok=0.0, gets_ok=0.0, items_lost=lost)

    def words(self) -> list[str]:
        """Return the command that runs this, word by word."""
        words = ["xorbit", "sim", "--scenario", self.scenario]
        if self.nodes is not None:
            words += ["--nodes", str(self.nodes)]
        words += ["--seed", self.seed]
        for option, value in (
            ("--hours", self.hours),
            ("--churn", self.churn_minutes),
            ("--loss", self.loss),
            ("--liars", self.liars),
        ):
            words += [option, str(value).removesuffix(".0")] if value else []
        for name, value in self.limits.items():
            words += ["--limit", f"{name}={value}"]
        return words
