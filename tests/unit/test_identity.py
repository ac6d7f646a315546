"""Keys, authorities, certificates, and the files that hold them."""

import datetime
import os
import stat
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.signing import SigningKey

from xorbit.errors import IdentityError, MisuseError, WorldError
from xorbit.identity import (
    Authority,
    NodeKey,
    admit_node,
    create_network,
    install_membership,
    load_authority,
    load_network,
    open_authority,
    open_network,
    peer_id,
    secret_authority,
    secret_network,
)
from xorbit.ids import id_of

SECRET = b"correct horse battery staple"
KEY = NodeKey(SigningKey(bytes(range(32))))

# As derived by the first release.
OPEN_KEY = "de45400f4f3a2c21f35a5e36efed3f4abe96b55fa86aaaebd29f31b1dd94308d"
SECRET_KEY = "3e1f391bc94c68c307458be84907b5dd280187f03d9dace4389db385c8e79d37"
OPEN_ALPN = "xorbit/1/11ce50a6a594ed59f5cc31d299a403eb"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def parse(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def der(pem: str) -> bytes:
    return parse(pem).public_bytes(serialization.Encoding.DER)


# --- Node keys ----------------------------------------------------------------------------------


def test_a_node_key_is_made_once_and_stays(tmp_path: Path) -> None:
    """The first call makes the key, later ones find it; the id is the hash of the public key."""
    home = tmp_path / "new" / "home"
    key = NodeKey.load_or_create(home)
    again = NodeKey.load_or_create(home)
    assert (key.id, key.public_key) == (again.id, again.public_key)
    assert key.id == id_of(key.public_key)
    assert NodeKey.load_or_create(tmp_path / "other").id != key.id


def test_a_node_key_is_private_and_alone(tmp_path: Path) -> None:
    """Its file has mode 0600 whatever the umask, is PEM PKCS #8, and leaves nothing beside it."""
    before = os.umask(0)
    try:
        NodeKey.load_or_create(tmp_path)
    finally:
        os.umask(before)
    (path,) = tmp_path.iterdir()
    assert (path.name, mode(path)) == ("node.key", 0o600)
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, bits: int) -> None:
    """The error names the command that mends it."""
    NodeKey.load_or_create(tmp_path)
    path = tmp_path / "node.key"
    path.chmod(bits)
    with pytest.raises(MisuseError, match=f"chmod 600 '{path}'"):
        NodeKey.load_or_create(tmp_path)


def pem_of(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, *, secret: bool = False) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x") if secret else serialization.NoEncryption(),
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "holds no private key"),
        (b"garbage", "holds no private key"),
        (pem_of(Ed25519PrivateKey.generate())[:60], "holds no private key"),
        (pem_of(Ed25519PrivateKey.generate(), secret=True), "holds no private key"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "another kind than Ed25519"),
    ],
    ids=["empty", "garbage", "truncated", "encrypted", "another-kind"],
)
def test_a_damaged_key_is_refused_and_kept(tmp_path: Path, content: bytes, complaint: str) -> None:
    """A bad key file is never taken, and never replaced by a new identity."""
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(MisuseError, match=complaint):
        NodeKey.load_or_create(tmp_path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_read_or_written_is_the_world_s_fault(tmp_path: Path) -> None:
    """The error names the file and what the system said."""
    (tmp_path / "node.key").mkdir()
    with pytest.raises(WorldError, match=r"cannot read the key .*node\.key"):
        NodeKey.load_or_create(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(WorldError, match="cannot make the directory"):
        NodeKey.load_or_create(tmp_path / "file" / "home")


def test_two_that_make_a_key_at_once_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second takes the key of the first instead of overwriting it."""
    other: list[NodeKey] = []
    generate = SigningKey.generate

    def overtaken() -> SigningKey:
        monkeypatch.setattr(SigningKey, "generate", generate)
        other.append(NodeKey.load_or_create(tmp_path))
        return generate()

    monkeypatch.setattr(SigningKey, "generate", overtaken)
    assert NodeKey.load_or_create(tmp_path).id == other[0].id


def test_a_node_key_does_not_show_itself() -> None:
    """Neither a key's repr nor a network's holds private bytes."""
    network = secret_network("x", SECRET)
    assert network.authority is not None
    for shown in (repr(KEY), repr(network), repr(network.authority)):
        for key in (KEY.signing_key, network.authority.signing_key):
            assert bytes(key).hex() not in shown
            assert repr(bytes(key)) not in shown


def test_the_private_key_leaves_encrypted() -> None:
    """private_pem opens with its password only, and to the same key."""
    pem = KEY.private_pem(b"password")
    with pytest.raises(TypeError):
        serialization.load_pem_private_key(pem, None)
    key = serialization.load_pem_private_key(pem, b"password")
    assert isinstance(key, Ed25519PrivateKey)
    assert key.private_bytes_raw() == bytes(KEY.signing_key)


# --- Authorities and certificates ---------------------------------------------------------------


def test_an_authority_follows_from_its_name_and_secret() -> None:
    """Equal words give equal authorities on every node; any difference gives another."""
    keys = [
        open_authority("a").public_key,
        open_authority("b").public_key,
        secret_authority("a", SECRET).public_key,
        secret_authority("b", SECRET).public_key,
        secret_authority("a", SECRET + b"!").public_key,
    ]
    assert len(set(keys)) == len(keys)
    assert open_authority("a").public_key == keys[0]
    assert secret_authority("a", SECRET + b"\r\n").public_key == keys[2]


def test_derived_authorities_never_change() -> None:
    """A release that derives another key would split every network: these values are for good."""
    assert open_authority("xorbit").public_key.hex() == OPEN_KEY
    assert secret_authority("xorbit", SECRET).public_key.hex() == SECRET_KEY
    assert open_network("xorbit").alpn == OPEN_ALPN


@pytest.mark.parametrize("secret", [b"", b"fifteen bytes..", b"fifteen bytes..\n"])
def test_a_short_secret_is_refused(secret: bytes) -> None:
    """Sixteen bytes at the least, the newline at its end not counted."""
    with pytest.raises(MisuseError, match="at least 16 bytes, got"):
        secret_authority("x", secret)


@pytest.mark.parametrize(
    "name", ["", " x", "x ", "a\nb", "a\0b", "x" * 65, "\u00e9" * 33, "e\u0301", "a\u200bb"]
)
def test_a_name_that_could_be_mistaken_is_refused(name: str) -> None:
    """Names are printable, in normal form, with no space around them, at most 64 bytes."""
    for make in (open_authority, lambda name: secret_authority(name, SECRET)):
        with pytest.raises(MisuseError, match=r"a network's name is 1\.\.64 bytes"):
            make(name)


def test_certificates_say_who_and_nothing_more() -> None:
    """Subject and issuer are an id and a key, valid for all time, for both ends of TLS."""
    authority = open_authority("x")
    node, ca = parse(authority.admit(KEY.public_key)), parse(authority.ca_certificate())
    assert node.subject.rfc4514_string() == f"CN={KEY.id.hex()}"
    assert node.issuer == ca.subject == ca.issuer
    assert ca.subject.rfc4514_string() == f"CN={authority.public_key.hex()}"
    for certificate in (node, ca):
        assert certificate.not_valid_before_utc == datetime.datetime(
            1970, 1, 1, tzinfo=datetime.UTC
        )
        assert certificate.not_valid_after_utc.year == 9999
        certificate.verify_directly_issued_by(ca)
    constraints = x509.BasicConstraints
    assert ca.extensions.get_extension_for_class(constraints).value.ca
    assert not node.extensions.get_extension_for_class(constraints).value.ca
    usages = node.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert {usage._name for usage in usages} == {"clientAuth", "serverAuth"}


def test_certificates_are_the_same_bytes_everywhere() -> None:
    """All nodes of a network hold one and the same authority certificate."""
    assert open_authority("x").ca_certificate() == open_authority("x").ca_certificate()
    assert open_authority("x").admit(KEY.public_key) == open_authority("x").admit(KEY.public_key)


def test_a_peer_s_id_is_the_hash_of_its_certificate_s_key() -> None:
    """The id comes from the key, not from the name in the certificate."""
    assert peer_id(der(open_authority("x").admit(KEY.public_key))) == KEY.id


def test_a_certificate_without_an_ed25519_key_proves_nothing() -> None:
    """Garbage, no certificate at all, and other kinds of key are refused."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = x509.CertificateBuilder(
        issuer_name=x509.Name([]),
        subject_name=x509.Name([]),
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
        not_valid_after=datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC),
    ).sign(Ed25519PrivateKey.generate(), None)
    with pytest.raises(IdentityError, match="another kind than Ed25519"):
        peer_id(certificate.public_bytes(serialization.Encoding.DER))
    for data in (b"", b"garbage", der(open_authority("x").ca_certificate())[:-1]):
        with pytest.raises(IdentityError, match=r"expected an X\.509 certificate"):
            peer_id(data)


def test_a_key_of_the_wrong_length_is_not_admitted() -> None:
    """An id is not a public key, but could be taken for one; other lengths are caught."""
    with pytest.raises(MisuseError, match="a node's public key is 32 bytes, got 3"):
        open_authority("x").admit(b"abc")


# --- Networks -----------------------------------------------------------------------------------


def test_the_alpn_holds_version_and_authority() -> None:
    """Networks that differ in their authority differ in their ALPN, which fits its 255 bytes."""
    alpn = open_network("x").alpn
    assert alpn.startswith("xorbit/1/")
    assert len(alpn) == len("xorbit/1/") + 32
    assert secret_network("x", SECRET).alpn != alpn


def test_a_home_without_membership_joins_what_is_asked_for(tmp_path: Path) -> None:
    """A secret makes the network secret; without one it is open; without a name it has one."""
    assert load_network(tmp_path) == load_network(tmp_path, "xorbit")
    assert load_network(tmp_path, "x").kind == "open"
    assert load_network(tmp_path, "x").alpn == open_network("x").alpn
    secret = load_network(tmp_path, "x", SECRET)
    assert (secret.kind, secret.alpn) == ("secret", secret_network("x", SECRET).alpn)


def test_an_open_network_certifies_any_node() -> None:
    """Each node issues its own certificate."""
    network = open_network("x")
    assert network.authority is not None
    assert peer_id(der(network.certificate(KEY))) == KEY.id


# --- Managed networks ---------------------------------------------------------------------------


def test_an_admitted_node_belongs_to_its_network(tmp_path: Path) -> None:
    """Operator creates, node asks with its public key, operator admits, node joins."""
    public = create_network(tmp_path / "operator", "club")
    home = tmp_path / "home"
    key = NodeKey.load_or_create(home)
    joined = install_membership(home, admit_node(tmp_path / "operator", key.public_key))
    found = load_network(home)
    assert found == joined == load_network(home, "club")
    assert (found.name, found.kind, found.authority) == ("club", "managed", None)
    assert (found.authority_key, found.alpn) == (public.authority_key, public.alpn)
    assert peer_id(der(found.certificate(key))) == key.id
    name, authority = load_authority(tmp_path / "operator")
    assert (name, authority.public_key) == ("club", public.authority_key)


def test_a_managed_network_s_files_are_private(tmp_path: Path) -> None:
    """The authority's key is 0600 and never part of what is handed out."""
    create_network(tmp_path, "club")
    assert mode(tmp_path / "authority.key") == 0o600
    _, authority = load_authority(tmp_path)
    content = admit_node(tmp_path, KEY.public_key)
    assert bytes(authority.signing_key).hex() not in content.decode()
    assert b"PRIVATE" not in content


def test_an_authority_is_never_overwritten(tmp_path: Path) -> None:
    """Creating twice in one directory is refused, and the first stays."""
    first = create_network(tmp_path, "club")
    with pytest.raises(MisuseError, match="holds a network's authority already"):
        create_network(tmp_path, "club")
    assert load_authority(tmp_path)[1].public_key == first.authority_key


def test_an_operator_s_directory_is_held_together(tmp_path: Path) -> None:
    """No authority, a damaged one, and the key of another one are each named."""
    with pytest.raises(MisuseError, match="xorbit network create NAME"):
        admit_node(tmp_path, KEY.public_key)
    create_network(tmp_path / "1", "club")
    create_network(tmp_path / "2", "club")
    (tmp_path / "1" / "authority.key").replace(tmp_path / "2" / "authority.key")
    with pytest.raises(MisuseError, match="is not of the key beside it"):
        load_authority(tmp_path / "2")
    with pytest.raises(WorldError, match="cannot read the key"):
        load_authority(tmp_path / "1")
    (tmp_path / "1" / "authority.json").write_bytes(b"{")
    with pytest.raises(MisuseError, match="is damaged"):
        load_authority(tmp_path / "1")


def test_a_membership_of_another_node_is_refused(tmp_path: Path) -> None:
    """A membership holds for one key, also when it is put in place by hand."""
    create_network(tmp_path / "operator", "club")
    content = admit_node(tmp_path / "operator", KEY.public_key)
    home = tmp_path / "home"
    with pytest.raises(MisuseError, match="ask the operator to admit that one"):
        install_membership(home, content)
    assert not (home / "membership.json").exists()
    (home / "membership.json").write_bytes(content)
    with pytest.raises(MisuseError, match="ask the operator to admit that one"):
        load_network(home).certificate(NodeKey.load_or_create(home))


def test_a_membership_is_renewed_but_not_exchanged(tmp_path: Path) -> None:
    """The same network may admit again; another one is refused."""
    home = tmp_path / "home"
    key = NodeKey.load_or_create(home)
    for name in ("1", "2"):
        create_network(tmp_path / name, "club")
    content = admit_node(tmp_path / "1", key.public_key)
    assert install_membership(home, content) == install_membership(home, content)
    with pytest.raises(MisuseError, match="use another --home"):
        install_membership(home, admit_node(tmp_path / "2", key.public_key))


@pytest.mark.parametrize(("name", "secret"), [("other", None), ("club", SECRET), (None, SECRET)])
def test_a_member_does_not_slip_into_another_network(
    tmp_path: Path, name: str | None, secret: bytes | None
) -> None:
    """A home of a managed network refuses to start in any other."""
    create_network(tmp_path, "club")
    with pytest.raises(MisuseError, match="belongs to the managed network 'club'"):
        load_network(tmp_path, name, secret)


def test_a_membership_that_does_not_prove_itself_is_refused(tmp_path: Path) -> None:
    """Every field of a membership file is held against the others."""
    for name in ("1", "2"):
        create_network(tmp_path / name, "club")
    home = tmp_path / "home"
    key = NodeKey.load_or_create(home)
    good = msgspec.json.decode(admit_node(tmp_path / "1", key.public_key))
    other = msgspec.json.decode(admit_node(tmp_path / "2", key.public_key))
    for change, complaint in [
        ({"certificate": other["certificate"]}, "does not prove itself"),
        ({"ca_certificate": other["ca_certificate"]}, "does not prove itself"),
        ({"authority": other["authority"]}, "signed by another authority"),
        ({"authority": "xyz"}, "does not prove itself"),
        ({"certificate": "xyz"}, "does not prove itself"),
        ({"network": ""}, "a network's name is"),
        ({"network": 1}, "is damaged"),
    ]:
        with pytest.raises(MisuseError, match=complaint):
            install_membership(home, msgspec.json.encode(good | change))
    assert not (home / "membership.json").exists()
    forged = Authority(SigningKey.generate())
    chain = {"certificate": forged.admit(key.public_key)}
    with pytest.raises(MisuseError, match="does not prove itself"):
        install_membership(home, msgspec.json.encode(good | chain))


def test_a_membership_that_cannot_be_read_is_the_world_s_fault(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "membership.json").mkdir()
    with pytest.raises(WorldError, match=r"cannot read .*membership\.json"):
        load_network(tmp_path)
