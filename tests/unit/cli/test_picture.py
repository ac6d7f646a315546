"""The demo's picture."""

from io import BytesIO

import pytest
from PIL import Image

from xorbit.cli.picture import paint
from xorbit.items import BLOCK_BYTES_MAX


@pytest.fixture(scope="module")
def painted() -> bytes:
    return paint()


def test_is_what_the_demo_says_it_is(painted: bytes) -> None:
    """It is a WebP picture of 1200x800 that a decoder reads to its end, and colourful."""
    picture = Image.open(BytesIO(painted))
    picture.load()
    assert (picture.format, picture.size) == ("WEBP", (1200, 800))
    assert picture.getcolors(maxcolors=10_000) is None


def test_has_the_size_of_a_real_picture_and_fits_in_a_block(painted: bytes) -> None:
    """It has tens of kilobytes, as pictures of that size do, and one block holds it."""
    assert 20_000 < len(painted) <= BLOCK_BYTES_MAX


def test_another_seed_paints_another_picture(painted: bytes) -> None:
    """The seed decides: the same paints the same bytes, another one others."""
    assert paint(2) == paint(2) != painted
