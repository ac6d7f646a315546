"""The simulated network: where nodes are, how long a message takes, and what becomes of it.

Delay follows from where two nodes live on the globe (`Place`), their access lines and their
bandwidth. Messages can be lost, repeated and overtaken, one by one: TCP would hide that from a
machine, so this is harder on it than any real network. Partitions and one-way cuts swallow what is
sent across and break no connection: the ends have to notice by themselves.

Knows nothing of machines; chance comes from the world's seed.
"""

from dataclasses import dataclass, field
from math import asin, cos, pi, sin, sqrt
from random import Random

EARTH_RADIUS_KM = 6_371.0
FIBRE_KM_PER_S = 200_000.0
DETOUR = 1.6
"""How much longer cables are than the shortest way (measured paths: 1.5 to 2)."""
ACCESS_S_MEDIAN = 0.006
"""What one end's access line adds each way; lognormal around this, with a floor below."""
ACCESS_SIGMA = 0.7
ACCESS_S_MIN = 0.005
"""No line is quicker, so that large worlds can be shared in windows of twice that (shards.py)."""
LOOKAHEAD_S = 2 * ACCESS_S_MIN
"""What is sent now arrives nowhere sooner: two access lines are on every way."""
JITTER = 0.05
"""A message takes up to this share longer, by chance."""

REGIONS: tuple[tuple[float, float, float, float], ...] = (
    # share of the nodes, latitude, longitude, spread in degrees
    (0.28, 40.0, -90.0, 12.0),  # North America
    (0.32, 50.0, 10.0, 8.0),  # Europe
    (0.22, 33.0, 115.0, 10.0),  # East Asia
    (0.08, 20.0, 78.0, 8.0),  # South Asia
    (0.06, -15.0, -52.0, 8.0),  # South America
    (0.03, -30.0, 145.0, 8.0),  # Oceania
    (0.01, 0.0, 30.0, 15.0),  # Africa
)
"""Roughly where the servers of large public DHTs have been found."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node lives: a point on the globe as a unit vector, and its access line's delay."""

    x: float
    y: float
    z: float
    access_s: float


def place(rng: Random) -> Place:
    """Return a place by chance, as nodes are spread over the world."""
    (region,) = rng.choices(REGIONS, [region[0] for region in REGIONS])
    _, latitude, longitude, spread = region
    north = (latitude + rng.gauss(0.0, spread)) * pi / 180
    east = (longitude + rng.gauss(0.0, spread)) * pi / 180
    access_s = max(ACCESS_S_MEDIAN * rng.lognormvariate(0.0, ACCESS_SIGMA), ACCESS_S_MIN)
    return Place(cos(north) * cos(east), cos(north) * sin(east), sin(north), access_s)


def one_way_s(here: Place, there: Place) -> float:
    """Return how long a small message takes from one place to another, without jitter."""
    chord = sqrt((here.x - there.x) ** 2 + (here.y - there.y) ** 2 + (here.z - there.z) ** 2)
    way_km = 2 * EARTH_RADIUS_KM * asin(min(chord / 2, 1.0))
    return way_km * DETOUR / FIBRE_KM_PER_S + here.access_s + there.access_s


@dataclass(slots=True)
class Faults:
    """What goes wrong on the way, for all nodes alike."""

    loss: float = 0.0
    """Which share of the messages vanishes."""
    repeat: float = 0.0
    """Which share arrives twice."""
    overtake: float = 0.0
    """Which share is late, so that those behind it come first."""
    late_s: float = 0.5
    """How much later those are, at most."""
    sides: dict[int, int] = field(default_factory=dict[int, int])
    """In a partition: on which side a node is. Those not named are on side 0."""
    cuts: dict[tuple[int, int], None] = field(default_factory=dict[tuple[int, int], None])
    """One-way cuts: nothing passes from the first node to the second."""

    @property
    def any(self) -> bool:
        """Whether anything at all goes wrong."""
        return bool(self.loss or self.repeat or self.overtake or self.sides or self.cuts)

    def parted(self, sender: int, receiver: int) -> bool:
        """Return whether nothing passes from one node to another now."""
        if self.sides and self.sides.get(sender, 0) != self.sides.get(receiver, 0):
            return True
        return (sender, receiver) in self.cuts
