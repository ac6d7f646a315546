"""`xorbit mirror`: a folder that follows what somebody publishes.

What happens in the folder stands in files/mirror.py; here is only what is typed and said.
"""

import asyncio
from collections.abc import Generator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from xorbit.cli.options import (
    Bootstrap,
    Home,
    Json,
    NetworkName,
    NetworkSecret,
    calls_at,
    parse_path,
)
from xorbit.cli.output import ExitCode, fact, fact_json, finish, human_size, progress, talk
from xorbit.cli.places import Salt, public_key_named, salt_from
from xorbit.cli.record import PublicKey, told_of_silence
from xorbit.cli.staying import stay
from xorbit.config import MIRROR_LEFT_OUT_SHOWN_MAX
from xorbit.files.flow import Progress
from xorbit.files.mirror_folder import STATE_FOLDER
from xorbit.files.pointer import RecordPlace
from xorbit.run.calls import Calls
from xorbit.run.mirroring import Mirrored, NotMirrored


def mirror(
    public_key: PublicKey,
    directory: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            parser=parse_path,
            help="A new or empty folder, or one that mirrors this key already.",
            show_default=False,
        ),
    ],
    salt: Salt = "",
    once: Annotated[
        bool,
        typer.Option("--once", help="Bring the folder to the newest version, and stop."),
    ] = False,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Keep a folder as the newest version of a published tree is, until Ctrl-C.

    A line for each version: its sequence number and name, how many files were written and removed,
    and what was fetched for that: only blocks that no file of the folder has.

    Nothing of a version shows before all of it is there; then file after file is replaced. After a
    kill each file is whole, of one version or the next, and the next run goes on. A version that
    cannot be had leaves the folder as it was; it is tried again.

    What you put into the folder or change in it is never replaced or removed. Where that is in the
    way of the version it is said so, and with --once the exit code is 1: move it away, and the
    mirror puts its own there. What you delete of the mirror's comes back with the next version or
    run. The mirror's notes are in DIR/.xorbit-mirror, which `cid`, `put` and `publish --tree` leave
    out: `cid DIR` prints the name of the version if nobody changed anything.

    When the node on the home stops, the mirror waits until one runs there again, and goes on.
    """
    place = RecordPlace(public_key_named(home, public_key), salt_from(salt))
    bar, told = _Bar(directory), _Told(json)

    async def follow(calls: Calls) -> None:
        async with (
            told_of_silence(calls, place.public_key, place.salt),
            aclosing(calls.mirror(place, directory, progress=bar)) as outcomes,
        ):
            with bar.shown():
                async for outcome in outcomes:
                    bar.close()
                    told(outcome)

    async def work() -> bool:
        if once:
            async with calls_at(home, bootstrap, network, network_secret) as calls:
                with bar.shown():
                    done = await calls.mirror_once(place, directory, progress=bar)
                told(done)
                return not done.left_out
        talk(f"following {place.public_key.hex()}; Ctrl-C ends it")
        await stay(home, lambda: calls_at(home, bootstrap, network, network_secret), follow)
        return True

    if not finish(work()):
        raise typer.Exit(ExitCode.FAILED)


class _Bar:
    """The progress of the version that is coming: while none comes there is no bar."""

    def __init__(self, directory: Path) -> None:
        self._kept = directory / STATE_FOLDER
        self._open: ExitStack | None = None
        self._tell: Progress | None = None

    def __call__(self, done: int, total: int | None) -> None:
        if self._open is None:
            self._open = ExitStack()
            self._tell = self._open.enter_context(progress("mirror"))
        if self._tell is not None:
            self._tell(done, total)

    def close(self) -> None:
        """Take the bar away, until something is told again."""
        if self._open is not None:
            self._open.close()
        self._open = None

    @contextmanager
    def shown(self) -> Generator[None]:
        """Take the bar away at the end; who was interrupted in a version hears what is kept."""
        try:
            yield
        except asyncio.CancelledError as interrupted:
            if self._open is not None:
                interrupted.add_note(
                    f"what came of this version is kept in {self._kept}: the same mirror goes on "
                    "from there"
                )
            raise
        finally:
            self.close()


class _Told:
    """Tells what became of versions; that a version is still there after the node stopped, not."""

    def __init__(self, json: bool) -> None:
        self._json = json
        self._last: Mirrored | None = None

    def __call__(self, outcome: Mirrored | NotMirrored) -> None:
        if isinstance(outcome, Mirrored):
            last, self._last = self._last, outcome
            changed = outcome.files + outcome.removed
            if last is not None and not changed and _what(last) == _what(outcome):
                return
        tell_outcome(outcome, self._json)


def _what(done: Mirrored) -> tuple[object, ...]:
    return done.seq, done.cid, done.left_out


def tell_outcome(outcome: Mirrored | NotMirrored, json: bool) -> None:
    """Say what became of a version: what was done is a fact, all else is talk."""
    if isinstance(outcome, NotMirrored):
        stays = f"stays at version {outcome.at}" if outcome.at else "stays empty"
        talk(f"version {outcome.seq} cannot be had, the folder {stays}: {outcome.error}")
        return
    for seq in outcome.lost:
        talk(
            f"version {seq}, which was here, cannot be read any more: "
            "what of it is not known to be the mirror's counts as yours"
        )
    for path in outcome.left_out[:MIRROR_LEFT_OUT_SHOWN_MAX]:
        talk(f"left out of version {outcome.seq}: {path}, where something is that is not its own")
    if more := outcome.left_out[MIRROR_LEFT_OUT_SHOWN_MAX:]:
        talk(f"left out of version {outcome.seq}: {len(more):,} more")
    if json:
        fact_json(_facts(outcome))
        return
    blocks = "1 block" if outcome.fetched_blocks == 1 else f"{outcome.fetched_blocks:,} blocks"
    fetched = f"{blocks} fetched, {human_size(outcome.fetched_bytes)}"
    changed = f"{outcome.files:,} written, {outcome.removed:,} removed"
    fact(f"{outcome.seq}  {outcome.cid}  {changed}; {fetched}")


def _facts(done: Mirrored) -> dict[str, object]:
    return {
        "seq": done.seq,
        "cid": str(done.cid),
        "files": done.files,
        "removed": done.removed,
        "fetched_blocks": done.fetched_blocks,
        "fetched_bytes": done.fetched_bytes,
        "reused_bytes": done.reused_bytes,
        "left_out": list(done.left_out),
        "lost": list(done.lost),
    }
