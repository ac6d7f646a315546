"""A home belongs to the network that it was first used in, and to no other."""

from pathlib import Path

import pytest
from nacl.signing import SigningKey

from xorbit import homes
from xorbit.errors import MisuseError, WorldError
from xorbit.homes import Belonging
from xorbit.identity import (
    NodeKey,
    admit_node,
    create_network,
    install_membership,
    load_network,
    nobodys_network,
    open_network,
    secret_network,
)
from xorbit.keyfiles import private_key_pem, to_json

SECRET = b"correct horse battery staple"
OPEN = open_network("xorbit").belonging
NAMED = open_network("ours").belonging
HIDDEN = secret_network("xorbit", SECRET).belonging
NAMED_HIDDEN = secret_network("ours", SECRET).belonging


def test_a_home_is_bound_by_its_first_use_and_stays_so(tmp_path: Path) -> None:
    """To look changes nothing; the note is made once, with the home if need be."""
    home = tmp_path / "new"
    homes.check(home, OPEN)
    assert homes.belonging(home) is None
    assert not home.exists()
    homes.bind(home, HIDDEN)
    homes.bind(home, HIDDEN)
    homes.check(home, HIDDEN)
    assert homes.belonging(home) == HIDDEN
    with pytest.raises(MisuseError):
        homes.bind(home, OPEN)
    assert homes.belonging(home) == HIDDEN


@pytest.mark.parametrize(
    ("own", "wanted", "says"),
    [
        (HIDDEN, OPEN, "network 'xorbit' with a secret: give --network-secret, or use another"),
        (
            NAMED_HIDDEN,
            OPEN,
            "'ours' with a secret: give --network 'ours' and --network-secret, or",
        ),
        (HIDDEN, secret_network("xorbit", SECRET * 2).belonging, "'xorbit' with another secret: "),
        (HIDDEN, NAMED_HIDDEN, "network 'xorbit' with a secret: give --network-secret, or"),
        (OPEN, HIDDEN, "open network 'xorbit': give neither --network nor --network-secret, or"),
        (NAMED, OPEN, "the open network 'ours': give --network 'ours' and no secret, or"),
        (Belonging("club", "managed", "00"), OPEN, "managed network 'club': put its membership"),
        (OPEN, Belonging("club", "managed", "00"), "open network 'xorbit': use another --home"),
    ],
)
def test_another_network_is_refused_with_what_to_do(
    tmp_path: Path, own: Belonging, wanted: Belonging, says: str
) -> None:
    """The error says what the home belongs to, and which options are missing or too many."""
    homes.bind(tmp_path, own)
    with pytest.raises(MisuseError, match=r"^this home belongs to .*another --home") as refused:
        homes.check(tmp_path, wanted)
    said = str(refused.value)
    assert says in said
    way_out = f"rm -r {tmp_path}/store {tmp_path}/network.json"
    assert said.endswith(way_out) is (own.kind != "managed")


@pytest.mark.parametrize(
    ("own", "unused", "has_secret", "stays"),
    [
        (NAMED, True, False, False),
        (NAMED, True, True, False),
        (NAMED, False, False, True),
        (HIDDEN, True, False, True),
        (HIDDEN, True, True, False),
        (HIDDEN, False, True, True),
    ],
)
def test_a_note_under_which_nothing_came_lapses(
    tmp_path: Path, own: Belonging, unused: bool, has_secret: bool, stays: bool
) -> None:
    """But no home of a network with a secret gets to an open one because that was forgotten."""
    homes.bind(tmp_path, own, for_good=False)
    assert homes.may_lapse(tmp_path)
    homes.settle(tmp_path, unused=unused, has_secret=has_secret)
    assert homes.belonging(tmp_path) == (own if stays else None)
    assert homes.may_lapse(tmp_path) is (stays and unused)
    if not stays:
        homes.bind(tmp_path, HIDDEN)
        assert homes.belonging(tmp_path) == HIDDEN


@pytest.mark.parametrize("own", [NAMED, HIDDEN, Belonging("club", "managed", "00")])
def test_a_note_for_good_never_lapses(tmp_path: Path, own: Belonging) -> None:
    """Whoever wrote it first; and to bind a home once more by chance takes nothing back."""
    homes.bind(tmp_path, own, for_good=False)
    homes.bind(tmp_path, own)
    homes.bind(tmp_path, own, for_good=False)
    assert not homes.may_lapse(tmp_path)
    homes.settle(tmp_path, unused=True, has_secret=True)
    assert homes.belonging(tmp_path) == own


def test_a_note_of_an_earlier_version_lapses_where_nothing_came(tmp_path: Path) -> None:
    note = tmp_path / homes.NETWORK_FILE
    note.write_bytes(to_json(NAMED))
    assert homes.belonging(tmp_path) == NAMED
    homes.settle(tmp_path, unused=False, has_secret=False)
    assert not homes.may_lapse(tmp_path)
    note.write_bytes(to_json(NAMED))
    homes.settle(tmp_path, unused=True, has_secret=False)
    assert not note.exists()
    homes.settle(tmp_path, unused=True, has_secret=False)
    note.write_bytes(to_json(Belonging("club", "managed", "00")))
    assert not homes.may_lapse(tmp_path)


def test_the_network_of_a_home_need_not_be_named(tmp_path: Path) -> None:
    """Its name is remembered, its secret is not."""
    plain, hidden = tmp_path / "plain", tmp_path / "hidden"
    homes.bind(plain, NAMED)
    homes.bind(hidden, NAMED_HIDDEN)
    assert load_network(plain).belonging == NAMED
    assert load_network(hidden, None, SECRET).belonging == NAMED_HIDDEN
    with pytest.raises(MisuseError, match="give --network 'ours' and --network-secret"):
        load_network(hidden)
    with pytest.raises(MisuseError, match="give --network 'ours' and no secret"):
        load_network(plain, None, SECRET)


def test_a_note_that_is_damaged_lets_nobody_in(tmp_path: Path) -> None:
    """Better no node than one in a network that may be the wrong one."""
    note = tmp_path / homes.NETWORK_FILE
    note.write_bytes(b"{")
    with pytest.raises(MisuseError, match=r"network\.json is damaged"):
        homes.bind(tmp_path, OPEN)
    note.unlink()
    note.mkdir()
    with pytest.raises(WorldError, match="cannot read"):
        homes.check(tmp_path, OPEN)


def test_a_network_is_loaded_for_a_home_of_its_own_only(tmp_path: Path) -> None:
    """A secret that is forgotten is no way out of the network, nor is one given a way in."""
    hidden, plain = tmp_path / "hidden", tmp_path / "plain"
    homes.bind(hidden, HIDDEN)
    homes.bind(plain, OPEN)
    assert load_network(hidden, None, SECRET).kind == "secret"
    assert load_network(plain).kind == "open"
    with pytest.raises(MisuseError, match="give --network-secret"):
        load_network(hidden)
    with pytest.raises(MisuseError, match="give neither"):
        load_network(plain, None, SECRET)


@pytest.mark.parametrize("secret", [None, SECRET])
def test_an_empty_name_is_no_name(tmp_path: Path, secret: bytes | None) -> None:
    """It does not stand for the default network."""
    with pytest.raises(MisuseError, match="a network's name is 1"):
        load_network(tmp_path, "", secret)


def test_a_network_of_nobody_is_never_the_same_twice() -> None:
    one, other = nobodys_network("xorbit"), nobodys_network("xorbit")
    assert one.name == other.name
    assert one.authority_key != other.authority_key


# --- Managed networks ---------------------------------------------------------------------------


def test_an_operator_s_home_is_a_member_from_the_start(tmp_path: Path) -> None:
    """Its node runs in its own network, also where the membership was never made, or is lost."""
    made = create_network(tmp_path, "club")
    assert homes.belonging(tmp_path) == made.belonging
    for lost in ((), ("membership.json",), ("membership.json", homes.NETWORK_FILE)):
        for name in lost:
            (tmp_path / name).unlink()
        network = load_network(tmp_path)
        assert (network.kind, network.authority_key) == ("managed", made.authority_key)
        network.certificate(NodeKey.load_or_create(tmp_path))
    with pytest.raises(MisuseError, match="managed network 'club'"):
        load_network(tmp_path, "xorbit")


def test_a_used_home_does_not_become_managed(tmp_path: Path) -> None:
    """What it keeps for another network stays there: neither join nor create takes it over."""
    home = tmp_path / "home"
    create_network(tmp_path / "operator", "club")
    homes.bind(home, HIDDEN)
    membership = admit_node(tmp_path / "operator", NodeKey.load_or_create(home).public_key)
    with pytest.raises(MisuseError, match="with a secret: use another --home"):
        install_membership(home, membership)
    with pytest.raises(MisuseError, match="with a secret: use another --home"):
        create_network(home, "mine")
    assert {path.name for path in home.iterdir()} == {"node.key", homes.NETWORK_FILE}


def test_a_member_without_a_note_stays_a_member(tmp_path: Path) -> None:
    """Homes of before there were notes: no second network is made or joined there."""
    home = tmp_path / "home"
    key = NodeKey.load_or_create(home)
    for name in ("1", "2"):
        create_network(tmp_path / name, "club")
    install_membership(home, admit_node(tmp_path / "1", key.public_key))
    (home / homes.NETWORK_FILE).unlink()
    with pytest.raises(MisuseError, match="member of another managed network"):
        install_membership(home, admit_node(tmp_path / "2", key.public_key))
    with pytest.raises(MisuseError, match="is a member of a managed network"):
        create_network(home, "mine")


def test_private_keys_of_a_home_are_not_given_away(tmp_path: Path) -> None:
    """A node's key, an authority's, a user's: known by name and content; the home is named."""
    for place in ("a/node.key", "b/authority.key", "c/keys/me.pem"):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_bytes(private_key_pem(SigningKey.generate()))
        home = tmp_path / place[0]
        with pytest.raises(MisuseError, match=rf"^{home} is a home of xorbit.*{path.name}"):
            homes.refuse_keys(path.parent, ["other", path.name])


def test_what_only_looks_like_a_home_may_go(tmp_path: Path) -> None:
    """Other programs have files of such names too, and a key of another name is somebody's wish."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "node.key").write_text("-----BEGIN RSA PRIVATE KEY-----")
    (tmp_path / "keys" / "public.pem").write_text("-----BEGIN PUBLIC KEY-----")
    (tmp_path / "me.pem").write_bytes(private_key_pem(SigningKey.generate()))
    homes.refuse_keys(tmp_path, ["node.key", "me.pem", "authority.key"])
    homes.refuse_keys(tmp_path / "keys", ["public.pem"])
