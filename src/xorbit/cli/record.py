"""`xorbit publish`, `resolve` and `follow`: records, which only the holder of a key can write."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer

from xorbit.api import default_home
from xorbit.cli.names import may_wait, source_at, there
from xorbit.cli.options import (
    Bootstrap,
    Hash,
    HashName,
    Home,
    Json,
    NetworkName,
    NetworkSecret,
    calls_at,
    parse_given,
    parse_path,
    storing_at,
)
from xorbit.cli.output import (
    Begun,
    fact,
    fact_json,
    finish,
    held_by,
    progress,
    stored,
    talk,
    text_or_base64,
    warn_leading_out,
    warn_not_kept,
)
from xorbit.cli.places import Salt, public_key_named, salt_from
from xorbit.cli.staying import stay
from xorbit.cli.tracing import Recorder, Trace
from xorbit.config import DEFAULT_LIMITS
from xorbit.errors import MisuseError, NoPeersError, NotFoundError, XorbitError
from xorbit.files.flow import in_thread
from xorbit.files.local import open_source, read_up_to, size_left
from xorbit.files.pointer import pointer_to
from xorbit.files.transfer import PutSummary
from xorbit.ids import Id
from xorbit.items import VALUE_BYTES_MAX, Record
from xorbit.keys import load_key
from xorbit.run.calls import Calls
from xorbit.run.file_calls import FileCalls
from xorbit.run.publish import PublishReceipt

PublicKey = Annotated[
    str,
    typer.Argument(
        metavar="PUBLICKEY",
        help="A public key in hexadecimal digits, or the name of a key of yours.",
        show_default=False,
    ),
]


Tree = Annotated[
    Path | None,
    typer.Option(
        "--tree",
        metavar="PATH",
        parser=parse_path,
        help="Put a directory or a file, as `put` does, and point to it. A file is got by the key, "
        "but not mirrored.",
        show_default=False,
    ),
]

Cas = Annotated[
    int | None,
    typer.Option(
        "--cas",
        metavar="SEQ",
        min=0,
        help="Only if the newest version is this one (0: none yet); else exit code 5.",
        show_default=False,
    ),
]


def publish(
    key: Annotated[
        str, typer.Argument(metavar="KEYNAME", help="A key of yours.", show_default=False)
    ],
    value: Annotated[
        str | None, typer.Argument(metavar="[VALUE]", help="Text.", show_default=False)
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="PATH",
            parser=parse_given,
            help="The value is the bytes of a file; - is standard input.",
        ),
    ] = None,
    tree: Tree = None,
    hash: Hash = HashName.BLAKE3,
    encrypt: Annotated[bool, typer.Option("--encrypt", hidden=True)] = False,
    salt: Salt = "",
    cas: Cas = None,
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Publish the next version of your record: a value of up to 60,000 bytes, or a --tree.

    It is signed here; the key never leaves this command. Others read it with `resolve` and the
    key's public part, which `xorbit key show` prints. A tree they get by that key, as in
    `get PUBLICKEY/sub/file`, and follow with `mirror`. Trees of earlier versions stay pinned here
    until `unpin`.
    """
    if encrypt:
        raise MisuseError(
            "a record is read by everybody and has no place for the key of private content: "
            "'xorbit put --encrypt' it, and give its name to those who are to have it"
        )
    signer = load_key(home or default_home(), key)
    content = _value(value, file, tree)
    recorder, begun = Recorder(trace, json), Begun()

    async def work() -> tuple[PutSummary | None, PublishReceipt, Id]:
        async with (
            storing_at(home, bootstrap, network, network_secret) as calls,
            recorder.at(calls, f"publish {key}"),
        ):
            own = (await calls.status()).id
            put = None if tree is None else await _put(recorder, tree, hash, begun)
            value = content if put is None else pointer_to(put.cid)
            publishing = calls.publish(signer, value, salt=salt_from(salt), cas=cas)
            return put, await recorder.watch("", publishing), own

    put, receipt, own = finish(work(), at_once=may_wait(tree), begun=begun)
    if json:
        fact_json({**_receipt_facts(receipt), **_put_facts(put, receipt), **recorder.facts()})
    else:
        _tell_of_receipt(put, receipt, own)


async def _put(calls: FileCalls, tree: Path, hash: HashName, begun: Begun) -> PutSummary:
    with begun.storing("publish"), progress("put") as tell:
        summary = await calls.put_tree(tree, kind=hash.kind, progress=tell)
    await in_thread(lambda: warn_leading_out(tree))
    return summary


def _receipt_facts(receipt: PublishReceipt) -> dict[str, object]:
    return {
        "public_key": receipt.public_key.hex(),
        **text_or_base64("salt", receipt.salt),
        "seq": receipt.seq,
        "holders": [holder.hex() for holder in receipt.holders],
        "receipts": [
            {"node": said.node.hex(), "outcome": said.outcome, "reason": said.reason}
            for said in receipt.receipts
        ],
        "not_kept": receipt.not_kept,
    }


def _put_facts(put: PutSummary | None, receipt: PublishReceipt) -> dict[str, object]:
    if put is None:
        return {}
    return {
        "cid": str(put.cid),
        "bytes": put.bytes,
        "blocks": put.blocks,
        "holders_min": put.holders_min,
        "others_min": put.others_min,
        "held_before": put.held_before,
        "unasked": put.unasked,
        "not_kept": put.not_kept or receipt.not_kept,
    }


def _tell_of_receipt(put: PutSummary | None, receipt: PublishReceipt, own: Id) -> None:
    if put is not None:
        talk(f"{stored(put, own)}: {put.cid}")
    warn_not_kept(receipt.not_kept if put is None else put.not_kept or receipt.not_kept)
    if own in receipt.holders:
        talk(f"held by {held_by(receipt.holders, own)}")
    nodes = "1 node" if len(receipt.holders) == 1 else f"{len(receipt.holders)} nodes"
    fact(f"version {receipt.seq} of {receipt.public_key.hex()} held by {nodes}")


def resolve(
    public_key: PublicKey,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
    trace: Trace = False,
) -> None:
    """Print the newest version of a record: its value alone, or everything with --json."""
    wanted = public_key_named(home, public_key)
    recorder = Recorder(trace, json)

    async def work() -> Record:
        async with (
            calls_at(home, bootstrap, network, network_secret) as calls,
            recorder.at(calls, f"resolve {public_key}"),
        ):
            return await recorder.watch("", calls.resolve(wanted, salt_from(salt)))

    record = finish(work())
    if json:
        fact_json({**_record_facts(record), **recorder.facts()})
    elif sys.stdout.isatty():
        fact(_shown(record.value))
    else:
        sys.stdout.buffer.write(record.value)
        sys.stdout.flush()


def follow(
    public_key: PublicKey,
    salt: Salt = "",
    bootstrap: Bootstrap = None,
    network: NetworkName = None,
    network_secret: NetworkSecret = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Print a line for the newest version of a record, then one for each newer one, until Ctrl-C.

    Sequence number and value, or one JSON object a line. That there is no version yet, or nobody
    to ask, is said on standard error. When the node on the home stops, it waits until one runs
    there again, and goes on.
    """
    wanted = public_key_named(home, public_key)
    shown_seq = 0

    async def work(calls: Calls) -> None:
        nonlocal shown_seq
        async with (
            told_of_silence(calls, wanted, salt_from(salt)),
            aclosing(calls.follow(wanted, salt_from(salt))) as versions,
        ):
            async for record in versions:
                if record.seq <= shown_seq:
                    continue  # the node stopped, and began with it again
                shown_seq = record.seq
                if json:
                    fact_json(_record_facts(record))
                else:
                    fact(f"{record.seq}  {_shown(record.value)}")

    finish(stay(home, lambda: calls_at(home, bootstrap, network, network_secret), work))


@asynccontextmanager
async def told_of_silence(calls: Calls, public_key: bytes, salt: bytes) -> AsyncGenerator[None]:
    """Say on standard error, each once, that there is nothing to see yet, and nobody to ask."""
    telling = asyncio.create_task(_tell_of_silence(calls, public_key, salt))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.wait([telling])


async def _tell_of_silence(calls: Calls, public_key: bytes, salt: bytes) -> None:
    what = f"following {public_key.hex()}"
    try:
        await calls.resolve(public_key, salt)
    except (NotFoundError, NoPeersError):
        talk(f"{what}; there is no version yet")
    except XorbitError:
        return  # following fails of the same, and says so
    with suppress(XorbitError):  # the same
        while await calls.peers():  # noqa: ASYNC110 - they may be those of another process
            await asyncio.sleep(DEFAULT_LIMITS.follow_poll_s)
        every_s = DEFAULT_LIMITS.follow_retry_s
        talk(f"{what}; no other node is reachable now: looking again every {every_s:g} s")


def _value(value: str | None, file: str | None, tree: Path | None) -> bytes:
    """Return what is to be published; nothing where it is to be a tree, whose name is not known."""
    if sum(given is not None for given in (value, file, tree)) != 1:
        raise MisuseError("name what to publish: a VALUE, --file PATH or --tree PATH (one of them)")
    if tree is not None:
        there(tree)
        return b""
    if value is not None:
        return value.encode(errors="surrogateescape")
    with open_source(source_at(str(file))) as opened:
        size = size_left(opened) or 0
        if size > VALUE_BYTES_MAX:
            raise MisuseError(
                f"a record's value holds at most {VALUE_BYTES_MAX:,} bytes, {file} has {size:,}"
            )
        return read_up_to(opened, VALUE_BYTES_MAX + 1)


def _record_facts(record: Record) -> dict[str, object]:
    return {
        "public_key": record.public_key.hex(),
        **text_or_base64("salt", record.salt),
        "seq": record.seq,
        **text_or_base64("value", record.value),
        "signature": record.signature.hex(),
    }


def _shown(value: bytes) -> str:
    """Return a value as one line that upsets no terminal."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return f"({len(value):,} bytes that are no text; --json shows them)"
    return text if text.isprintable() else repr(text)[1:-1]
