"""TLS of a node: contexts that admit one network only, and a session as pure bytes in, bytes out.

The session is ssl.SSLObject over memory, the standard library's TLS without I/O: what asyncio and
uvloop offer for upgrading a socket loses bytes that arrive before the upgrade (uvloop reads as soon
as it has accepted), drops the alert that would tell a peer why it is refused, and hides how much is
still unsent. Sockets, asyncio and files that outlive a call may not enter this file.
"""

import contextlib
import secrets
import ssl
import tempfile
from typing import cast

from xorbit.errors import IdentityError
from xorbit.identity import Network, NodeKey, peer_id
from xorbit.ids import Id


def server_context(key: NodeKey, network: Network) -> ssl.SSLContext:
    """Return the context of the accepting end.

    Raises:
        MisuseError: the network has not admitted this node.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, key, network)
    context.num_tickets = 0  # every connection proves both ids anew
    return context


def client_context(key: NodeKey, network: Network) -> ssl.SSLContext:
    """Return the context of the dialling end.

    Raises:
        MisuseError: the network has not admitted this node.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, key, network)


def _context(protocol: int, key: NodeKey, network: Network) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # an id is the key, not a name or an address
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=network.ca_certificate)
    context.set_alpn_protocols([network.alpn])
    # ssl takes keys from files only: this one is encrypted, 0600 and gone at the end of the block.
    password = secrets.token_hex(32).encode()
    with tempfile.NamedTemporaryFile() as file:
        file.write(key.private_pem(password) + network.certificate(key).encode())
        file.flush()
        context.load_cert_chain(file.name, password=password)
    return context


class Session:
    """One end of one TLS connection, fed with what came and asked for what should leave."""

    __slots__ = ("_incoming", "_network", "_outgoing", "_tls", "end")

    end: str | None
    """Why nothing more will be read; None while more may come."""

    def __init__(self, context: ssl.SSLContext, network: Network, *, server_side: bool) -> None:
        """Begin a session; nothing leaves before the first `shake`."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._network = network
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self.end = None

    def receive(self, data: memoryview) -> None:
        """Take encrypted bytes as they came."""
        self._incoming.write(data)

    def outgoing(self) -> bytes:
        """Return the encrypted bytes that are to leave, and forget them."""
        return self._outgoing.read()

    def shake(self) -> Id | None:
        """Go on with the handshake; return the peer's id once it is proved, None before.

        Raises:
            IdentityError: the peer cannot prove that it belongs to our network.
        """
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except ssl.SSLError as error:
            raise IdentityError(explain(error)) from error
        if self._tls.selected_alpn_protocol() != self._network.alpn:
            raise IdentityError(
                f"it speaks another protocol, or version of it: not {self._network.alpn}"
            )
        return peer_id(self._tls.getpeercert(binary_form=True) or b"")

    def encrypt(self, data: bytes | bytearray) -> bytes:
        """Return what is to leave so that the peer reads `data`.

        Nothing, and `end` is set, once the peer has broken the session: OpenSSL then refuses.
        """
        try:
            written = self._tls.write(data)
        except ssl.SSLError as error:
            self.end = self.end or explain(error)
            return b""
        assert written == len(data), "memory takes all, and OpenSSL then writes all"
        return self._outgoing.read()

    def read_into(self, buffer: memoryview) -> int:
        """Decrypt into the buffer; return how many bytes, 0 when nothing more has come.

        The peer's farewell, its alert, or bytes that are not its own set `end`.
        """
        size = 0
        try:
            while size < len(buffer) and (self._incoming.pending or self._tls.pending()):
                # typeshed knows only the form of `read` that returns the bytes themselves
                count = cast(int, self._tls.read(len(buffer) - size, buffer[size:]))
                if not count:
                    self.end = CLOSED_BY_PEER
                    break
                size += count
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self.end = explain(error)
        return size

    def farewell(self) -> bytes:
        """Return what is to leave so that the peer knows that nothing follows (close_notify)."""
        with contextlib.suppress(ssl.SSLError):  # it wants the peer's farewell: nobody waits for it
            self._tls.unwrap()
        return self._outgoing.read()


CLOSED_BY_PEER = "the peer closed the connection"

_OTHER_NETWORK = "it belongs to another network (or has another secret)"
_REFUSED = f"it refused our certificate: {_OTHER_NETWORK}"
_NO_TLS = "it does not speak TLS 1.3"
_REASONS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate",
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSED,
    "TLSV1_ALERT_ACCESS_DENIED": _REFUSED,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": _REFUSED,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _REFUSED,
    "TLSV1_ALERT_PROTOCOL_VERSION": _NO_TLS,
    "UNSUPPORTED_PROTOCOL": _NO_TLS,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
}


def explain(error: ssl.SSLError) -> str:
    """Return in words of ours what OpenSSL means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not from our network's authority: {_OTHER_NETWORK}"
    return _REASONS.get(error.reason or "", f"TLS failed: {error.reason or error}")
