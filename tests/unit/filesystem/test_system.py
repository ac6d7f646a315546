"""The file system that fsspec finds under `xorbit://`: what is there, and its errors."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from nacl.signing import SigningKey

from tests.unit.filesystem.home import (
    LARGE,
    NOBODY,
    SMALL,
    FakeHome,
    FakeSystem,
    leaf,
    leaves_asked,
)
from xorbit.api import NO_ADDRESS
from xorbit.errors import MisuseError, NoPeersError, StoppedError, WorldError, XorbitError
from xorbit.files.cid import Cid, Codec
from xorbit.files.directory import build_symbolic_link
from xorbit.files.local_tree import cid_of
from xorbit.files.pointer import pointer_to
from xorbit.filesystem import XorbitFileSystem
from xorbit.items import make_record

KEY = SigningKey(bytes(32))


# --- What is there ------------------------------------------------------------------------------


def test_fsspec_knows_it_by_its_scheme() -> None:
    fs, path = fsspec.url_to_fs(f"xorbit://{NOBODY}/a/b.csv", home="/nowhere")
    assert (type(fs), path) == (XorbitFileSystem, f"{NOBODY}/a/b.csv")
    assert fs.unstrip_protocol(path) == f"xorbit://{NOBODY}/a/b.csv"
    assert fs is fsspec.filesystem("xorbit", home="/nowhere")
    assert fs is not fsspec.filesystem("xorbit", home="/elsewhere")


def test_what_is_at_a_path_is_told(fs: FakeSystem, top: str, tmp_path: Path) -> None:
    found = fs.info(f"xorbit://{top}/large")
    assert found == {
        "name": f"{top}/large",
        "size": len(LARGE),
        "type": "file",
        "cid": found["cid"],
    }
    assert fs.cat(found["cid"]) == LARGE
    assert fs.info(f"{top}/small")["size"] == len(SMALL)
    assert fs.info(top)["type"] == "directory"
    assert fs.info(f"{top}/sub/")["size"] == 0
    link = fs.info(f"{top}/link")
    assert (link["type"], link["islink"], link["destination"]) == ("link", True, "small")


def test_directories_are_listed(fs: FakeSystem, top: str) -> None:
    names = ["empty", "large", "link", "small", "sub"]
    assert fs.ls(top, detail=False) == [f"{top}/{name}" for name in names]
    assert fs.ls(f"{top}/empty") == []
    assert fs.ls(f"xorbit://{top}/small") == [fs.info(f"{top}/small")]
    for entry in fs.ls(top):
        assert entry == fs.info(entry["name"])
    files = [f"{top}/{path}" for path in ("large", "small", "sub/deep/small")]
    assert fs.find(top) == list(fs.find(top, detail=True)) == files
    assert fs.glob(f"xorbit://{top}/**/s*l") == [f"{top}/small", f"{top}/sub/deep/small"]
    assert [(path, sorted(folders), sorted(files)) for path, folders, files in fs.walk(top)] == [
        (top, ["empty", "sub"], ["large", "link", "small"]),
        (f"{top}/empty", [], []),
        (f"{top}/sub", ["deep"], []),
        (f"{top}/sub/deep", [], ["small"]),
    ]
    assert fs.du(f"{top}/sub") == len(SMALL)
    assert (fs.isdir(top), fs.isfile(top), fs.isdir(f"{top}/large")) == (True, False, False)


def test_a_tree_with_a_symbolic_link_is_copied_without_it(
    fs: FakeSystem, top: str, tmp_path: Path
) -> None:
    """All else of it comes, by its name and by a pattern; to ask for the link alone is an error."""
    for number, path in enumerate((top, f"{top}/*")):
        out = tmp_path / str(number)
        fs.get(path, str(out), recursive=True)
        copied = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
        assert copied == {"large", "small", "sub/deep/small"}
    assert f"{top}/link" not in fs.glob(f"{top}/*")
    with pytest.raises(OSError, match="not followed") as caught:
        fs.get(f"{top}/link", str(tmp_path / "link"))
    assert caught.value.errno == errno.ELOOP


def test_a_folder_that_nobody_holds_is_not_passed_over(
    fs: FakeSystem, home: FakeHome, top: str, tmp_path: Path
) -> None:
    """What is copied would lack it without a word; what the tree does not have is not found."""
    home.lose(cid_of(tmp_path / "sub" / "deep"))
    out = str(tmp_path / "out")
    for use in (fs.find, fs.du, lambda path: fs.get(path, out, recursive=True)):
        with pytest.raises(OSError, match="nobody has it") as caught:
            use(top)
        assert caught.value.errno == errno.EIO
    assert fs.find(f"{top}/none") == []


def test_options_that_there_are_not_are_refused() -> None:
    """A secret that is misspelt must not mean the open network; what fsspec gives is taken."""
    for wrong in ({"hoem": "h1", "bootstap": "zzz"}, {"network_secrets": "file"}):
        with pytest.raises(TypeError, match=f"no such .*{', '.join(map(repr, wrong))}; expected"):
            fsspec.filesystem("xorbit", **wrong)
        with pytest.raises(TypeError, match="no such storage option"):
            fsspec.open(f"xorbit://{NOBODY}", **wrong)
    common = {"use_listings_cache": False, "max_paths": 5, "listings_expiry_time": 3}
    made = fsspec.filesystem(
        "xorbit", home="/nowhere", skip_instance_cache=True, batch_size=7, **common
    )
    assert type(made).from_json(made.to_json()).storage_options == made.storage_options


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            NoPeersError(NO_ADDRESS),
            'name one with bootstrap="HOST:PORT" (as a storage option)',
        ),
        (
            MisuseError("give neither --network nor --network-secret, or use another --home"),
            "give neither network nor network_secret, or use another home (as a storage option)",
        ),
        (MisuseError("no other--home is --homely"), "no other--home is --homely"),
    ],
)
def test_messages_name_storage_options(
    fs: FakeSystem, home: FakeHome, error: XorbitError, says: str
) -> None:
    """There is no command line where they are read."""
    home.fails_to_open.append(error)
    with pytest.raises(OSError, match=re.escape(says)):
        fs.info(NOBODY)


def test_names_with_blanks_at_their_ends_are_other_names(fs: FakeSystem, home: FakeHome) -> None:
    """What is found can be read by its path, whatever it is called."""
    held = {name: home.file(name.encode()) for name in ("a", "a ", " a", "a\n", " ", "a'")}
    top = home.directory({**held, "b ": home.directory(held)})
    found = fs.find(str(top))
    assert {path: data.decode() for path, data in fs.cat(found).items()} == {
        f"{top}/{folder}{name}": name for folder in ("", "b /") for name in held
    }


def test_what_is_found_once_is_not_asked_for_again(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    """Listing asks for no leaf; what a listing has told, and nodes, are remembered."""
    fs.find(top, detail=True)
    assert leaves_asked(home) == {}
    before = home.asked.total()
    assert before == len(home.asked)
    fs.find(top)
    fs.info(f"{top}/large")
    assert fs.exists(f"{top}/sub/deep/small")
    assert home.asked.total() == before


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{top}/none", "has no entry 'none'"),
        ("{top}/small/none", "is a file and has no entry"),
        ("{top}/link/none", "is a symbolic link"),
        ("{top}/../small", "it means a folder itself"),
        ("hello/small", "expected a name such as"),
        ("", "expected a name such as"),
        (NOBODY, "nobody has it"),
    ],
)
def test_what_is_not_there_is_not_found(fs: FakeSystem, top: str, path: str, says: str) -> None:
    path = path.format(top=top)
    assert not fs.exists(path)
    for use in (fs.info, fs.ls, fs.open, fs.cat_file):
        with pytest.raises(FileNotFoundError, match=says) as caught:
            use(path)
        assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, path)


def test_what_is_there_and_cannot_be_had_is_not_taken_for_missing(
    fs: FakeSystem, home: FakeHome, top: str
) -> None:
    """Whoever reads zeros for missing files must not read them for data that nobody holds now."""
    small = Cid(Codec.RAW, home.add(SMALL, Codec.RAW).key)
    home.lose(small)
    with pytest.raises(OSError, match="nobody has it") as caught:
        fs.cat_file(f"{top}/small")
    assert (type(caught.value), caught.value.errno) == (OSError, errno.EIO)
    home.lose(leaf(0))
    with fs.open(f"{top}/large") as file, pytest.raises(OSError, match="nobody has it"):
        file.read(1)
    with pytest.raises(OSError, match="nobody has it") as caught:
        fs.exists(f"{NOBODY.replace('bafkr', 'bafyb')}/small")
    assert caught.value.errno == errno.EIO


def test_a_part_that_cannot_be_had_is_not_taken_for_a_missing_file(
    fs: FakeSystem, home: FakeHome, tmp_path: Path
) -> None:
    """Nor where the file has a name of its own, without a path."""
    name = str(home.file(b"0123456789"))
    home.lose(home.add(b"89", Codec.RAW))
    names = {f"{number}": home.file(b"x") for number in range(2_000)}
    many = str(home.directory(names))
    for cid in [cid for cid in home.held if cid.codec is Codec.DAG_PB]:
        if str(cid) not in (name, many):
            home.lose(cid)
    for use in (
        lambda: fs.cat_file(name, 8, 9),
        lambda: fs.cat_ranges([name], [8], [9], on_error="raise"),
        lambda: fs.open(name).read(),
        lambda: fs.get_file(name, str(tmp_path / "file")),
        lambda: fs.ls(many),
    ):
        with pytest.raises(OSError, match="nobody has it") as caught:
            use()
        assert caught.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        (NoPeersError("nobody"), ConnectionError, errno.ENETUNREACH),
        (MisuseError("another network"), OSError, errno.EINVAL),
        (StoppedError("stopped"), ConnectionAbortedError, errno.ECONNABORTED),
        (WorldError("disk"), OSError, errno.EIO),
    ],
)
def test_errors_are_those_of_a_file_system(
    fs: FakeSystem, home: FakeHome, top: str, error: Any, kind: type[OSError], number: int
) -> None:
    home.fails_to_open = [error, error]
    with pytest.raises(kind, match=str(error)) as caught:
        fs.info(f"{top}/small")
    assert (type(caught.value), caught.value.errno) == (kind, number)
    assert type(caught.value.__cause__) is type(error)


def test_a_damaged_tree_is_an_error(fs: FakeSystem, home: FakeHome) -> None:
    lie = home.file_node([(home.add(b"12345678", Codec.RAW), 4)])
    top = home.directory({"file": lie})
    with pytest.raises(OSError, match="its parent says 4 bytes") as caught:
        fs.cat_file(f"{top}/file")
    assert caught.value.errno == errno.EBADMSG


def test_directories_and_links_are_not_read(fs: FakeSystem, top: str) -> None:
    with pytest.raises(IsADirectoryError):
        fs.open(f"{top}/sub")
    with pytest.raises(IsADirectoryError):
        fs.cat_file(f"{top}/sub")
    with pytest.raises(OSError, match="link to 'small', which is not followed"):
        fs.open(f"{top}/link")


def test_a_link_to_a_long_name_makes_no_long_message(fs: FakeSystem, home: FakeHome) -> None:
    link = home.take([build_symbolic_link("a" * 60_000)])
    top = home.directory({"link": link})
    with pytest.raises(OSError, match=r"link to 'a+\.\.\.', which is not followed") as caught:
        fs.open(f"{top}/link")
    assert len(str(caught.value)) < 1_000


def test_writing_is_refused(fs: FakeSystem, top: str) -> None:
    path = f"{top}/small"
    writes: list[Callable[[], object]] = [
        lambda: fs.open(path, "wb"),
        lambda: fs.open(path, "ab"),
        lambda: fs.open(path, "w"),
        lambda: fs.pipe(path, b""),
        lambda: fs.put_file(__file__, path),
        lambda: fs.cp_file(path, path),
        lambda: fs.rm(path),
        lambda: fs.rm_file(path),
        lambda: fs.mkdir(path),
        lambda: fs.makedirs(path),
        lambda: fs.rmdir(path),
        lambda: fs.touch(path),
    ]
    for write in writes:
        with pytest.raises(PermissionError, match="xorbit:// is read-only") as caught:
            write()
        assert caught.value.errno == errno.EROFS


# --- Keys ---------------------------------------------------------------------------------------


def test_a_public_key_names_its_newest_tree(home: FakeHome) -> None:
    """It is taken for the newest for a while, or until somebody says otherwise."""
    key = bytes(KEY.verify_key).hex()
    fs = home.system()
    old, new = (
        home.directory({"file": home.add(content, Codec.RAW)}) for content in (b"old", b"new")
    )
    with pytest.raises(FileNotFoundError, match="nobody has the record"):
        fs.info(key)
    with pytest.raises(OSError, match="nobody has the record") as caught:
        fs.info(f"{key}/file")
    assert caught.value.errno == errno.EIO
    home.publish(make_record(KEY, 1, pointer_to(old)))
    assert fs.cat_file(f"xorbit://{key}/file") == b"old"
    assert fs.ls(key, detail=False) == [f"{key}/file"]
    home.publish(make_record(KEY, 2, pointer_to(new)))
    assert fs.cat_file(f"xorbit://{key}/file") == b"old"
    fs.invalidate_cache()
    assert fs.cat_file(f"xorbit://{key}/file") == b"new"
    home.publish(make_record(KEY, 3, pointer_to(old)))
    assert fs.info(f"{key}/file")["cid"] != fs.ls(key, refresh=True)[0]["cid"]


def test_a_record_that_points_to_no_tree_any_more_says_nothing_of_paths(home: FakeHome) -> None:
    """To zarr a missing chunk is zeros, and with the next version these may be there again."""
    key = bytes(KEY.verify_key).hex()
    fs = home.system(listings_expiry_time=0)
    tree = home.directory({"0.0": home.add(b"chunk", Codec.RAW)})
    home.publish(make_record(KEY, 1, pointer_to(tree)))
    assert fs.cat_file(f"{key}/0.0") == b"chunk"
    home.publish(make_record(KEY, 2, b"release 2"))
    for use in (fs.cat_file, fs.info, fs.ls, fs.open):
        with pytest.raises(OSError, match="points to no tree") as caught:
            use(f"{key}/0.0")
        assert caught.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError, match="points to no tree"):
        fs.info(key)


def test_how_long_a_version_counts_can_be_said(home: FakeHome) -> None:
    key = bytes(KEY.verify_key).hex()
    fs = home.system(listings_expiry_time=0)
    for seq, content in enumerate((b"old", b"new")):
        tree = home.directory({"file": home.add(content, Codec.RAW)})
        home.publish(make_record(KEY, seq, pointer_to(tree)))
        assert fs.cat_file(f"{key}/file") == content
