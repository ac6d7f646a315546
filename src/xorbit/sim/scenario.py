"""Scenarios: what happens to a simulated network, written down as data.

A scenario is a TOML file: how many nodes, then one phase after the other, each with what begins
with it, what its users do meanwhile, and how long it takes; at the end what is expected. The files
in `scenarios/` have names of their own (`xorbit sim --scenario NAME`). This room reads and checks
them; run.py makes them happen.
"""

from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from xorbit.config import DEFAULT_LIMITS, Limits
from xorbit.errors import MisuseError
from xorbit.items import BLOCK_BYTES_MAX
from xorbit.sim.churn import Law
from xorbit.sim.liars import Lie

SMALL = {"trace_events_max": 64}
"""Nobody reads the traces of thousands of nodes, which are most of what a node remembers."""

Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]


class Phase(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A stretch of time: what begins with it, and what users do during it."""

    name: str
    seconds: Seconds
    calm: bool = False
    """Nothing goes wrong here: what fails counts against the network."""

    # What begins with the phase.
    join: Share = 0.0
    """This share of the nodes is born and joins, spread over the phase."""
    natted: Share = 0.0
    """This share of those that join cannot be dialled."""
    clients: Share = 0.0
    """This share of them does not listen, and keeps nothing for others."""
    liars: Share = 0.0
    """This share of those that join lies."""
    lie: Lie = Lie.COLLUDING
    kill: Share = 0.0
    """This share of the living dies at once."""
    silently: bool = False
    """They vanish without a word: no connection is reset."""
    revive: bool = False
    """All dead come back at once, with their disks."""
    restart: Share = 0.0
    """This share is restarted, one after the other, spread over the phase; 1: all of them."""
    at_once: bool = False
    """They restart all at the same instant."""
    churn_s: float = 0.0
    """The median session, from now on, of those who live now; 0: nobody goes by himself."""
    churn_law: Law = "heavy-tailed"
    loss: Share = 0.0
    repeat: Share = 0.0
    overtake: Share = 0.0
    """Which share of the messages vanishes, comes twice, is overtaken, until the next phase."""
    part: Share = 0.0
    """This share of the nodes is cut off from the rest, until the next phase."""
    one_way: Count = 0
    """So many pairs in which one hears the other and is not heard, until the next phase."""
    slow_disks: Share = 0.0
    """This share has disks a hundred times slower, until the next phase."""
    full_disks: Share = 0.0
    """This share has no room left on the disk, until the next phase."""
    bytes_per_s: float = 0.0
    """What each node can send from now on; 0: as much as it likes."""
    besiege: Count = 0
    """So many colluding liars join right around the id of one node, and of one item."""

    # What users do, spread over the phase.
    puts: Count = 0
    block_bytes: Annotated[int, Meta(ge=0, le=BLOCK_BYTES_MAX)] = 0
    """How large the blocks are that are put; 0: 64 to 1,023 bytes, by chance."""
    publishes: Count = 0
    follows: Count = 0
    """So many users follow a record, from some time in the phase on."""
    gets: Count = 0
    lookups: Count = 0
    rush: Count = 0
    """So many gets of one and the same item."""


class Expected(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What must be so in the end, whatever the seed."""

    lookups_ok: Share = 0.99
    puts_ok: Share = 0.99
    gets_ok: Share = 0.99
    items_lost: Count = 0


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A story of a network."""

    about: str
    nodes: Annotated[int, Meta(ge=2)]
    phases: Annotated[tuple[Phase, ...], Meta(min_length=1)]
    expected: Expected = Expected()
    limits: dict[str, int | float] = {}
    """Limits of the nodes that differ from the defaults."""
    read_s: Seconds = 20.0
    """Over how long the last reading of everything that was acknowledged is spread."""
    asked_max: Count = 1_000_000
    """In a larger network no phase has more puts, gets or lookups than this."""

    def __post_init__(self) -> None:
        """Hold the limits against those that there are."""
        self.node_limits()

    def node_limits(self) -> Limits:
        """Return the limits of the nodes.

        Raises:
            MisuseError: one of them does not exist, or must not be so.
        """
        unknown = [name for name in self.limits if name not in Limits.__struct_fields__]
        if unknown:
            raise MisuseError(f"no limit is named {unknown[0]!r} (see config.py)")
        try:
            return msgspec.convert(
                {**msgspec.structs.asdict(DEFAULT_LIMITS), **SMALL, **self.limits}, Limits
            )
        except ValueError as error:
            raise MisuseError(str(error)) from error

    def of_nodes(self, count: int) -> "Scenario":
        """Return the same story with another number of nodes and, in proportion, of users."""
        by = count / self.nodes

        def scaled(phase: Phase) -> Phase:
            counts = (
                "puts",
                "publishes",
                "follows",
                "gets",
                "lookups",
                "rush",
                "besiege",
                "one_way",
            )
            old = {name: getattr(phase, name) for name in counts}
            new = {name: max(round(n * by), 1) if n else 0 for name, n in old.items()}
            return msgspec.structs.replace(
                phase, **{name: min(n, self.asked_max) for name, n in new.items()}
            )

        return msgspec.structs.replace(
            self, nodes=count, phases=tuple(scaled(phase) for phase in self.phases)
        )


def names() -> list[str]:
    """Return the names of the scenarios that come with xorbit."""
    files = resources.files("xorbit.sim") / "scenarios"
    return sorted(file.name.removesuffix(".toml") for file in files.iterdir())


def load(name: str) -> Scenario:
    """Return a scenario by its name, or from a file where the name ends in ".toml".

    Raises:
        MisuseError: there is none of that name, or the file says something else.
    """
    try:
        if name.endswith(".toml"):
            return parse(Path(name).read_bytes())
        return parse((resources.files("xorbit.sim") / "scenarios" / f"{name}.toml").read_bytes())
    except OSError as error:
        known = ", ".join(names())
        raise MisuseError(f"no scenario {name!r}; there are: {known}") from error


def parse(text: bytes) -> Scenario:
    """Return the scenario that a TOML file tells.

    Raises:
        MisuseError: it is no TOML, or no scenario.
    """
    try:
        return msgspec.toml.decode(text, type=Scenario)
    except (msgspec.MsgspecError, ValueError) as error:
        raise MisuseError(f"not a scenario: {error}") from error
