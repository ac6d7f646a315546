"""Names and link targets of strangers: none of them can leave the folder that they are for."""

import posixpath

import pytest

from xorbit.errors import FormatError
from xorbit.files.names import check_file_name, check_name, check_target, name_problem, shown


@pytest.mark.parametrize("name", ["a", "...", ".hidden", "ä", "a\\b", "C:", " ", "\n", "-rf", "~"])
def test_names(name: str) -> None:
    """Whatever POSIX allows as a name of a file is one."""
    assert check_name(name) == name
    assert check_file_name(name, frozenset("/")) == name
    assert name_problem(name) is None


@pytest.mark.parametrize("name", [None, "", ".", "..", "/", "a/b", "/etc/passwd", "../x", "a\0b"])
def test_no_names(name: str | None) -> None:
    """What means another folder, or none, is no name."""
    with pytest.raises(FormatError, match="a directory names an entry"):
        check_name(name)
    if name is not None:
        with pytest.raises(FormatError):
            check_file_name(name)


@pytest.mark.parametrize("letter", ["a", "ä", "\U0001f600"])
def test_names_are_as_long_as_a_file_system_takes(letter: str) -> None:
    """Counted in bytes; what is longer would be found out only when it is written."""
    longest = letter * (255 // len(letter.encode()))
    assert check_file_name(longest) == longest
    assert check_name(longest + letter) == longest + letter
    with pytest.raises(FormatError, match="cannot be written here: it has more than 255 bytes"):
        check_file_name(longest + letter)


def test_separators_of_other_systems() -> None:
    """Where a backslash separates folders too, no file may have one in its name."""
    with pytest.raises(FormatError, match=r"cannot be written here: it has a \\ in it"):
        check_file_name("..\\x", frozenset("/\\"))


@pytest.mark.parametrize(
    ("target", "folders"),
    [
        ("a", 0), ("a/b", 0), ("./a//b/.", 0), (".", 0), ("..", 1), ("../a", 1), ("./.././a", 1),
        ("../../a", 2), ("../a", 5), ("...", 0), ("a/..b", 0), ("a" * 4_095, 0), ("\udcff", 0),
    ],
)  # fmt: skip
def test_targets(target: str, folders: int) -> None:
    """A target inside the tree may be written, in every spelling of it."""
    assert check_target(target, folders) == target


@pytest.mark.parametrize(
    ("target", "folders", "problem"),
    [
        ("", 0, "no path"),
        ("a\0b", 0, "no path"),
        ("a" * 4_096, 0, "more than 4,095 bytes"),
        ("ä" * 2_048, 0, "more than 4,095 bytes"),
        ("/etc/passwd", 9, "absolute"),
        ("//x", 0, "absolute"),
        ("..", 0, "outside"),
        ("../a", 0, "outside"),
        ("./../a", 0, "outside"),
        ("../../a", 1, "outside"),
        ("a/../../b", 0, "at its start only"),
        ("a/..", 3, "at its start only"),
        ("../a/../b", 3, "at its start only"),
    ],
)
def test_no_targets(target: str, folders: int, problem: str) -> None:
    """A target that leads outside, or could by way of another link, is refused."""
    with pytest.raises(FormatError, match=problem):
        check_target(target, folders)


def test_link_through_a_link(tmp_path) -> None:
    """What looks harmless as text may leave by way of another link, and is refused for that."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").mkdir()
    (tmp_path / "out" / "deep" / "up").symlink_to("..")
    assert posixpath.normpath("deep/up/../x") == "deep/x"  # inside, by its text
    assert (tmp_path / "out" / "deep/up/..").resolve() == tmp_path  # but not on a disk
    with pytest.raises(FormatError):
        check_target("deep/up/../x", 0)


def test_shown() -> None:
    """A name in a message is short and has no control characters."""
    assert shown("\x1b[2J") == r"'\x1b[2J'"
    assert len(shown("x" * 1_000)) < 100
