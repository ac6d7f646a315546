"""A thread with an event loop of its own, for all who read from one home in this process.

A node belongs to one loop, but programs read from several threads and from loops of their own, so
none of theirs will do. The thread ends when nobody can use it any more, or when the interpreter
does. A process that was forked off begins anew: of what it inherits it may use and close nothing.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from xorbit.config import FS_CLOSE_S_MAX
from xorbit.filesystem.reading import Reading
from xorbit.run.loop import run

T = TypeVar("T")

Making = Callable[[], Reading]
"""Makes what a line is for, in its loop."""


class Line:
    """The thread, seen from others; when nobody holds it any more, the thread ends."""

    def __init__(self, making: Making) -> None:
        """Start the thread."""
        self.pid = os.getpid()
        """In which process it runs: in no other it may be used."""
        inside = _Inside(making)
        # A daemon: the interpreter waits for it in `_close_all`, and not longer than that takes.
        self._thread = threading.Thread(target=inside.live, name="xorbit-fs", daemon=True)
        self._thread.start()
        self.loop, self.reading, leave = inside.started.result()
        self._end = weakref.finalize(self, _end, self.pid, self.loop, leave)
        self._end.atexit = False  # `_close_all` does it, in time

    async def do(self, work: Callable[[Reading], Coroutine[Any, Any, T]]) -> T:
        """Do something in the thread, and await it in whatever loop this is."""
        doing = work(self.reading)
        if asyncio.get_running_loop() is self.loop:
            return await doing
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(doing, self.loop))

    def begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Begin something in the thread that nobody waits for; too late, it is not done."""
        if self.is_usable:
            doing = work()
            try:
                asyncio.run_coroutine_threadsafe(doing, self.loop)
            except RuntimeError:  # the loop has ended
                doing.close()

    def close(self) -> None:
        """Leave the home and end the thread."""
        self._end()
        self._thread.join(FS_CLOSE_S_MAX)

    @property
    def is_usable(self) -> bool:
        """Whether it runs, and in this process."""
        return self.pid == os.getpid() and self._end.alive


class _Inside:
    """What the thread itself holds, so that it does not keep its `Line` alive."""

    def __init__(self, making: Making) -> None:
        self.started: Future[tuple[asyncio.AbstractEventLoop, Reading, asyncio.Event]] = Future()
        self._making = making

    def live(self) -> None:
        run(self._main())

    async def _main(self) -> None:
        leave, reading = asyncio.Event(), self._making()
        self.started.set_result((asyncio.get_running_loop(), reading, leave))
        await leave.wait()
        await reading.close()
        # Who is still reading is told so; cancelled, it would look like nothing that was read.
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=FS_CLOSE_S_MAX)


def _end(pid: int, loop: asyncio.AbstractEventLoop, leave: asyncio.Event) -> None:
    if pid == os.getpid():
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(leave.set)


# --- All of this process ------------------------------------------------------------------------


class _Lines:
    def __init__(self) -> None:
        self.by_name: weakref.WeakValueDictionary[Hashable, Line] = weakref.WeakValueDictionary()
        self.lock = threading.Lock()
        self.inherited: list[Line] = []
        """Of the process that this one was forked off from. To let go of one would reach into its
        parent's files."""

    def begin_anew(self) -> None:
        self.inherited += self.by_name.values()
        self.by_name = weakref.WeakValueDictionary()
        self.lock = threading.Lock()


_lines = _Lines()


def line_of(name: Hashable, making: Making) -> Line:
    """Return the line of this name in this process; make it where there is none."""
    with _lines.lock:
        line = _lines.by_name.get(name)
        if line is None or not line.is_usable:
            line = _lines.by_name[name] = Line(making)
        return line


def _close_all() -> None:
    for line in list(_lines.by_name.values()):
        line.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lines.begin_anew)
# A node that stops needs worker threads. Those of concurrent.futures end before `atexit` calls
# anybody; what is registered here is called before that, and there is no public way to it.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
