"""Typed lines that need the user's files and keys; all others are the node's own (core/console).

The same lines work in `xorbit console` and on `xorbit node`'s standard input: paths, the names of
keys and signatures are dealt with here, over whatever calls there are. No terminal, no sockets.
"""

import asyncio
import re
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import NoReturn

from xorbit.api import Node
from xorbit.cli.names import check_file_path
from xorbit.cli.output import held_by, human_size
from xorbit.cli.places import salt_from
from xorbit.config import CONSOLE_LINE_BYTES_MAX, CONSOLE_LINES_MAX, DEFAULT_LIMITS
from xorbit.core.console import COMMANDS
from xorbit.errors import MisuseError, XorbitError
from xorbit.files.cid import Codec, parse_cid, parse_place
from xorbit.files.seal_key import holds_key, keys_hidden, may_hold_key, without_key
from xorbit.keys import list_keys, load_key, public_key_from
from xorbit.pins import Kept
from xorbit.run.calls import Calls
from xorbit.run.pinning import name_of
from xorbit.run.tracing import tracing

TEXT_FLAG = "-t"
TAKE_TEXT = ("put", "publish")
"""Commands in whose lines any text may stand, also what only looks like a mistyped key."""
_OWN_NUMBER = re.compile(r"f\d+")

Say = Callable[[str], None]


class Lines:
    """Does lines: the node's commands by the node, those that need files and keys by itself."""

    def __init__(self, calls: Calls, home: Path) -> None:
        """Serve a user whose files and keys are at `home`, at the node behind `calls`."""
        self.calls = calls
        self.home = home
        self._begun = 0
        self._running: dict[str, asyncio.Task[object]] = {}

    async def do(self, line: str, say: Say) -> None:
        """Do a line, and say every answer as it comes.

        Raises:
            XorbitError: it could not be done.
            StoppedError: the node is gone.
        """
        check_length(line)
        if is_own(line):
            await self.do_own(line, say)
            return
        async with aclosing(self.calls.console(self.for_node(line))) as answers:
            async for answer in answers:
                if answer:
                    say(answer)

    async def do_own(self, line: str, say: Say) -> None:
        """Do a line that `is_own`."""
        name, _, rest = line.strip().partition(" ")
        words = _words(rest)
        if _has_key(line) and name.lower() not in ("get", "pin", "unpin"):
            raise MisuseError("the key of private content goes to `get`, `pin` and `unpin` only")
        match name.lower():
            case "put":
                await self._put(words, say)
            case "get":
                await self._get(words, say)
            case "publish":
                await self._publish(words, say)
            case "pins" | "gc" | "pin" | "unpin":
                await self._kept(name.lower(), words, say)
            case "cancel":
                self._cancel(words[0].strip("[]").lower(), say)
            case _:
                self._keys(words, say)

    def for_node(self, line: str) -> str:
        """Return a line with the public key instead of the name of one of the user's keys.

        Raises:
            MisuseError: neither is there.
        """
        name, _, rest = line.strip().partition(" ")
        key, _, more = rest.strip().partition(" ")
        if name.lower() not in ("resolve", "follow") or not key:
            return line
        return f"{name} {public_key_from(self.home, key).hex()} {more.lstrip()}".strip()

    async def _put(self, words: list[str], say: Say) -> None:
        if len(words) != 1:
            _misuse("put")
        path = _path(words[0])
        own = (await self.calls.status()).id
        async with self._numbered(f"putting {path}", say) as number:
            summary = await self.calls.put_file(path)
        nodes = held_by(summary.fewest, own, or_more=summary.blocks > 1)
        kept = _not_kept(summary.not_kept)
        say(f"[{number}] {path}: {human_size(summary.bytes)} held by {nodes}{kept}\n{summary.cid}")

    async def _get(self, words: list[str], say: Say) -> None:
        match words:
            case [name, "-o", to] | ["-o", to, name]:
                path = _path(to)
                check_file_path(to)
            case [name]:
                raise MisuseError(
                    f"{without_key(name)} names a file of several blocks: "
                    "add -o PATH to write it somewhere"
                )
            case _:
                _misuse("get")
        place = parse_place(name)
        async with self._numbered(f"getting {path}", say) as number:
            size = await self.calls.get_file_to(place, path)
        say(f"[{number}] {path}: {human_size(size)} written")

    async def _publish(self, words: list[str], say: Say) -> None:
        salt, cas = _option(words, "--salt") or "", _option(words, "--cas")
        if len(words) != 2 or not (cas is None or cas.isdecimal()):
            _misuse("publish")
        name, value = words
        key = load_key(self.home, name)
        seen = None if cas is None else int(cas)
        content = value.encode(errors="surrogateescape")
        own = (await self.calls.status()).id
        with tracing() as works:
            async with self._numbered(f"publishing under {name}", say) as number:
                done = await self.calls.publish(key, content, salt=salt_from(salt), cas=seen)
        nodes = held_by(done.holders, own)
        trace = f"\n    (trace {works[-1].hex()[:8]})" if works else ""
        more = f" --salt {shlex.quote(salt)}" if salt else ""
        say(
            f"[{number}] {name}: sequence {done.seq}, held by {nodes}{_not_kept(done.not_kept)}; "
            "anybody reads it by\n"
            f"resolve {key.public_key.hex()}{more}{trace}"
        )

    async def _kept(self, what: str, words: list[str], say: Say) -> None:
        """Do what `xorbit pins`, `pin`, `unpin` and `gc` do."""
        if len(words) != (what in ("pin", "unpin")):
            _misuse(what)
        if what == "pins":
            rows = [f"{name_of(it.root)}  {human_size(it.root.size)}" for it in await self._pins()]
            say("\n".join(rows) or "nothing is pinned here")
        elif what == "pin":
            async with self._numbered(f"pinning {without_key(words[0])}", say) as number:
                root = await self.calls.pin(words[0])
            say(f"[{number}] {human_size(root.size)} kept here")
        else:
            count = await (self.calls.gc() if what == "gc" else self.calls.unpin(words[0]))
            say("1 item let go of" if count == 1 else f"{count:,} items let go of")

    async def _pins(self) -> tuple[Kept, ...]:
        found = await self.calls.pins()
        return found[-CONSOLE_LINES_MAX:]

    @asynccontextmanager
    async def _numbered(self, what: str, say: Say) -> AsyncGenerator[str]:
        """Give what takes time a number, by which `cancel` ends it and by which it is told apart.

        The node numbers its own lines; these have an f before the number.
        """
        self._begun += 1
        number = f"f{self._begun}"
        task = asyncio.current_task()
        assert task is not None, "asyncio runs this in a task"
        self._running[number] = task
        say(f"[{number}] {what}: 'cancel {number}' ends it")
        try:
            yield number
        except XorbitError as error:
            raise type(error)(f"[{number}] {error}") from error
        except asyncio.CancelledError:
            say(f"[{number}] cut off: {what} was not done to its end")
            raise
        finally:
            del self._running[number]

    def _cancel(self, number: str, say: Say) -> None:
        task = self._running.get(number)
        if task is None:
            raise MisuseError(f"nothing in progress has the number {number!r}")
        say(f"cancelling {number}")
        task.cancel()

    def _keys(self, words: list[str], say: Say) -> None:
        if words:
            _misuse("keys")
        keys = list_keys(self.home)
        width = max((len(key.name) for key in keys), default=0)
        lines = [f"{key.name:<{width}}  {key.public_key.hex()}" for key in keys]
        say("\n".join(lines) or f"none yet: `xorbit key new NAME --home {self.home}` makes one")


class TypedLines:
    """The lines of a node's own standard input; those that need files or keys run beside others.

    Answers go where the node's console shows them (`say`).
    """

    def __init__(self, node: Node, say: Say) -> None:
        """Serve the user who started `node`."""
        self._node = node
        self._say = say
        self._lines = Lines(node, node.home)
        self._running: dict[asyncio.Task[None], None] = {}

    def do(self, line: str) -> None:
        """Begin to do a line."""
        try:
            check_length(line)
            if not is_own(line):
                self._node.type_line(self._lines.for_node(line))
                return
            if len(self._running) >= DEFAULT_LIMITS.console_works_max:
                raise MisuseError(f"{len(self._running)} commands are in progress: wait for some")
        except XorbitError as error:
            self._say(keys_hidden(str(error)))
            return
        task = asyncio.create_task(self._do_own(line))
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def close(self) -> None:
        """End what is in progress."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _do_own(self, line: str) -> None:
        try:
            await self._lines.do_own(line, self._say)
        except XorbitError as error:
            self._say(keys_hidden(str(error)))


def check_length(line: str) -> None:
    """Refuse a line that is too long to be taken whole.

    Raises:
        MisuseError: it is.
    """
    if len(line.encode(errors="replace")) > CONSOLE_LINE_BYTES_MAX:
        raise MisuseError(
            f"a line holds at most {CONSOLE_LINE_BYTES_MAX:,} bytes: put what is longer as a file"
        )


def is_own(line: str) -> bool:
    """Return whether a line needs the user's files or keys."""
    name, _, rest = line.strip().partition(" ")
    if _has_key(line):
        return True  # whatever it is meant to be, the node is not told the key
    match name.lower(), rest.split():
        case "put", words:
            return words[:1] != [TEXT_FLAG]
        case "get", [name]:
            return _is_file(name)
        case ("get", [_, *_]) | (("publish" | "keys" | "pins" | "pin" | "unpin" | "gc"), _):
            return True
        case "cancel", [number]:
            return _OWN_NUMBER.fullmatch(number.strip("[]").lower()) is not None
        case _:
            return False


def _has_key(line: str) -> bool:
    """Return whether a line has the key of private content, also mistyped where no text may be."""
    name, _, _ = line.strip().partition(" ")
    return holds_key(line) or (name.lower() not in TAKE_TEXT and may_hold_key(line))


def _path(text: str) -> Path:
    if not text:
        raise MisuseError("expected a path, got nothing")
    return Path(text).expanduser()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise MisuseError(f"{error}: put quotes around what has spaces in it") from error


def _option(words: list[str], flag: str) -> str | None:
    """Take an option and its value out of the words."""
    if flag not in words[:-1]:
        return None
    at = words.index(flag)
    value = words[at + 1]
    del words[at : at + 2]
    return value


def _not_kept(why: str) -> str:
    return f", not pinned here ({why}): it expires unless somebody pins it" if why else ""


def _is_file(name: str) -> bool:
    """Return whether a name is that of a file of several blocks; text that is no name is not."""
    try:
        return parse_cid(name).codec is Codec.DAG_PB
    except MisuseError:
        return False


def _misuse(name: str) -> NoReturn:
    raise MisuseError(f"usage: {COMMANDS[name].usage} (put quotes around what has spaces in it)")
