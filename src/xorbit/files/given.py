"""What callers give to be read or written: bytes, a path in any form, an open file, a function.

Made where it comes in into what the rest of this room knows; what will not do is refused here,
before anything is done. Open files are tried, with no bytes to read or write; that may block, so it
is done on a worker thread. No network and no asyncio here.
"""

import io
from pathlib import Path
from typing import Any, BinaryIO

from xorbit.errors import MisuseError, WriteError
from xorbit.files.flow import Sink
from xorbit.files.local import Source
from xorbit.paths import StrPath, is_path, path_from

GivenSource = bytes | StrPath | BinaryIO
"""What a file is read from: its bytes, its path, or an open binary file from where it stands."""
GivenSink = StrPath | BinaryIO | Sink
"""Where a file is written to: its path, an open binary file, or a function that takes its bytes."""


def source_from(source: GivenSource) -> Source:
    """Return what is to be read.

    Raises:
        MisuseError: neither bytes nor a path, nor a file that bytes can be read from.
    """
    given: Any = source  # callers without types give whatever
    match given:
        case bytes():
            return given
        case _ if is_path(given):
            return path_from(given)
        case _ if _reads_bytes(given):
            return given
        case _:
            raise MisuseError(
                "expected bytes, a path (text or os.PathLike) or a file open for reading bytes, "
                f"got {given!r:.80}"
            )


def _reads_bytes(file: Any) -> bool:
    try:
        return isinstance(file.read(0), bytes)
    except (AttributeError, TypeError, ValueError):  # no file, closed, or not one to read
        return False
    except OSError:
        return True  # a file, on a disk that fails: whoever reads it says so


def sink_from(to: GivenSink) -> Path | Sink:
    """Return where to write to; a file that the caller opened stays open.

    Raises:
        MisuseError: neither a path nor a function, nor a file that bytes can be written to.
    """
    given: Any = to
    match given:
        case _ if is_path(given):
            return path_from(given)
        case _ if callable(given):
            return given
        case _ if _takes_bytes(given):
            return _Writing(given)
        case _:
            raise MisuseError(
                "expected a path (text or os.PathLike), a file open for writing bytes or a "
                f"function that takes bytes, got {given!r:.80}"
            )


def _takes_bytes(file: Any) -> bool:
    try:
        file.write(b"")
    except (AttributeError, TypeError, ValueError):  # no file, closed, or not one to write
        return False
    except OSError:
        return True  # as above
    return True


class _Writing:
    """A sink that is a file of the caller's."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __call__(self, data: bytes) -> None:
        try:
            if isinstance(self._file, io.RawIOBase):  # it may take less than it is given
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) :]
            else:
                self._file.write(data)
        except OSError as error:
            raise WriteError(f"cannot write to the file: {error.strerror}") from error
