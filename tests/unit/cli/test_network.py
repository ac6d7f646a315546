"""`xorbit network`: an operator's network from its making to a member's joining."""

import json
import stat
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Command
from xorbit.identity import NodeKey, load_network


def test_a_node_joins_in_three_commands(xorbit: Command, tmp_path: Path) -> None:
    """create, join (prints the key), admit (prints the membership), join: the node is a member."""
    operator, member = tmp_path / "operator", tmp_path / "member"
    created = xorbit("network", "create", "ours", "--home", operator)
    asked = xorbit("network", "join", "--home", member)
    key = asked.out.strip()
    assert f"network admit {key}" in asked.err
    admitted = xorbit("network", "admit", key, "--home", operator)
    (tmp_path / "membership.json").write_text(admitted.out)
    joined = xorbit("network", "join", tmp_path / "membership.json", "--home", member)
    assert [ran.code for ran in (created, asked, admitted, joined)] == [0, 0, 0, 0]
    network = load_network(member)
    assert (network.name, network.kind) == ("ours", "managed")
    assert network.authority_key.hex() == created.out.strip()
    network.certificate(NodeKey.load_or_create(member))


def test_the_authority_is_the_operators_alone(xorbit: Command, tmp_path: Path) -> None:
    """The authority's key can be read by its owner only, and is never replaced."""
    assert xorbit("network", "create", "ours", "--home", tmp_path).code == 0
    key = tmp_path / "authority.key"
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    again = xorbit("network", "create", "other", "--home", tmp_path)
    assert (again.code, again.out) == (2, "")
    assert key.read_bytes() == before


def test_facts_as_json(xorbit: Command, tmp_path: Path) -> None:
    """Create and join print their facts as one JSON object."""
    made = json.loads(xorbit("network", "create", "ours", "--home", tmp_path, "--json").out)
    assert made["network"] == "ours"
    assert made["home"] == str(tmp_path)
    key = json.loads(xorbit("network", "join", "--home", tmp_path, "--json").out)["public_key"]
    assert key == NodeKey.load_or_create(tmp_path).public_key.hex()
    file = tmp_path / "m.json"
    admitted = xorbit("network", "admit", key, "-o", file, "--home", tmp_path)
    assert (admitted.code, admitted.out) == (0, "")
    joined = json.loads(xorbit("network", "join", file, "--home", tmp_path, "--json").out)
    assert joined == {"network": "ours", "authority": made["authority"]}


@pytest.mark.parametrize("key", ["xyz", "00", ""])
def test_what_is_no_key_is_refused(xorbit: Command, tmp_path: Path, key: str) -> None:
    """Admit refuses what is no public key, in one line."""
    xorbit("network", "create", "ours", "--home", tmp_path)
    ran = xorbit("network", "admit", key, "--home", tmp_path)
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


def test_a_folder_that_cannot_be_written_to(xorbit: Command, tmp_path: Path) -> None:
    """Admit says when the membership file cannot be written."""
    xorbit("network", "create", "ours", "--home", tmp_path)
    key = xorbit("network", "join", "--home", tmp_path).out.strip()
    output = tmp_path / "missing" / "m.json"
    ran = xorbit("network", "admit", key, "-o", output, "--home", tmp_path)
    assert (ran.code, ran.out) == (1, "")
    assert str(output) in ran.err
