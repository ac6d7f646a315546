"""Transcripts of machines: what each was told and what it wanted done, step by step.

A change of behaviour shows here as a diff to be reviewed. `pytest tests/scripts --regenerate`
writes them anew.
"""

import difflib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.scripts.script import QUIET, transcript
from tests.world import World
from xorbit.config import Limits
from xorbit.core import effect as fx
from xorbit.ids import Id
from xorbit.items import key_of, make_block
from xorbit.wire import message

HERE = Path(__file__).parent
CALM = Limits(
    maintenance_interval_s=1e6,
    finger_check_s_min=1e6,
    finger_check_s_max=1e6,
    survey_s_min=1e6,
    survey_s_max=1e6,
)
"""No upkeep, so that a transcript tells one story."""


def join() -> str:
    """B, which knows only A's address, joins a network of one."""
    world = World()
    a, b = world.node(limits=CALM), world.node(limits=CALM)
    a.bootstrap()
    world.run(0.2)
    began = world.now
    assert a.address is not None
    call = b.bootstrap(a.address)
    assert isinstance(world.outcome(b, call), fx.Joined)
    world.run(0.1)
    return transcript(world, (a, b), began, QUIET)


def find_next() -> str:
    """A asks who is nearest to a point; each node knows only the next, so it takes four hops."""
    world = World()
    target = Id(bytes(32))
    ids = [Id(bytes([0x80 >> at]) + b"\x55" * 31) for at in range(6)]
    chain = [world.node(limits=CALM, own=id) for id in ids[:5]]
    for node, after in pairwise(chain):
        call = node.connect(after)
        world.outcome(node, call)
        world.run(0.5)
    for node in chain:  # only what this story needs: each knows the next
        for other in chain:
            if chain.index(other) != chain.index(node) + 1:
                node.machine.state.table.forget(other.id)
    began = world.now
    call = chain[0].ask(chain[1], message.FindNext(target))
    outcome = world.outcome(chain[0], call)
    assert isinstance(outcome, fx.Answered)
    assert isinstance(outcome.response, message.Next)
    assert (outcome.response.contact.id, outcome.response.hops) == (ids[4], 3)
    return transcript(world, chain, began, QUIET)


def put_with_one_refusal() -> str:
    """A puts a block; C's store is full, so it refuses, and the receipt says so."""
    world = World()
    full = CALM.replace(store_quota_bytes=1)
    nodes = [world.node(limits=full if at == 2 else CALM) for at in range(4)]
    first = nodes[0].address
    assert first is not None
    nodes[0].bootstrap()
    for node in nodes[1:]:
        node.bootstrap(first)
    world.run(3.0)
    began = world.now
    call, _ = nodes[0].put(b"hello, network")
    outcome = world.outcome(nodes[0], call)
    assert isinstance(outcome, fx.PutDone)
    said = {receipt.node: receipt.outcome for receipt in outcome.receipts}
    assert said == {node.id: "refused" if at == 2 else "stored" for at, node in enumerate(nodes)}
    return transcript(world, nodes, began, QUIET)


def get_with_lost_connection() -> str:
    """A gets a block from one of two holders; the connection breaks, the other gives it."""
    world = World()
    nodes = world.network(3, CALM)
    asker, *others = nodes
    block = make_block(b"held by two")
    for holder in others:
        holder.keep(block.data)
    began = world.now
    call = asker.get(key_of(block))
    world.until(lambda: bool(asker.sent(message.Get)))
    (asked,) = (
        effect.connection
        for _, _, effects in asker.log
        for effect in effects
        if isinstance(effect, fx.Send) and isinstance(effect.envelope.body, message.Get)
    )
    world.run(world.delay_s + world.disk_s / 2)
    asker.cut(asked, "connection reset")
    assert isinstance(world.outcome(asker, call), fx.Got)
    return transcript(world, nodes, began, QUIET)


@pytest.mark.parametrize(
    "play",
    [join, find_next, put_with_one_refusal, get_with_lost_connection],
    ids=lambda it: it.__name__,
)
def test_transcript(play: Callable[[], str], request: pytest.FixtureRequest) -> None:
    """What happens is what was reviewed, word by word."""
    path = HERE / f"{play.__name__}.txt"
    shown = f"# {play.__doc__}\n# Steps of {', '.join(kind.__name__ for kind in QUIET)}" + (
        " without effect are left out.\n\n" + play()
    )
    if request.config.getoption("--regenerate"):
        path.write_text(shown)
    held = path.read_text()
    if held != shown:
        diff = difflib.unified_diff(
            held.splitlines(), shown.splitlines(), path.name, "now", lineterm=""
        )
        pytest.fail("the transcript differs: --regenerate writes it anew\n" + "\n".join(diff))


def test_a_transcript_is_the_same_each_time() -> None:
    """Names and times depend on the story alone."""
    assert join() == join()
