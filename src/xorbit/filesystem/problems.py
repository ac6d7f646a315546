"""What went wrong, as programs expect it from a file system: kinds of OSError.

The message stays that of xorbit, and its error the cause. One line must not be crossed: that a path
does not exist (`FileNotFoundError`) is said of what the tree does not have. What it has and nobody
can be reached for is another error, or readers such as zarr, to whom a missing file is an empty
one, would read zeros where there is data.
"""

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager

from xorbit.errors import (
    MisuseError,
    NoPeersError,
    NotFoundError,
    PeerError,
    StoppedError,
    XorbitError,
)
from xorbit.files import names
from xorbit.files.seal_key import keys_hidden, without_key

READ_ONLY = (
    "xorbit:// is read-only, since names say what is in a file: `xorbit put` and "
    "`Node.put_tree` make new ones"
)


OPTION = re.compile(r"(?<![\w-])--(bootstrap HOST:PORT|home|network-secret|network)(?![\w-])")
"""What messages say of a command's options that are storage options here."""


class UnavailableError(NotFoundError):
    """Nobody that could be asked holds a block or a record, which says nothing of paths.

    Nor does a record that points to no tree just now.
    """


@contextmanager
def as_os_errors(path: str, to: str = "", *, is_there: bool = False) -> Generator[None]:
    """Raise what xorbit raises as OSError.

    Args:
        path: What was asked for, in the file system.
        to: Where it was to be written to on this machine; "" where it was only read.
        is_there: Whether something was found at the path before.
    """
    try:
        yield
    except XorbitError as error:
        # Where the path is a name alone and nobody has its block, nobody knows of such a file.
        raise _os_error(error, path, to, is_there=is_there or "/" in path) from error


def _os_error(error: XorbitError, path: str, to: str, *, is_there: bool) -> OSError:
    said, path = keys_hidden(_with_storage_options(str(error))), shown(path)
    match error:
        case UnavailableError() if is_there:
            return OSError(errno.EIO, said, path)
        case NotFoundError():
            return FileNotFoundError(errno.ENOENT, said, path)
        case NoPeersError():
            return ConnectionError(errno.ENETUNREACH, said, path)
        case StoppedError():
            return ConnectionAbortedError(errno.ECONNABORTED, said, path)
        case PeerError():
            return OSError(errno.EBADMSG, said, path)
        case MisuseError():
            return OSError(errno.EINVAL, said, to or path)
        case _:
            return OSError(errno.EIO, said, to or path)


def _with_storage_options(said: str) -> str:
    """Name what there is here instead of a command's options."""

    def named(option: re.Match[str]) -> str:
        name, _, value = option[1].replace("-", "_").partition(" ")
        return f'{name}="{value}"' if value else name

    text, count = OPTION.subn(named, said)
    return f"{text} (as a storage option)" if count else said


def shown(path: str) -> str:
    """Return a path as it may stand in messages and logs: without the key of private content."""
    scheme, mark, bare = path.partition("://")
    if not mark or "/" in scheme:
        scheme, mark, bare = "", "", path
    name, slash, rest = bare.partition("/")
    return scheme + mark + without_key(name) + slash + keys_hidden(rest)


def no_such_name(error: MisuseError, path: str) -> FileNotFoundError:
    """Return that nothing can be at what is no name of anything."""
    return FileNotFoundError(errno.ENOENT, keys_hidden(str(error)), shown(path))


def is_a_directory(path: str) -> IsADirectoryError:
    """Return that a directory cannot be read as a file."""
    return IsADirectoryError(errno.EISDIR, "that is a directory, no file", shown(path))


def is_a_link(path: str, target: str) -> OSError:
    """Return that a symbolic link is not followed."""
    target = names.shown(target)
    said = f"that is a symbolic link to {target}, which is not followed; `xorbit get` keeps it"
    return OSError(errno.ELOOP, said, shown(path))


def is_read_only(path: str) -> PermissionError:
    """Return that nothing is written here."""
    return PermissionError(errno.EROFS, READ_ONLY, shown(path))
