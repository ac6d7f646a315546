"""Who a node is and which network it belongs to: node keys, network authorities, certificates.

A node is its Ed25519 key; its id is the hash of the public key. A network is its authority: another
Ed25519 key, which signs the certificate (X.509, RFC 5280 and RFC 8410) that a node shows in TLS.
Three kinds of network come from where the authority's private key comes from: the public name
(*open*), a shared secret (*secret*), or an operator's file (*managed*). Asyncio, sockets and TLS
may not enter this file (see run/tls.py); keyfiles.py reads and writes the files with keys.
"""

import datetime
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct
from nacl.pwhash import argon2id
from nacl.signing import SigningKey

from xorbit import homes
from xorbit.errors import IdentityError, MisuseError
from xorbit.homes import (
    AUTHORITY_KEY_FILE,
    DEFAULT_NETWORK,
    NODE_KEY_FILE,
    Belonging,
    NetworkKind,
)
from xorbit.ids import Id, id_of
from xorbit.items import PUBLIC_KEY_BYTES
from xorbit.keyfiles import (
    from_json,
    make_directory,
    private_key_pem,
    read_file,
    read_key,
    to_json,
    write_new,
    write_over,
)
from xorbit.wire.message import PROTOCOL_VERSION

AUTHORITY_FILE = "authority.json"
MEMBERSHIP_FILE = "membership.json"
NETWORK_NAME_BYTES_MAX = 64
SECRET_BYTES_MIN = 16

_OPEN_CONTEXT = "xorbit/1 authority of an open network"
_SECRET_CONTEXT = "xorbit/1 authority of a secret network"  # noqa: S105 -- a label, not a secret

# No clock, however wrong (one that starts at 1970 included), may keep a node out: RFC 5280, 4.1.2.5
# gives 9999-12-31 the meaning "never expires". Who is no longer welcome is revoked instead.
_NOT_BEFORE = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


# --- Node keys ----------------------------------------------------------------------------------


class NodeKey:
    """The Ed25519 key of a node, and its id."""

    __slots__ = ("id", "public_key", "signing_key")

    id: Id
    public_key: bytes
    signing_key: SigningKey

    def __init__(self, signing_key: SigningKey) -> None:
        """Take a key that exists already; `generate` and `load_or_create` make one."""
        self.signing_key = signing_key
        self.public_key = bytes(signing_key.verify_key)
        self.id = id_of(self.public_key)

    def __repr__(self) -> str:
        """Show the id only: the key is nobody else's business."""
        return f"NodeKey({self.id.hex()})"

    @classmethod
    def generate(cls) -> "NodeKey":
        """Return a fresh key that is kept nowhere."""
        return cls(SigningKey.generate())

    @classmethod
    def load_or_create(cls, home: Path) -> "NodeKey":
        """Return the key in `home/node.key`, made first if there is none.

        The file is PEM PKCS #8 and has mode 0600 from its first instant.

        Raises:
            MisuseError: the file holds no Ed25519 key, or others than its owner may read it.
            WorldError: the file cannot be read, or cannot be written.
        """
        path = home / NODE_KEY_FILE
        if not path.exists():
            make_directory(home)
            write_new(path, private_key_pem(SigningKey.generate()))
        return cls(read_key(path))

    def private_pem(self, password: bytes) -> bytes:
        """Return the private key as PEM PKCS #8, encrypted with the password."""
        return private_key_pem(self.signing_key, password)


# --- Authorities --------------------------------------------------------------------------------


class Authority:
    """The Ed25519 key pair of a network: whoever holds it admits nodes."""

    __slots__ = ("public_key", "signing_key")

    public_key: bytes
    signing_key: SigningKey

    def __init__(self, signing_key: SigningKey) -> None:
        """Take a key; `open_authority` and `secret_authority` derive one."""
        self.signing_key = signing_key
        self.public_key = bytes(signing_key.verify_key)

    def __repr__(self) -> str:
        """Show the public key only."""
        return f"Authority({self.public_key.hex()})"

    def ca_certificate(self) -> str:
        """Return the authority's own certificate as PEM: the same bytes wherever it is made."""
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = _key_usage(key_cert_sign=True)
        builder = _certificate(self.public_key, self.public_key, serial=1)
        builder = builder.add_extension(constraints, critical=True)
        return self._sign(builder.add_extension(usage, critical=True))

    def admit(self, node_public_key: bytes) -> str:
        """Return the certificate of a node as PEM: the same bytes whenever it is made.

        Raises:
            MisuseError: the public key is not 32 bytes.
        """
        if len(node_public_key) != PUBLIC_KEY_BYTES:
            raise MisuseError(
                f"a node's public key is {PUBLIC_KEY_BYTES} bytes, got {len(node_public_key)}"
            )
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        issuer = _Ed25519(self.public_key)
        serial = int.from_bytes(id_of(node_public_key)[:16], "big") | 1
        builder = _certificate(node_public_key, self.public_key, serial)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        key_identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer)
        return self._sign(builder.add_extension(key_identifier, critical=False))

    def _sign(self, builder: x509.CertificateBuilder) -> str:
        key = Ed25519PrivateKey.from_private_bytes(bytes(self.signing_key))
        return builder.sign(key, algorithm=None).public_bytes(serialization.Encoding.PEM).decode()


_Ed25519 = Ed25519PublicKey.from_public_bytes


def _certificate(subject: bytes, issuer: bytes, serial: int) -> x509.CertificateBuilder:
    """Begin a certificate. Only the authority's own has itself as issuer, and its key as name."""
    name = issuer if subject == issuer else id_of(subject)
    public_key = _Ed25519(subject)
    builder = x509.CertificateBuilder(
        subject_name=_common_name(name),
        issuer_name=_common_name(issuer),
        public_key=public_key,
        serial_number=serial,
        not_valid_before=_NOT_BEFORE,
        not_valid_after=_NOT_AFTER,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return builder.add_extension(identifier, critical=False)


def _common_name(name: bytes) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name.hex())])


def _key_usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def open_authority(name: str) -> Authority:
    """Return the authority of the open network of this name, which anybody can derive.

    Raises:
        MisuseError: the name is not one that a network can have.
    """
    _check_name(name)
    return Authority(SigningKey(blake3(name.encode(), derive_key_context=_OPEN_CONTEXT).digest()))


def secret_authority(name: str, secret: bytes) -> Authority:
    """Return the authority that follows from a network's name and its shared secret.

    Every handshake shows a hash of the authority's public key, so a weak secret could be guessed
    offline; it therefore goes through Argon2id (RFC 9106; 64 MiB, a tenth of a second) first.

    Raises:
        MisuseError: a bad name, or a secret of fewer than 16 bytes (final newlines not counted).
    """
    _check_name(name)
    secret = secret.rstrip(b"\r\n")
    if len(secret) < SECRET_BYTES_MIN:
        raise MisuseError(
            f"a network secret is at least {SECRET_BYTES_MIN} bytes, got {len(secret)}; "
            "make one with: openssl rand -hex 32"
        )
    salt = blake3(name.encode(), derive_key_context=_SECRET_CONTEXT).digest(argon2id.SALTBYTES)
    stretched = argon2id.kdf(
        32, secret, salt, argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
    )
    return Authority(SigningKey(stretched))


def _check_name(name: str) -> None:
    """Refuse names that could look the same and be different networks."""
    plain = name.isprintable() and name == name.strip() and unicodedata.is_normalized("NFC", name)
    if not plain or not 0 < len(name.encode()) <= NETWORK_NAME_BYTES_MAX:
        raise MisuseError(
            f"a network's name is 1..{NETWORK_NAME_BYTES_MAX} bytes of printable text in normal "
            f"form (NFC) with no space around it, got {name!r}"
        )


# --- Networks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Network:
    """One network as a node sees it: its authority, and how the node comes by its certificate."""

    name: str
    kind: NetworkKind
    authority_key: bytes
    """The authority's public key: what makes two networks the same one."""
    ca_certificate: str
    """The authority's certificate, PEM."""
    authority: Authority | None = field(default=None, repr=False, compare=False)
    """Held by every node of an open or secret network; in a managed one by its operator only."""
    membership: str | None = field(default=None, repr=False)
    """Managed: the certificate that the operator gave this node, PEM."""

    @property
    def alpn(self) -> str:
        """The name under which TLS agrees on network and protocol version (RFC 7301)."""
        digest = blake3(self.authority_key).digest(16)
        return f"xorbit/{PROTOCOL_VERSION}/{digest.hex()}"

    @property
    def belonging(self) -> Belonging:
        """What a home of this network notes of it."""
        return Belonging(self.name, self.kind, self.authority_key.hex())

    def certificate(self, key: NodeKey) -> str:
        """Return the certificate of this node in this network, PEM.

        Raises:
            MisuseError: managed, and the operator's certificate is for another node, or is missing.
        """
        if self.authority is not None:
            return self.authority.admit(key.public_key)
        if self.membership is None:
            raise MisuseError(f"no operator has admitted this node to network {self.name!r}")
        _check_subject(x509.load_pem_x509_certificate(self.membership.encode()), key)
        return self.membership


def open_network(name: str) -> Network:
    """Return the open network of this name."""
    authority = open_authority(name)
    return Network(name, "open", authority.public_key, authority.ca_certificate(), authority)


def secret_network(name: str, secret: bytes) -> Network:
    """Return the network of this name and shared secret; see `secret_authority`."""
    authority = secret_authority(name, secret)
    return Network(name, "secret", authority.public_key, authority.ca_certificate(), authority)


def nobodys_network(name: str) -> Network:
    """Return a network of this name that has no other node, ever: its authority is thrown away."""
    authority = Authority(SigningKey.generate())
    return Network(name, "open", authority.public_key, authority.ca_certificate(), authority)


def load_network(home: Path, name: str | None = None, secret: bytes | None = None) -> Network:
    """Return the network of a node: managed if it was admitted to one, else secret, else open.

    Where none is named, it is the one that the home belongs to. A home with an operator's authority
    is made a member of that network, if it is none yet. That the home belongs to the network from
    now on is noted by `homes.bind`, once it is used.

    Raises:
        MisuseError: name or secret contradict the membership in `home`, are bad, the home belongs
            to another network, or a file in it is damaged.
        WorldError: a file cannot be read.
    """
    network = _network_of(home, name, secret)
    homes.check(home, network.belonging)
    return network


def _network_of(home: Path, name: str | None, secret: bytes | None) -> Network:
    path = home / MEMBERSHIP_FILE
    if not path.exists() and (home / AUTHORITY_KEY_FILE).exists():
        _join_own_network(home)
    if path.exists():
        network = _managed(read_file(path), str(path))
        if secret is not None or name not in (None, network.name):
            raise MisuseError(
                f"this home belongs to the managed network {network.name!r}: name no other and "
                "give no secret, or use another --home"
            )
        return network
    if name is None:
        own = homes.belonging(home)
        name = DEFAULT_NETWORK if own is None else own.network
    return open_network(name) if secret is None else secret_network(name, secret)


# --- Managed networks ---------------------------------------------------------------------------


class _AuthorityFile(Struct, frozen=True):
    """What stands beside an operator's key."""

    network: str
    authority: str


class _Membership(Struct, frozen=True):
    """What an operator hands to a node."""

    network: str
    authority: str
    ca_certificate: str
    certificate: str


def create_network(directory: Path, name: str) -> Network:
    """Make the authority of a managed network in the operator's directory; return its public part.

    The directory becomes a home of that network itself.

    Raises:
        MisuseError: a bad name, or the directory holds an authority already, or is the home of a
            node of another network.
        WorldError: the directory cannot be written.
    """
    _check_name(name)
    make_directory(directory)
    path = directory / AUTHORITY_KEY_FILE
    if path.exists():
        raise MisuseError(f"{path} exists: this directory holds a network's authority already")
    authority = Authority(SigningKey.generate())
    network = Network(name, "managed", authority.public_key, authority.ca_certificate())
    homes.check(directory, network.belonging)
    if (directory / MEMBERSHIP_FILE).exists():
        raise MisuseError(f"{directory} is a member of a managed network: use another --home")
    about = _AuthorityFile(name, authority.public_key.hex())
    write_over(directory / AUTHORITY_FILE, to_json(about))
    write_new(path, private_key_pem(authority.signing_key))  # last: it is an operator's with it
    _join_own_network(directory)
    return network


def _join_own_network(directory: Path) -> None:
    """Make an operator's directory the home of a member, so that its node runs nowhere else."""
    key = NodeKey.load_or_create(directory)
    install_membership(directory, admit_node(directory, key.public_key))


def load_authority(directory: Path) -> tuple[str, Authority]:
    """Return name and authority of the network that is run from the operator's directory.

    Raises:
        MisuseError: there is none, or its files are damaged.
        WorldError: a file cannot be read.
    """
    path = directory / AUTHORITY_FILE
    if not path.exists():
        raise MisuseError(f"{directory} holds no authority; run: xorbit network create NAME")
    about = from_json(read_file(path), _AuthorityFile, str(path))
    authority = Authority(read_key(directory / AUTHORITY_KEY_FILE))
    if authority.public_key.hex() != about.authority:
        raise MisuseError(f"{path} is not of the key beside it; restore both")
    return about.network, authority


def admit_node(directory: Path, node_public_key: bytes) -> bytes:
    """Return the membership file that lets the node with this public key into the network.

    It holds nothing secret: only the node that has the private key can use it.

    Raises:
        MisuseError: no authority here, or a public key that is not 32 bytes.
        WorldError: a file cannot be read.
    """
    name, authority = load_authority(directory)
    certificate = authority.admit(node_public_key)
    public = authority.public_key.hex()
    return to_json(_Membership(name, public, authority.ca_certificate(), certificate))


def install_membership(home: Path, content: bytes) -> Network:
    """Put a membership file into a node's home, after holding it against the node's key.

    Raises:
        MisuseError: damaged, made for another node, or the home belongs to another network.
        WorldError: the home cannot be written.
    """
    network = _managed(content, "the membership file")
    network.certificate(NodeKey.load_or_create(home))
    path = home / MEMBERSHIP_FILE
    if (
        path.exists()
        and _managed(read_file(path), str(path)).authority_key != network.authority_key
    ):
        raise MisuseError(f"{home} is a member of another managed network: use another --home")
    homes.bind(home, network.belonging)
    write_over(path, content)
    return network


def _managed(content: bytes, source: str) -> Network:
    membership = from_json(content, _Membership, source)
    _check_name(membership.network)
    try:
        authority = bytes.fromhex(membership.authority)
        ca = x509.load_pem_x509_certificate(membership.ca_certificate.encode())
        certificate = x509.load_pem_x509_certificate(membership.certificate.encode())
        ca.verify_directly_issued_by(ca)
        certificate.verify_directly_issued_by(ca)
        proved = _ed25519_key(ca) == authority
    except (ValueError, TypeError, InvalidSignature, IdentityError) as error:
        raise MisuseError(f"{source} does not prove itself; ask the operator again") from error
    if not proved:
        raise MisuseError(f"{source} is signed by another authority than it names")
    return Network(
        membership.network,
        "managed",
        authority,
        membership.ca_certificate,
        membership=membership.certificate,
    )


def _check_subject(certificate: x509.Certificate, key: NodeKey) -> None:
    if (found := _ed25519_key(certificate)) != key.public_key:
        raise MisuseError(
            f"the membership is for the node with public key {found.hex()}, this home's is "
            f"{key.public_key.hex()}; ask the operator to admit that one"
        )


# --- What a peer shows --------------------------------------------------------------------------


def peer_id(certificate_der: bytes) -> Id:
    """Return the id of the node whose certificate this is: the hash of the key in it.

    Whether the network's authority signed it is for TLS to check.

    Raises:
        IdentityError: no certificate, or one whose key is not Ed25519.
    """
    try:
        certificate = x509.load_der_x509_certificate(certificate_der)
    except ValueError as error:
        raise IdentityError(f"expected an X.509 certificate: {error}") from error
    return id_of(_ed25519_key(certificate))


def _ed25519_key(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"the certificate's key cannot be read: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("the certificate's key is of another kind than Ed25519")
    return key.public_bytes_raw()
