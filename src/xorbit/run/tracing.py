"""Which works a piece of code has caused, so that each can be traced by its guid.

    with tracing() as works:
        await node.put_block(data)
    events = await node.trace(works[0])

Follows the code, not the node: what runs within `with`, also in tasks that it starts there, counts.
"""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from xorbit.ids import Guid

_works: ContextVar[list[Guid] | None] = ContextVar("works", default=None)


@contextmanager
def tracing() -> Generator[list[Guid]]:
    """Give a list into which the guid of every work goes that is begun here, in order."""
    works: list[Guid] = []
    token = _works.set(works)
    try:
        yield works
    finally:
        _works.reset(token)


def begun() -> list[Guid] | None:
    """Return where the guids of works begun here go, None if nobody wants to know."""
    return _works.get()


def note(work: Guid) -> None:
    """Tell whoever wants to know that this work begins."""
    works = _works.get()
    if works is not None:
        works.append(work)
