"""The local network: nodes of one network find each other by mDNS, without any address given.

Multicast DNS (RFC 6762) with service discovery (RFC 6763), by python-zeroconf. A service carries
the node's id and a tag of its network. What is heard is hearsay: it is dialled, and the handshake
says who is there. Where multicast does not work, nothing is found, and that is no error.
"""

import asyncio
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from blake3 import blake3
from ifaddr import get_adapters
from zeroconf import Error as MdnsError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from xorbit.config import MDNS_ASK_S_MAX, MDNS_ASKED_MAX
from xorbit.core.effect import Report
from xorbit.core.scope import Scope, scope_of
from xorbit.ids import ID_BYTES, Id
from xorbit.items import ADDRESSES_MAX, Address

SERVICE = "_xorbit._tcp.local."

_ON_A_LAN = (Scope.PRIVATE, Scope.LINK_LOCAL)
"""Anybody on the local network can name any address: with others it could have us all dial a
stranger on the internet, or a service of our own host."""

Found = Callable[[Id, tuple[Address, ...]], None]


def network_tag(authority_key: bytes) -> str:
    """Return what names a network on the local one: who only hears it learns nothing of the key."""
    return blake3(authority_key, derive_key_context="xorbit mdns v1 network").hexdigest()[:32]


def is_useful(listening: Sequence[Address]) -> bool:
    """Return whether others on the local network could dial us at all."""
    return bool(_shown(listening))


class LocalDiscovery:
    """Tells the local network of this node, and this node of others there."""

    def __init__(
        self,
        own: Id,
        authority_key: bytes,
        listening: Sequence[Address],
        found: Found,
        report: Callable[[Report], None],
    ) -> None:
        """Make one; nothing happens before `run`.

        Args:
            own: the node's id.
            authority_key: of the network; services of other networks are passed over.
            listening: where the node accepts connections.
            found: takes who was heard of, and where; called on the loop.
            report: takes what there is to say.
        """
        self._own = own
        self._tag = network_tag(authority_key)
        self._listening = tuple(listening)
        self._found = found
        self._report = report
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Announce and listen until cancelled."""
        try:
            async with AsyncZeroconf(ip_version=self._version()) as zeroconf:
                await self._serve(zeroconf)
        except (OSError, MdnsError, NotImplementedError) as error:
            self._report(Report("debug", "no discovery on the local network", str(error)))

    async def _serve(self, zeroconf: AsyncZeroconf) -> None:
        browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[self._changed])
        try:
            async with asyncio.timeout(MDNS_ASK_S_MAX):
                service = self._service()
                await (await zeroconf.async_register_service(service))  # pyright: ignore[reportUnknownMemberType]
        except TimeoutError:
            self._report(Report("debug", "the local network does not take our service"))
        try:
            await asyncio.Event().wait()
        finally:
            asking = list(self._asking.values())
            for task in asking:
                task.cancel()
            if asking:
                await asyncio.wait(asking)
            await browser.async_cancel()

    def _version(self) -> IPVersion:
        versions = {ip_address(address.host).version for address in self._listening}
        if versions == {4}:
            return IPVersion.V4Only
        return IPVersion.V6Only if versions == {6} else IPVersion.All

    def _service(self) -> AsyncServiceInfo:
        shown = _shown(self._listening)
        port = shown[0].port
        return AsyncServiceInfo(
            SERVICE,
            f"{self._own.hex()[:48]}.{SERVICE}",  # a label holds 63 bytes: the id is a property
            port=port,
            parsed_addresses=[address.host for address in shown if address.port == port],
            properties={"id": self._own.hex(), "network": self._tag},
        )

    def _changed(
        self,
        zeroconf: Zeroconf,
        service_type: str,  # noqa: ARG002 - zeroconf names its arguments
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        """Ask a service that shows itself who and where it is."""
        if state_change is ServiceStateChange.Removed or name in self._asking:
            return
        if len(self._asking) < MDNS_ASKED_MAX:
            task = asyncio.get_running_loop().create_task(self._ask(zeroconf, name))
            self._asking[name] = task
            task.add_done_callback(lambda _: self._asking.pop(name, None))

    async def _ask(self, zeroconf: Zeroconf, name: str) -> None:
        service = AsyncServiceInfo(SERVICE, name)
        try:
            if not await service.async_request(zeroconf, MDNS_ASK_S_MAX * 1000):
                return
        except (OSError, MdnsError, NotImplementedError) as error:
            self._report(Report("debug", "a service of the local network is lost", str(error)))
            return
        if (heard := read_service(service, self._tag)) is not None and heard[0] != self._own:
            self._found(*heard)


def read_service(service: AsyncServiceInfo, tag: str) -> tuple[Id, tuple[Address, ...]] | None:
    """Return who a service is and where, None where it is of no use to this network."""
    said = service.decoded_properties
    try:
        id = bytes.fromhex(said.get("id") or "")
    except ValueError:
        return None
    port = service.port
    if said.get("network") != tag or len(id) != ID_BYTES or port is None or not 0 < port < 65_536:
        return None
    hosts = [host for host in service.parsed_scoped_addresses() if scope_of(host) in _ON_A_LAN]
    addresses = tuple(Address(host, port) for host in hosts[:ADDRESSES_MAX])
    return (Id(id), addresses) if addresses else None


def _shown(listening: Sequence[Address]) -> list[Address]:
    """Return the addresses to be shown: an unspecified host stands for those of all interfaces."""
    shown: dict[Address, None] = {}
    for address in listening:
        ip = ip_address(address.host)
        hosts = _interfaces(ip.version) if ip.is_unspecified else [address.host]
        shown.update({Address(host, address.port): None for host in hosts})
    return [address for address in shown if not ip_address(address.host).is_loopback]


def _interfaces(version: int) -> list[str]:
    """Return the addresses of all interfaces of this host."""
    addresses = (ip for adapter in get_adapters() for ip in adapter.ips)
    if version == 4:
        return [ip.ip for ip in addresses if isinstance(ip.ip, str)]
    return [ip.ip[0] for ip in addresses if not isinstance(ip.ip, str)]
