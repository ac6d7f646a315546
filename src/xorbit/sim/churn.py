"""Churn: nodes come and go, with session lengths as measured in real networks.

Two laws, each with the median that is asked for: exponential, and Weibull with a shape of 0.5,
heavy-tailed as measured in KAD and BitTorrent (Stutzbach and Rejaie, "Understanding Churn in
Peer-to-Peer Networks", IMC 2006: shapes of 0.34 to 0.59): most sessions are short, and who has
been there for long is likely to stay.
"""

from math import log
from random import Random
from typing import Literal

from xorbit.sim.node import SimNode
from xorbit.sim.world import World

Law = Literal["exponential", "heavy-tailed"]
SHAPE = 0.5
AWAY_SHARE = 0.5
"""How long a node is away, as a share of the median session, by the median."""
SILENT_SHARE = 0.3
"""How many of those that go vanish without a word; the others' connections are reset."""


def session_s(rng: Random, median_s: float, law: Law) -> float:
    """Return how long one session lasts."""
    if law == "exponential":
        return rng.expovariate(log(2) / median_s)
    return rng.weibullvariate(median_s / log(2) ** (1 / SHAPE), SHAPE)


class Churn:
    """Lets nodes of a world go and come back, until it is stopped."""

    def __init__(self, world: World, median_s: float, law: Law, rng: Random) -> None:
        """Begin with every node that lives now; the first sessions have begun before."""
        self._world = world
        self.law = median_s, law
        """The median session in seconds, and how sessions are spread around it."""
        self._rng = rng
        self.on = True
        self.over = False
        """Whether whoever is away stays away, so that the end can be judged."""
        self.deaths = 0
        for node in world.alive():
            self._plan_death(node)

    def stop(self) -> None:
        """Let nobody go any more; whoever is away still comes back."""
        self.on = False

    def _plan_death(self, node: SimNode) -> None:
        length_s = session_s(self._rng, *self.law)
        self._world.clock.after(length_s, self._die, node, node.life)

    def _die(self, node: SimNode, life: int) -> None:
        if not self.on or life != node.life:
            return
        self.deaths += 1
        node.kill(silently=self._rng.random() < SILENT_SHARE)
        median_s, law = self.law
        away_s = session_s(self._rng, median_s * AWAY_SHARE, law)
        self._world.clock.after(away_s, self._return, node)

    def _return(self, node: SimNode) -> None:
        if not node.alive and not self.over:
            self._world.revive(node)
            self._plan_death(node)
