"""What is pushed to a peer that does not take what it has already been sent.

Nobody asked for a push at that moment, so holding back the peer's requests does not bound them.
"""

from xorbit.ids import Guid
from xorbit.wire.message import Envelope


class Withheld:
    """Pushes that wait for their connections to drain: of each follow the newest only."""

    def __init__(self) -> None:
        self._pushes: dict[Guid, dict[Guid, Envelope]] = {}

    def keep(self, connection: Guid, push: Envelope) -> None:
        """Keep a push, in the place of an older one of the same follow."""
        self._pushes.setdefault(connection, {})[push.guid] = push

    def take(self, connection: Guid) -> list[Envelope]:
        """Return what waits for a connection, and keep it no longer."""
        return list(self._pushes.pop(connection, {}).values())
