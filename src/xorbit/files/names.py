"""Which names and link targets may come from a stranger, and which of them may go to a disk.

Pure: it says yes or no, it touches no disk. What a directory of the network names is held against
`check_name` as soon as it is read, so that no other room ever sees a name that could leave its
folder. What is to be written is held against `check_file_name` and `check_target` besides.

Spec: https://specs.ipfs.tech/unixfs/ (names of links), POSIX.1-2017 4.13 (pathname resolution).
"""

import os

from xorbit.errors import FormatError, LeadsOutError

MIRROR_FOLDER = ".xorbit-mirror"
"""The one name at the top of a directory that is a mirror's own, and no part of a tree."""

_SEPARATORS = frozenset({os.sep, os.altsep or os.sep})
FILE_NAME_BYTES_MAX = 255
TARGET_BYTES_MAX = 4_095
"""What Linux takes as a name, and as the target of a symbolic link (NAME_MAX, PATH_MAX)."""
_SHOWN_CHARACTERS = 80
_UP = ".."
_HERE = "."


def shown(name: str) -> str:
    """Return a name as it may stand in a message: quoted, escaped and cut to 80 characters."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "...")


def name_problem(name: str | None) -> str | None:
    """Return why this can be no name in a directory on any system, None where it can."""
    if not name:
        return "it has no name"
    if name in (_HERE, _UP):
        return "it means a folder itself, or the one above it"
    if "/" in name:
        return "it has a / in it"
    if "\0" in name:
        return "it has a zero byte in it"
    return None


def check_name(name: str | None) -> str:
    """Return a name that a directory of the network gives.

    Raises:
        FormatError: it is missing, ".", "..", or has a / or a zero byte in it.
    """
    if problem := name_problem(name):
        raise FormatError(f"a directory names an entry {shown(name or '')}: {problem}")
    assert name, "a missing name is a problem"
    return name


def check_file_name(name: str, separators: frozenset[str] = _SEPARATORS) -> str:
    """Return a name that may be given to a file on this system; `separators` is there for tests.

    Clashes (of case, of composed characters) are not looked for here: who writes makes each file
    anew in a folder of its own making, and finds there what this file system thinks is the same.

    Raises:
        FormatError: as `check_name`, or it is too long, or has what separates folders on this
            system.
    """
    check_name(name)
    if _bytes_of(name) > FILE_NAME_BYTES_MAX:
        raise FormatError(
            f"{shown(name)} cannot be written here: it has more than {FILE_NAME_BYTES_MAX} bytes"
        )
    if found := separators.intersection(name):
        marks = ", ".join(sorted(found))
        raise FormatError(f"{shown(name)} cannot be written here: it has a {marks} in it")
    return name


def check_target(target: str, folders: int) -> str:
    """Return the target of a symbolic link that stays inside, whatever else the tree holds.

    A target may go up only at its start, and by no more folders than the link is below the top.
    Then it holds by induction: where the link is, is known, and every other link that it leads to
    stays inside as well. A ".." behind a name could leave by way of a link of that name.

    Args:
        target: What the link names.
        folders: In how many folders of the tree the link is; 0 at its top.

    Raises:
        LeadsOutError: it is empty, absolute or too long, has a zero byte in it, or may lead
            outside.
    """
    if problem := _target_problem(target, folders):
        raise LeadsOutError(f"a symbolic link to {shown(target)}: {problem}")
    return target


def _target_problem(target: str, folders: int) -> str | None:
    if not target or "\0" in target:
        return "that is no path"
    if _bytes_of(target) > TARGET_BYTES_MAX:
        return f"that has more than {TARGET_BYTES_MAX:,} bytes, and no link says so many"
    if target.startswith(tuple(_SEPARATORS)):
        return "only links to what is in the same tree are made, and this is absolute"
    parts = [part for part in target.split("/") if part not in ("", _HERE)]
    up = next((at for at, part in enumerate(parts) if part != _UP), len(parts))
    if up > folders:
        return "it leads outside the tree"
    if _UP in parts[up:]:
        return "a .. may stand at its start only: behind a name it could lead outside the tree"
    return None


def _bytes_of(text: str) -> int:
    return len(text.encode(errors="replace"))  # what a disk gave may be no UTF-8
