"""A home keeps to its network, whatever is typed; and what only reads a home makes none."""

import json
from pathlib import Path

import pytest

from tests.edge.cli_nodes import NETWORK, NodeProcess, xorbit_process
from tests.edge.conftest import Command
from xorbit import homes
from xorbit.api import Node
from xorbit.errors import MisuseError, NoPeersError
from xorbit.identity import open_network

LOOPBACK = ("--listen", "127.0.0.1:0", "--no-mdns")
NAME = "bafkr4iaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"


def secret_file(path: Path, letter: str) -> Path:
    path.write_text(letter * 32 + "\n")
    return path


def test_a_forgotten_secret_lets_nothing_out(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """What was put with a secret reaches no node of the open network, by no command."""
    secret, file = secret_file(tmp_path / "secret", "s"), tmp_path / "file"
    file.write_bytes(b"for members only")
    home = ("--home", tmp_path / "home")
    with NodeProcess(tmp_path / "a", "--network-secret", str(secret)) as member:
        way = ("--network", NETWORK, "--bootstrap", member.address)
        put = xorbit("put", file, *home, *way, "--network-secret", secret, "--json").json
    out = ("--network", NETWORK, "--bootstrap", nodes[0].address)
    for words in (("node", *LOOPBACK), ("put", file), ("get", put["cid"]), ("pin", put["cid"])):
        ran = xorbit(*words, *home, *out)
        assert (ran.code, ran.out) == (2, b"")
        assert f"belongs to network '{NETWORK}' with a secret: give --network" in ran.err
    xorbit("get", put["cid"], "--home", tmp_path / "stranger", *out).failed(3, "nobody has it")
    [kept] = xorbit("pins", *home, "--json").json  # on the disk alone: that needs no secret
    assert kept["name"] == put["cid"]
    assert xorbit("gc", *home).code == 0
    assert xorbit("unpin", put["cid"], *home).code == 0
    noted = homes.belonging(tmp_path / "home")
    assert noted is not None
    assert noted.kind == "secret"


def test_another_secret_than_the_running_node_s_is_called_so(
    xorbit: Command, tmp_path: Path
) -> None:
    """Also where an older xorbit noted nothing; a home that moved on asks for a restart."""
    one, other = (secret_file(tmp_path / name, name) for name in "ab")
    home, file = tmp_path / "home", tmp_path / "file"
    file.write_bytes(b"hello")
    with NodeProcess(home, "--network-secret", str(one)):
        wrong = ("put", file, "--home", home, "--network", NETWORK, "--network-secret", other)
        xorbit(*wrong).failed(2, f"belongs to network '{NETWORK}' with another secret")
        (home / homes.NETWORK_FILE).unlink()
        xorbit(*wrong).failed(2, f"network '{NETWORK}', which has another secret, or none")
        named = ("put", file, "--home", home, "--network", "another")
        xorbit(*named).failed(2, f"named '{NETWORK}', than 'another': use another --home")
        homes.bind(home, open_network("another").belonging)
        xorbit(*named).failed(2, f"restart the node on {home}")


def test_an_operator_s_node_runs_in_its_own_network(xorbit: Command, tmp_path: Path) -> None:
    """With no further step after `create`, and in no other though it is named."""
    home = tmp_path / "operator"
    made = xorbit("network", "create", "club", "--home", home)
    assert "is a member itself" in made.err
    words = ("node", *LOOPBACK, "--home", home, "--json")
    ran = xorbit_process(*words, "--until-stdin-closes")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["network"] == "club"
    refused = xorbit(*words, "--network", "xorbit")
    assert (refused.code, refused.out) == (2, b"")
    assert "belongs to the managed network 'club'" in refused.err


async def test_a_node_in_a_program_binds_its_home_as_well(tmp_path: Path) -> None:
    """By listening; a client by what it keeps."""
    listening, client = tmp_path / "listening", tmp_path / "client"
    async with Node(listening, listen="127.0.0.1:0", network="one", join=False, mdns=False):
        assert homes.belonging(listening) == open_network("one").belonging
    for network in ("none", "one"):
        async with Node(client, network=network, join=False, control=False) as node:
            assert homes.belonging(client) == open_network(network).belonging
            if network == "one":
                with pytest.raises(NoPeersError):
                    await node.put_block(b"hello")
    for home in (listening, client):
        with pytest.raises(MisuseError, match="the open network 'one'"):
            await Node(home, network="two", join=False).start()


def test_wrong_usage_makes_no_home(xorbit: Command, tmp_path: Path) -> None:
    """A path at which nothing is, is said before anything else."""
    home, nothing = tmp_path / "home", tmp_path / "nothing"
    for words in (("put", nothing), ("import", nothing), ("put", nothing / "x")):
        xorbit(*words, "--home", home).failed(2, "there is none at")
    assert not home.exists()
    assert xorbit("key", "new", "me", "--home", home).code == 0
    xorbit("publish", "me", "--tree", nothing, "--home", home).failed(2, "there is none at")
    assert [path.name for path in home.iterdir()] == ["keys"]


def test_a_slip_in_the_network_s_name_costs_nothing(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """A network that nobody answered in, and in which nothing is kept, is not the home's."""
    file, home = tmp_path / "file", ("--home", tmp_path / "home")
    file.write_bytes(b"hello")
    way = ("--bootstrap", nodes[0].address)
    for words in (("get", NAME), ("put", file), ("pin", NAME), ("ls", NAME)):
        for named in (("--network", "cil tests"), ()):
            xorbit(*words, *home, *way, *named).failed(4, "is not from our network's authority")
    assert xorbit("gc", *home).code == 0
    put = xorbit("put", file, *home, *way, "--network", NETWORK, "--json").json
    assert put["not_kept"] == ""
    for words in (("put", file), ("get", put["cid"])):
        refused = xorbit(*words, *home, *way, "--network", "cil tests")
        assert (refused.code, refused.out) == (2, b"")
        assert f"belongs to the open network '{NETWORK}': give --network" in refused.err
        assert f"rm -r {home[1]}/store {home[1]}/network.json" in refused.err


def test_a_home_remembers_the_name_of_its_network(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """With a node on it and without; who joined it once, though nothing is kept, has joined it."""
    file, home = tmp_path / "file", ("--home", tmp_path / "home")
    file.write_bytes(b"hello")
    way = ("--bootstrap", nodes[0].address)
    named = ("--network", NETWORK)
    xorbit("get", NAME, *home, *way, *named).failed(3, "nobody has")
    name = xorbit("put", file, *home).text.strip()
    assert xorbit("cat", name, *home).out == b"hello"
    xorbit("get", name, *home, "--network", "another").failed(2, f"network '{NETWORK}'")
    with NodeProcess(tmp_path / "home", bootstrap=nodes[0].address):
        assert xorbit("cat", name, *home).out == b"hello"
    assert xorbit("cat", name, *home).out == b"hello"


def test_an_unused_home_of_a_secret_network_takes_another_secret_only(
    xorbit: Command, nodes: list[NodeProcess], tmp_path: Path
) -> None:
    """A slip in the secret is mended; one who forgets it is not let out, though nothing is here."""
    wrong, right = (secret_file(tmp_path / name, name) for name in "ab")
    home, named = ("--home", tmp_path / "home"), ("--network", NETWORK)
    with NodeProcess(tmp_path / "member", "--network-secret", str(right)) as member:
        way = ("--bootstrap", member.address)
        asked = ("get", NAME, *home, *named)
        xorbit(*asked, *way, "--network-secret", wrong).failed(4, member.address)
        out = xorbit(*asked, "--bootstrap", nodes[0].address)
        assert (out.code, out.out) == (2, b"")
        assert f"belongs to network '{NETWORK}' with a secret: give" in out.err
        xorbit(*asked, *way, "--network-secret", right).failed(3, "nobody has")
        xorbit(*asked, *way, "--network-secret", wrong).failed(2, "with another secret")


def test_an_unused_home_may_join_a_managed_network(xorbit: Command, tmp_path: Path) -> None:
    """A command that reached nobody is no reason against; one that kept something is."""
    home, used = tmp_path / "home", tmp_path / "used"
    xorbit("get", NAME, "--home", home).failed(4, "--bootstrap HOST:PORT")
    xorbit("get", NAME, "--home", tmp_path / "own").failed(4, "--bootstrap HOST:PORT")
    with NodeProcess(used):
        pass
    operator = ("--home", tmp_path / "operator")
    assert xorbit("network", "create", "club", *operator).code == 0
    for place, code in ((home, 0), (used, 2)):
        key = xorbit("network", "join", "--home", place).text.strip()
        admitted = tmp_path / "admitted"
        assert xorbit("network", "admit", key, "-o", admitted, *operator).code == 0
        assert xorbit("network", "join", admitted, "--home", place).code == code
    assert xorbit("network", "create", "mine", "--home", tmp_path / "own").code == 0
    assert xorbit("network", "create", "mine", "--home", used).code == 2


@pytest.mark.parametrize(
    ("option", "says"), [("--network", "a network's name is 1"), ("--network-secret", "empty name")]
)
def test_an_empty_option_is_refused(
    xorbit: Command, tmp_path: Path, option: str, says: str
) -> None:
    """An empty variable in a script is not the open network."""
    ran = xorbit("node", *LOOPBACK, "--home", tmp_path / "home", option, "")
    assert (ran.code, ran.out) == (2, b"")
    assert says in ran.err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pins",), 2),
        (("unpin", NAME), 2),
        (("gc",), 2),
        (("status",), 4),
        (("peers",), 4),
        (("fingers",), 4),
        (("trace", "00" * 16), 4),
        (("console",), 4),
    ],
)
def test_what_reads_a_home_makes_none(
    xorbit: Command, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    """A home that was mistyped is said not to be there."""
    home = tmp_path / "mistyped"
    xorbit(*words, "--home", home).failed(code, f"there is no home at {home}")
    assert not home.exists()
