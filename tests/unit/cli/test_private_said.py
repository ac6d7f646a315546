"""Names of private content on the command line: nothing that is said has their key."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Command
from xorbit.cli.output import ExitCode
from xorbit.cli.tracing import Recorder, recorded_tree
from xorbit.files.local_tree import cid_of
from xorbit.files.seal_key import SealKey

KEY = SealKey(bytes(range(32)), is_node=True).text
NAME = f"xorbit://{cid_of(b'sealed')}#{KEY}"


@pytest.mark.parametrize(
    "line",
    [
        ("mirror", NAME, "folder"),
        ("resolve", NAME),
        ("follow", NAME),
        ("publish", NAME, "value"),
        ("put", NAME),
        ("cid", NAME),
        ("import", NAME),
        ("lookup", NAME),
        ("whereis", NAME),
        ("ping", NAME),
        ("get", f"{NAME}/.."),
        ("get", NAME, "--salt", "a"),
        ("get", f"--name={NAME}"),
        ("key", "show", NAME),
    ],
)
def test_what_is_wrong_is_said_without_the_key(
    xorbit: Command, tmp_path: Path, line: tuple[str, ...]
) -> None:
    ran = xorbit(*line, "--home", tmp_path)
    assert ran.code == ExitCode.MISUSE
    assert ran.err
    assert KEY[:20] not in ran.out + ran.err


@pytest.mark.parametrize(
    "name",
    [
        NAME[:-1],
        NAME + "a",
        NAME.upper(),
        NAME.replace("#", "%23"),
        NAME.replace("#", "# "),
        NAME.replace("#", "?"),
    ],
)
@pytest.mark.parametrize(
    "line",
    [
        "get {}",
        "ls {}",
        "pin {}",
        "unpin {}",
        "put {}",
        "cid {}",
        "import {}",
        "mirror {} folder",
        "resolve {}",
        "lookup {}",
        "ping {}",
        "publish {} value",
        "key new {}",
        "key show {}",
        "{}",
    ],
)
def test_nor_with_a_key_that_was_mistyped(
    xorbit: Command, tmp_path: Path, line: str, name: str
) -> None:
    """Cut, too long, in upper case, or the mark written as another; also where no command is."""
    ran = xorbit(*(word.replace("{}", name) for word in line.split()), "--home", tmp_path)
    assert ran.code
    assert ran.err
    assert KEY[:20] not in (ran.out + ran.err).lower()


def test_nor_has_the_title_of_what_was_followed() -> None:
    tree = recorded_tree(Recorder(wanted=True, json=False), f"put {NAME[:-1]}")
    assert "#...: " in str(tree.label)


@pytest.mark.parametrize("line", [("mirror", NAME, "folder"), ("resolve", NAME), ("follow", NAME)])
def test_private_content_stands_under_no_public_key(
    xorbit: Command, tmp_path: Path, line: tuple[str, ...]
) -> None:
    assert "names private content" in xorbit(*line, "--home", tmp_path).err


def test_private_trees_are_not_published(xorbit: Command, tmp_path: Path) -> None:
    """A record is read by everybody, so it cannot have the key."""
    ran = xorbit("publish", "me", "--tree", tmp_path, "--encrypt", "--home", tmp_path)
    assert ran.code == ExitCode.MISUSE
    assert "xorbit put --encrypt" in ran.err
