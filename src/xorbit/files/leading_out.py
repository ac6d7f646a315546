"""Symbolic links of a directory of this machine that no get would make again: they lead out of it.

Reads the disk and writes nothing; all of it blocks, so it is called on a worker thread.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from xorbit.errors import LeadsOutError
from xorbit.files.names import MIRROR_FOLDER, check_target


class LeadingOut(Struct, frozen=True):
    """Such links of a directory: the first of them, from the directory on, and how many."""

    first: str = ""
    count: int = 0


def leading_out(path: Path) -> LeadingOut:
    """Return the symbolic links below a directory that lead out of it; a file has none.

    What cannot be read, whoever reads the tree complains of.
    """
    found = LeadingOut()
    for below in _links(path):
        if _leads_out(path, below):
            found = LeadingOut(found.first or str(below), found.count + 1)
    return found


def _links(top: Path) -> Iterator[Path]:
    """Give what may be links; `walk` lists those to directories among the directories."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        if Path(folder) == top and MIRROR_FOLDER in folders:
            folders.remove(MIRROR_FOLDER)  # it is not put
        for name in sorted([*folders, *files]):
            yield Path(folder, name).relative_to(top)


def _leads_out(top: Path, below: Path) -> bool:
    try:
        check_target(os.readlink(top / below), len(below.parts) - 1)  # noqa: PTH115 - to the letter
    except LeadsOutError:
        return True
    except OSError:
        return False  # no link
    return False
