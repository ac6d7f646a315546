"""Shards: one world in several processes, each of which moves the bodies of its own nodes.

Every process tells the same story to all nodes: who is born, who dies, who asks for what, all by
the same chance. What nodes send each other goes to another shard at the end of a window of virtual
time, which is shorter than the way of any message: nothing can come too late (conservative
synchronization: Chandy and Misra, "Distributed Simulation", IEEE TSE 1979; windows as in Nicol,
"The Cost of Conservative Synchronization in Parallel Discrete Event Simulations", JACM 1993). So a
run is the same, step by step, however many processes it has. That holds as long as the story draws
its chance alike in all of them, and so asks of a node only what all of them know; and but for a run
that a raised handler ends, where the others come to the end of their window first.

How values get from one process to the other is the business of whoever started them.
"""

from typing import Protocol, TypeVar

T = TypeVar("T")


class Shards(Protocol):
    """The processes of one run, seen from one of them."""

    number: int
    """Which of them this is, from 0."""
    count: int

    def gather(self, mine: T) -> list[T]:
        """Return what each has handed in, in the order of their numbers; waits for all.

        All must ask for the same things in the same order.

        Raises:
            Left: another has come to an end before its time.
            Died: another's process has ended.
        """
        ...

    def leave(self) -> None:
        """Come to an end before one's time: the others' next `gather` raises.

        Raises:
            Died: another's process has ended.
        """
        ...


class Left(Exception):  # noqa: N818 - no error of this process
    """Another shard has left: whatever was wrong, it says itself."""


class Died(Exception):  # noqa: N818 - as above
    """The process of another shard has ended, for lack of memory mostly."""


class Alone:
    """All of a world in one process."""

    number = 0
    count = 1

    def gather(self, mine: T) -> list[T]:
        """Return what is the only part."""
        return [mine]

    def leave(self) -> None:
        """Tell nobody."""


ALONE = Alone()
