"""TLS without sockets: what the contexts demand, what a session tells, what is left on disk."""

import ssl
import tempfile
from pathlib import Path

import pytest

from tests.edge.tls_help import OPEN
from xorbit.errors import IdentityError, MisuseError
from xorbit.identity import Network, NodeKey, create_network, open_network
from xorbit.run.tls import CLOSED_BY_PEER, Session, client_context, server_context


def sessions(network: Network = OPEN) -> tuple[Session, Session, NodeKey, NodeKey]:
    """Return client, server and their keys, before the handshake."""
    a, b = NodeKey.generate(), NodeKey.generate()
    client = Session(client_context(a, network), network, server_side=False)
    server = Session(server_context(b, network), network, server_side=True)
    return client, server, a, b


def carry(source: Session, sink: Session) -> None:
    sink.receive(memoryview(source.outgoing()))


def shaken() -> tuple[Session, Session]:
    client, server, a, b = sessions()
    assert client.shake() is None
    carry(client, server)
    assert server.shake() is None
    carry(server, client)
    assert client.shake() == b.id
    carry(client, server)
    assert server.shake() == a.id
    assert server.outgoing() == b""  # no session tickets
    return client, server


def read(session: Session) -> bytes:
    buffer = memoryview(bytearray(100_000))
    data = b""
    while size := session.read_into(buffer):
        data += buffer[:size]
    return data


def test_contexts_admit_only_our_network() -> None:
    """TLS 1.3, certificates from both ends, one authority, no tickets."""
    for make in (server_context, client_context):
        context = make(NodeKey.generate(), OPEN)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert not context.check_hostname
        assert len(context.get_ca_certs()) == 1
    assert server_context(NodeKey.generate(), OPEN).num_tickets == 0


def test_no_key_stays_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The file through which ssl takes the key is private, encrypted, and gone afterwards."""
    seen: list[tuple[int, bytes]] = []
    original = ssl.SSLContext.load_cert_chain

    def spy(context: ssl.SSLContext, certfile: str, **options: object) -> None:
        seen.append((Path(certfile).stat().st_mode & 0o777, Path(certfile).read_bytes()))
        original(context, certfile, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    client_context(NodeKey.generate(), OPEN)
    ((mode, content),) = seen
    assert mode == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert b"BEGIN PRIVATE KEY" not in content
    assert list(tmp_path.iterdir()) == []


def test_a_network_that_has_not_admitted_us_gives_no_context(tmp_path: Path) -> None:
    """Without a certificate there is nothing to show."""
    network = create_network(tmp_path, "club")
    with pytest.raises(MisuseError, match="no operator has admitted this node"):
        server_context(NodeKey.generate(), network)


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_540, 300_000])
def test_a_session_carries_bytes_of_any_length(size: int) -> None:
    """What one end encrypts the other reads, in either direction and in any pieces."""
    client, server = shaken()
    data = bytes(range(256)) * (size // 256 + 1)
    for source, sink in ((client, server), (server, client)):
        encrypted = memoryview(source.encrypt(data[:size]))
        for start in range(0, len(encrypted), 10_000):
            sink.receive(encrypted[start : start + 10_000])
        assert read(sink) == data[:size]
        assert sink.end is None


def test_a_farewell_ends_the_stream_after_its_last_byte() -> None:
    """The peer's close is told once all that it sent is read."""
    client, server = shaken()
    sent = client.encrypt(b"last") + client.farewell()
    server.receive(memoryview(sent))
    buffer = memoryview(bytearray(10))
    assert server.read_into(buffer) == 4
    assert server.end == CLOSED_BY_PEER
    assert server.read_into(buffer) == 0


def test_forged_bytes_end_the_stream() -> None:
    """Bytes that the proved peer did not send are an end with a reason, and read by nobody."""
    client, server = shaken()
    encrypted = bytearray(client.encrypt(b"true"))
    encrypted[-1] ^= 1
    server.receive(memoryview(encrypted))
    assert read(server) == b""
    assert (server.end or "").startswith("TLS failed")


def test_another_network_is_refused_by_name() -> None:
    """The dialling end says why, and the alert tells the other end."""
    client, _, _, _ = sessions()
    _, server, _, _ = sessions(open_network("another"))
    client.shake()
    carry(client, server)
    server.shake()
    carry(server, client)
    with pytest.raises(IdentityError, match="belongs to another network"):
        client.shake()
    carry(client, server)
    with pytest.raises(IdentityError, match="it refused our certificate"):
        server.shake()
