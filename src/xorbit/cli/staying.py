"""Commands that go on until Ctrl-C, also where the node that they ask stops and starts again.

Nothing of any one command may enter.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from xorbit.api import connect, default_home
from xorbit.cli.output import talk
from xorbit.config import STAY_AGAIN_S_MAX, STAY_AGAIN_S_MIN
from xorbit.errors import NotRunningError, StoppedError
from xorbit.run.calls import Calls
from xorbit.run.control_client import ControlClient


async def stay(
    home: Path | None,
    opened: Callable[[], AbstractAsyncContextManager[Calls]],
    work: Callable[[Calls], Awaitable[None]],
) -> None:
    """Do work that never ends; where the node on the home stops, wait for one, and begin it again.

    Who began with a node joins by itself at no time: a node could not start on the home then.

    Raises:
        XorbitError: as `opened`, and whatever `work` raises while the node runs.
    """
    had_node = False
    while True:
        try:
            async with opened() as calls:
                had_node = isinstance(calls, ControlClient)
                return await work(calls)
        except StoppedError:
            if not had_node:
                raise
        await _node_there(home or default_home())


async def _node_there(home: Path) -> None:
    """Wait until a node runs on a home; say so, as nothing happens meanwhile."""
    talk(f"the node on {home} stopped; going on when one runs there again (Ctrl-C ends it)")
    wait_s = STAY_AGAIN_S_MIN
    while True:
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, STAY_AGAIN_S_MAX)
        try:
            client = await connect(home)
        except NotRunningError:
            continue
        await client.close()
        talk(f"a node runs on {home} again")
        return
