"""What may be typed at a node: every command answered, everything bounded, nothing believed."""

import pytest
from nacl.signing import SigningKey

from tests.world import Node, World
from xorbit.config import CONSOLE_TEXT_CHARACTERS_MAX, CONSOLE_WORKS_SHOWN_MAX, Limits
from xorbit.core import effect as fx
from xorbit.core import job as jobs
from xorbit.core.console import COMMANDS
from xorbit.core.console.line import name_of, parse_name
from xorbit.core.console.tell import outcome_text
from xorbit.core.job import QueueFigures
from xorbit.files.cid import Cid, Codec
from xorbit.ids import Guid, Id
from xorbit.items import (
    Address,
    Contact,
    Kind,
    block_key,
    key_of,
    make_block,
    make_connection_item,
    make_record,
    record_key,
)
from xorbit.pins import Root, ScanRoots, Told
from xorbit.wire import message

SESSION = Guid(b"s" * 16)
KEY = SigningKey(b"k" * 32)


def type_in(node: Node, line: str, run_s: float = 0.001) -> list[str]:
    """Type a line and return what is shown for it within some virtual time."""
    before = len(node.shown)
    node.push(jobs.HandleStdinLine(line))
    node.world.run(run_s)
    return node.shown[before:]


def answer(node: Node, line: str) -> str:
    """Type a line that is answered at once, and return the answer."""
    (text,) = type_in(node, line)
    return text


# --- The table ----------------------------------------------------------------------------------


def test_help_lists_every_command_with_its_arguments() -> None:
    lines = answer(World().node(), "help").splitlines()
    text = iter(lines)
    for command in COMMANDS.values():
        line = next(text)
        assert line.strip().startswith(command.usage)
        assert command.help in (line if command.help in line else next(text))
    assert next(text, None) is None


def test_help_fits_a_terminal_of_80_columns() -> None:
    lines = answer(World().node(), "help").splitlines()
    assert max(map(len, lines)) <= 80


def test_help_of_one_command() -> None:
    node = World().node()
    assert answer(node, "HELP Put").startswith("put PATH | put -t TEXT\n")
    assert answer(node, "help exit").startswith("quit\n")
    assert answer(node, "help frob") == "unknown command 'frob': 'help' lists them all"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_its_usage_when_given_too_much_or_too_little(name: str) -> None:
    command = COMMANDS[name]
    node = World().node()
    if command.least:
        assert answer(node, name) == f"usage: {command.usage}"
    if command.most < 100:
        assert answer(node, f"{name} {'x ' * (command.most + 1)}") == f"usage: {command.usage}"


def test_what_is_no_command_is_told_so() -> None:
    node = World().node()
    assert answer(node, "frobnicate") == "unknown command 'frobnicate': 'help' lists them all"
    assert "unknown command" in answer(node, "\ufffd\x00")
    assert len(answer(node, "x" * 60_000)) < 100


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("fing", "'fingers'"), ("peer x", "'peers'"), ("stauts", "'status'"), ("po", "'possibles'")],
)
def test_what_may_have_been_meant_is_named(typed: str, meant: str) -> None:
    assert f"did you mean {meant}" in answer(World().node(), typed)


def test_a_line_as_the_shell_takes_it_is_told_what_to_leave_out() -> None:
    assert answer(World().node(), "xorbit peers").startswith("leave out 'xorbit' here")


def test_of_a_line_typed_wrongly_no_more_than_a_page_is_said_back() -> None:
    assert len(answer(World().node(), f"whereis {'x' * 60_000}")) == CONSOLE_TEXT_CHARACTERS_MAX


def test_an_empty_line_is_answered_with_nothing_but_a_console_hears_its_end() -> None:
    node = World().node()
    assert type_in(node, "  ") == []
    effects = node.step(jobs.HandleStdinLine(" ", SESSION))
    assert effects == [fx.Print("", SESSION)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("whereis zz", "expected an id of 64"),
        ("whereis " + "ab" * 40, "expected an id of 64"),
        ("whereis 0f", "no node that is known here begins so"),
        ("lookup " + "g" * 64, "expected an id of 64"),
        ("get bafy", "expected a name"),
        ("get " + "b" + "1" * 58, "expected a name"),
        ("get b" + "a" * 58, "expected a name"),
        ("trace zz", "expected a guid"),
        ("trace 7", "expected a guid"),
        ("resolve 12", "expected a public key"),
        ("resolve zz", "expected a public key"),
        ("connect nowhere", "expected an id or HOST:PORT"),
        ("connect nowhere:x", "expected HOST:PORT"),
        ("publish me hello", "what needs your keys is done where your files are"),
        ("keys", "what needs your keys"),
        ("put file", "'put -t TEXT' stores a text"),
        ("put -t", "expected a text"),
        ("put -t ''", "expected a text"),
        ("put -t 'open", "a quote is opened and not closed: 'open"),
        ("pins", "what is kept here is done where your files are"),
        ("resolve " + "ab" * 32 + " --salt", "usage: resolve KEY [--salt SALT]"),
        ("follow " + "ab" * 32 + " salt", "usage: follow KEY [--salt SALT]"),
        ("connect 7", "no node that is known here begins so"),
        ("connect " + "ab" * 32, "no address of abababab is known"),
        ("cancel 7", "nothing in progress has the number '7'"),
        ("put -t " + "x" * 70_000, "65,536 bytes"),
    ],
)
def test_what_is_typed_wrongly_is_told_what_was_expected(line: str, says: str) -> None:
    assert says in answer(World().node(), line)


# --- What the state tells -------------------------------------------------------------------------


def test_status_says_who_and_where_the_node_is() -> None:
    one, _ = World().pair()
    assert answer(one, "status") == (
        f"id {one.id.hex()}\nlistening at {one.address}\n1 contact, 1 peer connected, "
        "0 works in progress"
    )
    assert "listening at nowhere (a client)" in answer(World().node(listen=False), "status")


def test_peers_lists_who_is_connected_in_the_order_of_their_ids() -> None:
    world = World()
    nodes = world.network(3)
    head, *rows = answer(nodes[0], "peers").splitlines()
    assert head.split()[:2] == ["ID", "ADDRESS"]
    assert [row.split()[0] for row in rows] == sorted(node.id.hex()[:8] for node in nodes[1:])
    assert answer(world.node(), "peers") == "no peers"


def test_a_peer_that_was_never_measured_has_no_round_trip() -> None:
    world = World()
    one, other = world.node(), world.node(listen=False)
    other.connect(one)
    world.run(3 * world.delay_s + 0.0001)
    assert "  -  " in answer(one, "peers")


def test_fingers_and_buckets_show_the_table() -> None:
    world = World()
    nodes = world.network(4)
    _, *fingers = answer(nodes[0], "fingers").splitlines()
    _, *buckets = answer(nodes[0], "buckets").splitlines()
    assert [row.split()[0] for row in fingers] == [row.split()[0] for row in buckets]
    assert sum(int(row.split()[1]) for row in buckets) == 3
    nearest = {row.split()[2] for row in fingers}
    assert nearest <= {node.id.hex()[:8] for node in nodes[1:]}
    alone = world.node()
    assert answer(alone, "fingers") == answer(alone, "buckets") == "no contacts yet"


def test_knowns_and_possibles_come_latest_first() -> None:
    world = World()
    node = world.node()
    assert answer(node, "knowns") == answer(node, "possibles") == "none"
    first, second = world.free_address(), world.free_address()
    node.bootstrap(first, second)
    assert answer(node, "knowns").splitlines() == [str(second), str(first)]
    for number in (1, 2):
        id = Id(bytes([number]) * 32)
        node.machine.state.possibles[id] = Contact(id, (first,) if number == 1 else ())
    later, earlier = answer(node, "possibles").splitlines()
    assert later.split(maxsplit=1)[1] == "no address"
    assert earlier.split()[1] == str(first)


def test_a_long_answer_is_cut_and_says_so() -> None:
    node = World().node()
    addresses = tuple(Address("10.1.2.3", port) for port in range(1, 302))
    node.bootstrap(*addresses)
    lines = answer(node, "knowns").splitlines()
    assert len(lines) == 101
    assert lines[-1] == "... and 201 more"


def test_jobs_shows_the_figures_of_the_queue_that_came_with_the_line() -> None:
    """Sources by their peer, kinds by how often, and how often a second since last time."""
    one, other = World().pair()
    connection = one.links_to(other)[0].hex()
    waiting = (("clock", 3), (connection, 2), ("00" * 16, 1))
    figures = QueueFigures(waiting, (("Tick", 100), ("Get", 200)))
    state = one.machine.state
    state.served_at = one.world.now - 10
    (effect,) = one.step(jobs.HandleStdinLine("jobs", None, figures))
    assert isinstance(effect, fx.Print)
    lines = [line.split() for line in effect.text.splitlines()]
    assert lines[1:4] == [
        ["3", "clock"],
        ["2", "peer", other.id.hex()[:8]],
        ["1", "a", "connection", "that", "is", "gone"],
    ]
    assert lines[5:7] == [["200", "20.0", "Get"], ["100", "10.0", "Tick"]]
    (effect,) = one.step(jobs.HandleStdinLine("jobs", None, QueueFigures()))
    assert isinstance(effect, fx.Print)
    assert effect.text.startswith("nothing waits\n")
    (effect,) = one.step(jobs.HandleStdinLine("jobs", None, figures))
    assert isinstance(effect, fx.Print)
    assert "0.0" in effect.text


def test_work_says_what_is_in_progress_and_what_it_waits_for() -> None:
    """Requests in flight, the disk, a dial, or time; and which work elsewhere caused it."""
    one, other = World().pair()
    assert answer(one, "work") == "nothing is in progress"
    other.mute = True
    asking = one.ask(other, message.Ping())
    reading = one.get(key_of(make_block(b"never put")))
    dialling = one.call(lambda guid: jobs.Connect(guid, (one.world.black_hole(),)))
    text = answer(one, "work")
    rows = {row.split()[0]: row for row in text.splitlines()}
    assert rows[asking.hex()].endswith("1 x Ping")
    assert rows[reading.hex()].endswith("the disk")
    assert rows[dialling.hex()].endswith("a dial")
    assert "itself" in rows[asking.hex()]
    one.world.run(1.5)
    assert " 1 s" in answer(one, "work") or " 2 s" in answer(one, "work")


def test_many_works_are_counted_by_kind() -> None:
    """A put of a large file does not fill the screen."""
    one, other = World().pair()
    other.mute = True
    guids = [one.ask(other, message.Ping()) for _ in range(CONSOLE_WORKS_SHOWN_MAX + 2)]
    lines = answer(one, "work").splitlines()
    assert len(lines) == 1 + CONSOLE_WORKS_SHOWN_MAX + 1
    assert lines[-1].startswith("... and 2 more: 2 x ")
    assert lines[1].startswith(guids[0].hex())


def test_what_only_this_node_took_is_told_so() -> None:
    *_, last = type_in(World().node(), "put -t hello", 2.0)
    assert last.startswith("[1] stored at this node only")


def test_a_request_that_waits_for_a_dial_says_so() -> None:
    world = World()
    node = world.node()
    guid = node.ask(Contact(Id(b"q" * 32), (world.black_hole(),)), message.Ping())
    row = next(row for row in answer(node, "work").splitlines() if guid.hex() in row)
    assert row.endswith("a dial")


def test_trace_takes_a_guid_its_beginning_or_the_number_of_a_line() -> None:
    one, other = World().pair()
    guid = one.ask(other, message.Ping())
    one.world.run(1.0)
    whole = answer(one, f"trace {guid.hex()}")
    assert "Ping  -> Pong" in whole
    assert str(other.address) in whole
    assert answer(one, f"trace {guid.hex()[:8].upper()}") == whole
    assert answer(one, "trace " + "00" * 16) == f"nothing is remembered here of {'00' * 16}"
    other.mute = True
    type_in(one, f"ping {other.id.hex()}")
    assert "in progress" in answer(one, "trace 1")
    assert "expected a guid" in answer(one, "trace 2")


# --- What takes time ------------------------------------------------------------------------------


def test_what_is_put_can_be_got_at_any_node_by_the_name_that_was_shown() -> None:
    world = World()
    nodes = world.network(4)
    first, last = type_in(nodes[0], "put -t hello  there", 2.0)
    name = first.split()[-1]
    assert name == str(Cid(Codec.RAW, block_key(b"hello  there")))
    assert last.startswith("[1] stored at 4 nodes")
    before, got = type_in(nodes[2], f"get {name}", 2.0)
    assert before == f"[1] getting {name}"
    assert "hello  there" in got
    *_, got = type_in(nodes[1], f"get xorbit://{name}", 2.0)
    assert "hello  there" in got


def test_what_is_put_is_kept_under_its_name_unless_it_was_not_stored() -> None:
    world = World()
    nodes = world.network(2)
    type_in(nodes[0], "put -t hello", 2.0)
    alone = world.node(listen=False)
    type_in(alone, "put -t hello", 200.0)
    roots = [node.store.tend([ScanRoots(9)])[0].roots for node in (nodes[0], alone)]
    assert [kept.root for kept in roots[0]] == [Root(block_key(b"hello"), size=5)]
    assert roots[1] == ()


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("'hello  there'", b"hello  there"),
        ('"it\'s"', b"it's"),
        ("it's", b"it's"),
        ("'one' 'two'", b"'one' 'two'"),
        ("  - x  ", b"- x"),
    ],
)
def test_quotes_around_a_text_are_no_part_of_it(typed: str, stored: bytes) -> None:
    first, *_ = type_in(World().node(), f"put -t {typed}")
    assert first.split()[-1] == name_of(block_key(stored))


def test_what_nobody_has_is_told_so() -> None:
    one, _ = World().pair()
    *_, text = type_in(one, f"get {name_of(block_key(b'nobody'))}", 5.0)
    assert "nobody has it: 1 said so, 0 could not be asked" in text


def test_the_name_of_a_file_of_several_blocks_is_not_shown_as_bytes() -> None:
    name = str(Cid(Codec.DAG_PB, block_key(b"x")))
    assert "names a file of several blocks" in answer(World().node(), f"get {name}")


def test_names_are_those_of_files() -> None:
    """The core reads and writes the same CIDs as the rest of xorbit, and no others."""
    for kind in (Kind.BLOCK_BLAKE3_256, Kind.BLOCK_SHA2_256):
        key = block_key(b"data", kind)
        assert name_of(key) == str(Cid(Codec.RAW, key))
        assert parse_name(str(Cid(Codec.DAG_PB, key))) == (key, True)
    other = bytes((1, 0x71, 0x1E, 32)) + bytes(32)
    from base64 import b32encode

    text = "b" + b32encode(other).decode().rstrip("=").lower()
    assert "a hash that xorbit has" in answer(World().node(), f"get {text}")


def test_lookup_shows_each_step_as_it_happens() -> None:
    world = World()
    nodes = world.network(5)
    first, *steps, last = type_in(nodes[0], f"lookup {nodes[3].id.hex()[:12]}", 3.0)
    assert first.startswith("[1] looking up")
    asked = [step for step in steps if "ask " in step]
    answered = [step for step in steps if step.endswith("ms)")]
    assert len(asked) == len(answered) == 4
    assert "4 closest; 4 answered, 0 did not" in last
    assert nodes[0].machine.state.trace.watched == {}


def test_a_lookup_that_takes_too_long_says_who_has_answered_by_then() -> None:
    limits = Limits(work_timeout_s=0.5, maintenance_interval_s=1e6)
    one, other = World().pair(limits)
    other.mute = True
    *_, text = type_in(one, f"lookup {'ab' * 32}", 1.0)
    assert text.startswith("[1] 0 closest; 0 answered")


def test_a_lookup_goes_on_without_those_who_do_not_answer() -> None:
    world = World()
    nodes = world.network(4)
    nodes[1].mute = True
    *_, text = type_in(nodes[0], f"lookup {'ab' * 32}", 30.0)
    assert "[1] 2 closest; 2 answered, 1 did not" in text


def test_a_contact_that_fails_is_no_finger() -> None:
    one, other = World().pair()
    one.machine.state.table.failed(other.id)
    assert answer(one, "fingers") == "no contacts yet"
    assert answer(one, "buckets") != "no contacts yet"


def test_of_several_lines_just_the_one_is_cancelled() -> None:
    one, other = World().pair()
    other.mute = True
    for _ in range(2):
        one.push(jobs.HandleStdinLine(f"ping {other.id.hex()}"))
    assert type_in(one, "cancel 2")[-1] == "[2] cancelled"
    assert [typed.number for typed in one.machine.state.typed.values()] == [1]


def test_two_lines_at_once_are_told_apart_by_their_numbers() -> None:
    one, other = World().pair()
    other.mute = True
    one.push(jobs.HandleStdinLine(f"ping {other.id.hex()}"))
    one.push(jobs.HandleStdinLine(f"lookup {other.id.hex()}"))
    one.world.run(20.0)
    assert {text[:4] for text in one.shown} == {"[1] ", "[2] "}


def test_ping_says_who_is_there_and_how_far() -> None:
    one, other = World().pair()
    *_, text = type_in(one, f"ping {other.id.hex()[:6]}", 1.0)
    assert f"{other.id.hex()[:8]} is there" in text
    *_, text = type_in(one, f"ping {other.address}", 1.0)
    assert "is there" in text
    *_, text = type_in(one, f"ping {'ab' * 32}", 1.0)
    assert text.startswith("[3] failed (unreachable): no connection and no address")


def test_connect_and_disconnect() -> None:
    world = World(seed=3)
    one, other = world.node(), world.node()
    *_, text = type_in(one, f"connect {other.address}", 1.0)
    assert f"connected: {other.id.hex()} is there" in text
    assert "closing 1 connection to" in answer(one, f"disconnect {other.id.hex()[:8]}")
    world.run(0.5)
    assert not one.links_to(other)
    assert "is not connected" in answer(one, f"disconnect {other.id.hex()}")
    *_, text = type_in(one, f"connect {world.free_address()}", 1.0)
    assert "failed (unreachable)" in text


def test_connect_takes_a_node_of_which_an_address_is_known() -> None:
    """From the table, or only heard of; nobody else may answer there."""
    world = World(seed=3)
    one, other = world.pair()
    first, *_ = type_in(one, f"connect {other.id.hex()[:8]}", 1.0)
    assert first == f"[1] dialling {other.id.hex()[:8]} at {other.address}"
    wrong = Id(b"w" * 32)
    one.machine.state.possibles[wrong] = Contact(wrong, (other.address,))
    *_, text = type_in(one, f"connect {wrong.hex()[:8]}", 1.0)
    assert "failed (unreachable)" in text


@pytest.mark.parametrize("command", ["ping", "connect", "disconnect"])
def test_a_node_does_not_talk_to_itself(command: str) -> None:
    node = World().node()
    assert answer(node, f"{command} {node.id.hex()}") == f"{node.id.hex()[:8]} is this node itself"


def test_whereis_asks_for_the_nodes_own_word() -> None:
    one, other = World().pair()
    first, _ = type_in(one, f"whereis {other.id.hex()}", 5.0)
    assert f"known at {other.address}" in first
    first, _ = type_in(one, f"whereis {'ab' * 32}", 5.0)
    assert first.endswith(": asking for its own word")


def test_a_record_is_resolved_and_followed() -> None:
    """Resolve shows the newest version, follow each newer one until it is cancelled."""
    world = World()
    nodes = world.network(4)

    def publish(seq: int, value: bytes) -> None:
        record = make_record(KEY, seq, value)
        call = nodes[1].call(lambda guid: jobs.Store(guid, key_of(record), record, seq - 1))
        world.outcome(nodes[1], call)

    publish(1, b"first")
    public = KEY.verify_key.encode().hex()
    *_, text = type_in(nodes[0], f"resolve {public}", 3.0)
    assert "sequence 1, 5 bytes:\nfirst" in text
    first, text = type_in(nodes[0], f"resolve {public} --salt 's'", 3.0)
    assert first.endswith(f"of {public[:8]} with salt 's'")
    assert "nobody has it" in text
    said, shown = type_in(nodes[0], f"follow {public}", 3.0)
    assert "'cancel 3' ends it" in said
    assert shown.startswith("[3] sequence 1")
    elsewhere = nodes[0].call(
        lambda guid: jobs.Follow(guid, record_key(KEY.verify_key.encode()))
    )  # a program's, which is nothing to the console
    publish(2, b"second")
    world.run(3.0)
    assert elsewhere in nodes[0].machine.state.works
    assert nodes[0].shown[-1] == "[3] sequence 2, 6 bytes:\nsecond"
    assert type_in(nodes[0], "cancel [3]") == ["[3] cancelled"]
    assert not nodes[0].machine.state.typed


def test_a_console_that_leaves_ends_what_it_began() -> None:
    """The work of a line has the session as its guid, so that Cancel ends it."""
    one, other = World().pair()
    other.mute = True
    one.step(jobs.HandleStdinLine(f"lookup {other.id.hex()}", SESSION))
    assert SESSION in one.machine.state.works
    effects = one.step(jobs.Cancel(SESSION))
    assert effects == [fx.Print("[1] cancelled", SESSION)]
    assert not one.machine.state.typed
    assert one.step(jobs.Cancel(SESSION)) == []
    nobodys = one.ask(other, message.Ping())
    one.world.run(0.001)
    assert one.step(jobs.Cancel(nobodys)) == []


def test_answers_go_to_the_session_that_asked() -> None:
    one, _ = World().pair()
    effects = one.step(jobs.HandleStdinLine("status", SESSION))
    assert [effect.session for effect in effects if isinstance(effect, fx.Print)] == [SESSION]


def test_lines_in_progress_are_bounded() -> None:
    limits = Limits(console_works_max=2, maintenance_interval_s=1e6)
    one, other = World().pair(limits)
    other.mute = True
    for _ in range(3):
        one.push(jobs.HandleStdinLine(f"ping {other.id.hex()}"))
    one.world.run(0.001)
    assert one.shown[-1] == "2 commands are in progress: wait, or cancel one"
    assert len(one.machine.state.typed) == 2


@pytest.mark.parametrize("line", ["stop", "quit"])
def test_stop_ends_the_node_as_a_signal_would(line: str) -> None:
    node = World().node()
    assert answer(node, line) == "stopping"
    assert node.stopped


def test_a_beginning_that_two_nodes_share_is_not_guessed() -> None:
    world = World()
    node = world.node()
    for last in (1, 2):
        id = Id(b"\xab" * 31 + bytes([last]))
        node.machine.state.possibles[id] = Contact(id)
    assert "abababab and abababab begin so" in answer(node, "whereis abab")


# --- What could not be done ---------------------------------------------------------------------


def faults(node: Node, line: str, run_s: float = 5.0) -> list[str]:
    """Type a line in a console and return whose fault each answer says it is."""
    node.push(jobs.HandleStdinLine(line, SESSION))
    node.world.run(run_s)
    prints = (it for _, _, effects in node.log for it in effects if isinstance(it, fx.Print))
    return [effect.fault for effect in prints]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("frob", "misuse"),
        ("whereis zz", "misuse"),
        ("status", ""),
        (f"get {name_of(block_key(b'nobody'))}", "world"),
        ("put -t alone", "world"),
        (f"ping {'ab' * 32}", "world"),
    ],
)
def test_the_last_answer_says_whose_fault_it_is_that_a_line_failed(line: str, fault: str) -> None:
    """A script must know, without reading what was said."""
    node = World().node(listen=False)
    assert faults(node, line)[-1] == fault


# --- What is shown of what others wrote -----------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (fx.Got(make_block(b"\x1b[2J"), SESSION), "1b 5b 32 4a"),
        (fx.Got(make_block(b"\xff" * 100), SESSION), "ff ff..."),
        (fx.Got(make_block(b"a" * 5_000), SESSION), "... (5,000 characters)"),
        (fx.Got(make_block(b"a\n\tb"), SESSION), "a\n\tb"),
        (fx.Got(make_connection_item(KEY, 4, [Address("::1", 9)]), SESSION), "[::1]:9"),
        (fx.Got(make_connection_item(KEY, 4, []), SESSION), "no address"),
        (fx.PutDone(()), "stored nowhere"),
        (fx.PutDone((message.Receipt(Id(b"n" * 32), "stored"),)), "stored at 1 node\n"),
        (fx.PutDone((message.Receipt(Id(b"n" * 32), "refused", "f\x07ll"),)), "refused  f\ufffdll"),
        (fx.Answered(Id(b"n" * 32), message.Stored(), 0.1), "Stored"),
        (fx.Joined(3), "joined: 3 contacts"),
        (fx.Tended(Told()), "done"),
        (fx.Failed("busy", "too\x1bmuch"), "failed (busy): too\ufffdmuch"),
    ],
)
def test_outcomes_as_text_upset_no_terminal(outcome: fx.Outcome, says: str) -> None:
    text = outcome_text(World().node().machine.state, SESSION, outcome)
    assert says in text
    assert text.replace("\n", "").replace("\t", "").isprintable()
