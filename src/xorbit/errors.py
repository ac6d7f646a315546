"""Every error that xorbit raises: one root, three kinds of blame.

An error says whose fault it is, so that a caller knows what to do with it: mend the call
(`MisuseError`), distrust the peer (`PeerError`), or try again later (`WorldError`). A message says
what was expected, what came, and what to do. Nothing but exception classes may enter this file.
"""

from typing import Any


class XorbitError(Exception):
    """The root of all errors of xorbit."""


class MisuseError(XorbitError, ValueError):
    """Our caller's mistake: a wrong argument, a wrong order of calls. Mend the call."""


class PeerError(XorbitError):
    """A peer sent what it must not send. Distrust that peer, go on with others."""


class WireError(PeerError):
    """Bytes from a connection that are no frame, or a frame that holds no message."""


class ItemError(PeerError):
    """An item that does not prove itself: wrong hash, wrong signature, out of bounds."""


class IdentityError(PeerError):
    """A peer that could not prove the id we dialled, or that belongs to another network."""


class FormatError(PeerError):
    """Bytes of a name or of a file's block that do not follow their format."""


class LeadsOutError(FormatError):
    """A symbolic link of a tree that leads out of it, and so is not made."""


class WorldError(XorbitError):
    """The world failed us: the disk, the network, time. Trying again may help."""


class NotFoundError(WorldError):
    """Nobody that could be asked holds the item."""


class NoPeersError(WorldError):
    """No other node could be reached; the message says which addresses were tried."""


class NotStoredError(WorldError):
    """No node took the item; the message says what each of them answered."""


class StaleError(WorldError):
    """The record that was to be replaced is not the newest: mostly, another writer was faster.

    `newer` is the record that is held instead (`items.Record`), where a node named one. It may be
    an older one: of a version that was seen once nobody may be left.
    """

    def __init__(self, message: str, newer: Any = None) -> None:
        """Say what happened, and which record stands there now."""
        super().__init__(message)
        self.newer = newer


class StoreError(WorldError):
    """The disk under the store failed, is full, or is held by another process."""


class WriteError(WorldError):
    """What was got could not be written where it was to go: that disk is full, or failed."""


class StoppedError(WorldError):
    """The node stopped, or was told to stop, before the call could be finished."""


class NotRunningError(WorldError):
    """No node runs on this home, and the command needs one."""
