"""Trees, for any names and shapes: what goes in comes out, and nothing comes out elsewhere."""

import errno
import posixpath
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.files.trees import Shelf, on_disk
from xorbit.errors import FormatError, LeadsOutError, WorldError
from xorbit.files.car import CarReader
from xorbit.files.cid import Cid, Codec
from xorbit.files.names import check_name, check_target
from xorbit.files.tree import drive, finish, list_directory, resolve

NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
).filter(lambda name: name not in (".", ".."))
ANY_NAMES = st.text(st.sampled_from("./\0\\aA-~: \n"), max_size=6) | st.sampled_from(
    ["..", ".", "/", "../x", "/etc", "a/../b"]
)
CONTENTS = st.binary(max_size=20)
TREES = st.recursive(
    CONTENTS,
    lambda inner: st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
Tree = bytes | dict[str, "Tree"]


def put(shelf: Shelf, tree: Tree) -> Cid:
    if isinstance(tree, bytes):
        return shelf.file(tree)
    return shelf.directory({name: put(shelf, below) for name, below in tree.items()})


def flat(tree: Tree, path: str = "") -> dict[str, bytes | None]:
    if isinstance(tree, bytes):
        return {path: tree}
    found: dict[str, bytes | None] = {path: None}
    for name, below in tree.items():
        found |= flat(below, f"{path}/{name}" if path else name)
    return found


@given(TREES)
@settings(max_examples=50)
def test_round_trip(tree: Tree) -> None:
    """Any tree is written to a disk as it was made, and nothing beside it."""
    shelf = Shelf()
    root = put(shelf, tree)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        shelf.write(root, out)
        if isinstance(tree, bytes):
            assert out.read_bytes() == tree
        else:
            assert {"": None, **on_disk(out)} == flat(tree)
        assert [path.name for path in Path(folder).iterdir()] == ["out"]


@given(TREES)
def test_cars(tree: Tree) -> None:
    """A CAR of any tree has exactly its blocks."""
    shelf = Shelf()
    root = put(shelf, tree)
    assert dict(CarReader(shelf.car(root))) == {cid: shelf.held[cid] for cid in shelf.asked}


@given(st.sets(NAMES, max_size=40), st.integers(0, 2))
def test_entries(names: set[str], padding: int) -> None:
    """Each name of a directory is listed once and leads to its entry, sharded or not."""
    shelf = Shelf()
    more = {f"{number:0200}" for number in range(padding * 100)}
    entries = {name: shelf.add(name.encode(), Codec.RAW) for name in sorted(names | more)}
    root = shelf.directory(entries)
    pages = drive(list_directory(shelf.found(root)), shelf.get)
    assert sorted(entry.name for page in pages for entry in page) == sorted(entries)
    for name in names:
        assert finish(resolve(root, [name]), shelf.get).cid == entries[name]


FEW_NAMES = st.sampled_from(["a", "b", "c", "d"])
TARGETS = st.lists(st.sampled_from(["..", "..", ".", "", "a", "b", "c"]), max_size=5).map("/".join)
LINKS_AND_NAMES = st.recursive(
    TARGETS.map(lambda target: ("link", target)) | CONTENTS,
    lambda inner: st.dictionaries(FEW_NAMES, inner, max_size=4),
    max_leaves=8,
).filter(lambda tree: isinstance(tree, dict))


@given(LINKS_AND_NAMES, st.none() | ANY_NAMES)
@settings(max_examples=300)
def test_nothing_leaves_the_folder(tree: Any, name: str | None) -> None:
    """A tree of any links, maybe with a name that wants out, stays inside or is refused whole."""
    shelf = Shelf()
    root = hostile(shelf, tree, name)
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder) / "top"
        top.mkdir()
        try:
            shelf.write(root, top / "out")
        except LeadsOutError:  # what came stays, for --skip-links
            assert all(path.name.endswith(".part") for path in top.iterdir())
        except (FormatError, WorldError):
            assert list(top.iterdir()) == []
        else:
            assert [path.name for path in top.iterdir()] == ["out"]
            for path in (top / "out").rglob("*"):
                assert is_inside(path, top / "out")
        assert [path.name for path in Path(folder).iterdir()] == ["top"]


def is_inside(path: Path, top: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a circle leads nowhere; resolve() says "/" of some
            return True
    real = path.resolve()
    return real == top.resolve() or top.resolve() in real.parents


def hostile(shelf: Shelf, tree: Any, name: str | None) -> Cid:
    match tree:
        case bytes():
            return shelf.add(tree, Codec.RAW)
        case ("link", target):
            return shelf.link(target or "x")
    entries = [(known, hostile(shelf, below, None)) for known, below in tree.items()]
    if name is not None:
        entries.append((name, shelf.add(b"evil", Codec.RAW)))
    return shelf.raw_directory(entries)


@given(ANY_NAMES, st.integers(0, 3))
def test_targets(target: str, folders: int) -> None:
    """A target that is accepted leads inside by its text as well."""
    try:
        check_target(target, folders)
    except FormatError:
        return
    where = posixpath.normpath("/".join(["d"] * folders + [target]))
    assert where.split("/")[0] not in ("..", "")  # "..:" is a name like others


@given(ANY_NAMES)
def test_names(name: str) -> None:
    """A name that is accepted is one part of a path, and stays in its folder."""
    try:
        check_name(name)
    except FormatError:
        return
    assert posixpath.normpath(f"/top/{name}") == f"/top/{name}"
