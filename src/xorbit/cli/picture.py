"""The demo's picture: a planet with its orbits and moons, over hills, in a night of stars.

Pure drawing: nothing is read, nothing is written, and the same seed paints the same picture.
"""

# Pillow's own annotations name types of NumPy, which is not installed.
# pyright: reportUnknownMemberType=false

from io import BytesIO
from itertools import pairwise
from math import cos, radians, sin
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

WIDTH, HEIGHT, QUALITY = 1200, 800, 80
SIZE = (WIDTH, HEIGHT)
SMOOTH = 2
"""Shapes are drawn this many times larger and shrunk, which smooths their edges."""

Rgb = tuple[int, int, int]
Stops = tuple[tuple[float, Rgb], ...]
"""Colours with the place of each, 0..1."""

SKY: Stops = (
    (0.0, (7, 9, 26)),
    (0.4, (26, 24, 66)),
    (0.66, (92, 48, 108)),
    (0.82, (214, 104, 98)),
    (1.0, (255, 190, 124)),
)
SURFACE: Stops = (
    (0.0, (58, 38, 92)),
    (0.4, (190, 98, 110)),
    (0.62, (244, 184, 134)),
    (1.0, (255, 236, 204)),
)
CENTRE_X, CENTRE_Y, RADIUS = 690, 318, 168
TILT_DEGREES = 16
ORBITS = ((290, 60, 38), (376, 92, 158), (474, 134, 74))
"""Half the width, half the height, and where the moon stands, degrees."""


def paint(seed: int = 1) -> bytes:
    """Return the picture as WebP, 1200x800 at quality 80."""
    rng = Random(seed)  # noqa: S311 - paints, keeps no secret
    picture = ImageChops.screen(_gradient(SKY, *SIZE), _nebula(rng))
    picture = ImageChops.screen(picture, _stars(rng))
    picture = ImageChops.screen(picture, _orbits(behind=True))
    picture = _with_planet(picture, rng)
    picture = ImageChops.screen(picture, _orbits(behind=False))
    picture = _with_hills(picture, rng)
    out = BytesIO()
    _with_grain(picture, rng).save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()


# --- Colours ------------------------------------------------------------------------------------


def _colour(stops: Stops, at: float) -> Rgb:
    for (low, first), (high, second) in pairwise(stops):
        if at <= high:
            share = (at - low) / (high - low)
            red, green, blue = (
                round(a + share * (b - a)) for a, b in zip(first, second, strict=True)
            )
            return red, green, blue
    return stops[-1][1]


def _gradient(stops: Stops, width: int, height: int) -> Image.Image:
    """Return colours that change from the top to the bottom."""
    column = Image.new("RGB", (1, height))
    for row in range(height):
        column.putpixel((0, row), _colour(stops, row / (height - 1)))
    return column.resize((width, height))


def _coloured(grey: Image.Image, stops: Stops) -> Image.Image:
    """Return a grey image with each grey replaced by the colour that stands for it."""
    table = [_colour(stops, level / 255) for level in range(256)]
    return Image.merge("RGB", [grey.point([rgb[band] for rgb in table]) for band in range(3)])


def _tinted(grey: Image.Image, tint: Rgb) -> Image.Image:
    return _coloured(grey, ((0.0, (0, 0, 0)), (1.0, tint)))


def _clouds(rng: Random, size: tuple[int, int], columns: int, rows: int) -> Image.Image:
    """Return soft grey noise: random dots of ever smaller sizes, over each other."""
    clouds = Image.new("L", size, 128)
    for strength in (1.0, 0.45, 0.26, 0.16, 0.1):
        dots = Image.frombytes("L", (columns, rows), rng.randbytes(columns * rows))
        clouds = Image.blend(clouds, dots.resize(size, Image.Resampling.BICUBIC), strength)
        columns, rows = columns * 2, rows * 2
    return clouds


# --- The sky ------------------------------------------------------------------------------------


def _nebula(rng: Random) -> Image.Image:
    fade = Image.linear_gradient("L").resize(SIZE).point([255 - level for level in range(256)])
    layers = [
        _tinted(_veil(_clouds(rng, SIZE, *grid), fade), tint)
        for grid, tint in (((5, 4), (122, 58, 170)), ((7, 5), (20, 92, 120)))
    ]
    return ImageChops.screen(*layers)


def _veil(clouds: Image.Image, fade: Image.Image) -> Image.Image:
    thick = clouds.point([min(255, max(0, level - 96) * 2) for level in range(256)])
    return ImageChops.multiply(thick, fade)


def _stars(rng: Random) -> Image.Image:
    sky = Image.new("RGB", SIZE)
    pen = ImageDraw.Draw(sky)
    for _ in range(1_000):
        x, y = rng.randrange(WIDTH), int(HEIGHT * 0.8 * rng.random() ** 1.3)
        light, warm = int(50 + 205 * rng.random() ** 3), rng.randrange(-20, 20)
        pen.point((x, y), (min(255, light + warm), light, min(255, light - warm)))
        if light > 232:
            pen.ellipse((x - 1, y - 1, x + 1, y + 1), (light, light, 255))
    glow = sky.filter(ImageFilter.GaussianBlur(3))
    return ImageChops.screen(sky, ImageChops.add(glow, glow))


# --- The planet ---------------------------------------------------------------------------------


def _with_planet(picture: Image.Image, rng: Random) -> Image.Image:
    side = 2 * RADIUS
    corner = (CENTRE_X - RADIUS, CENTRE_Y - RADIUS)
    disc = Image.new("L", (side * SMOOTH, side * SMOOTH))
    ImageDraw.Draw(disc).ellipse((0, 0, side * SMOOTH - 1, side * SMOOTH - 1), 255)
    mask = disc.resize((side, side), Image.Resampling.LANCZOS)
    halo = Image.new("L", SIZE)
    halo.paste(mask, corner)
    halo = halo.filter(ImageFilter.GaussianBlur(34))
    picture = ImageChops.screen(picture, _tinted(halo, (150, 92, 120)))
    picture.paste(_planet(rng, side), corner, mask)
    return picture


def _planet(rng: Random, side: int) -> Image.Image:
    square = (side, side)
    bands = Image.blend(_clouds(rng, square, 1, 8), _clouds(rng, square, 3, 9), 0.4)
    surface = _coloured(bands.rotate(-TILT_DEGREES, Image.Resampling.BICUBIC), SURFACE)
    # Light falls from the upper left: the middle of the shade lies there.
    shade = Image.radial_gradient("L").resize((2 * side, 2 * side))
    shade = shade.crop((side * 5 // 8, side * 5 // 8, side * 13 // 8, side * 13 // 8))
    light = shade.point([max(8, min(255, 380 - 3 * level)) for level in range(256)])
    return ImageChops.multiply(surface, Image.merge("RGB", [light] * 3))


def _orbits(*, behind: bool) -> Image.Image:
    """Return the halves of the orbits that the planet hides, or the others with their moons."""
    image = Image.new("RGB", (WIDTH * SMOOTH, HEIGHT * SMOOTH))
    pen = ImageDraw.Draw(image)
    for wide, high, degrees in ORBITS:
        start, colour = (180, (70, 74, 110)) if behind else (0, (150, 150, 190))
        pen.arc(_box(CENTRE_X, CENTRE_Y, wide, high), start, start + 180, colour, 2 * SMOOTH)
        if not behind:
            x = CENTRE_X + wide * cos(radians(degrees))
            y = CENTRE_Y + high * sin(radians(degrees))
            for radius, light in ((14, 60), (10, 190), (6, 250)):
                pen.ellipse(_box(x, y, radius, radius), (light, light, min(255, light + 20)))
    centre = (CENTRE_X * SMOOTH, CENTRE_Y * SMOOTH)
    turned = image.rotate(TILT_DEGREES, Image.Resampling.BICUBIC, center=centre)
    return turned.resize(SIZE, Image.Resampling.LANCZOS)


def _box(x: float, y: float, wide: float, high: float) -> tuple[float, float, float, float]:
    left, top, right, bottom = x - wide, y - high, x + wide, y + high
    return left * SMOOTH, top * SMOOTH, right * SMOOTH, bottom * SMOOTH


# --- The ground ---------------------------------------------------------------------------------


def _with_hills(picture: Image.Image, rng: Random) -> Image.Image:
    for base, rise, colour in (
        (690, 90, (104, 52, 92)),
        (735, 74, (58, 32, 70)),
        (775, 60, (20, 16, 38)),
    ):
        ridge = _clouds(rng, (WIDTH, 1), 4, 1).tobytes()
        tops = [(x, base - rise * level // 255) for x, level in enumerate(ridge)]
        ImageDraw.Draw(picture).polygon([(0, HEIGHT), *tops, (WIDTH, HEIGHT)], colour)
    return picture


def _with_grain(picture: Image.Image, rng: Random) -> Image.Image:
    """Return the picture as a camera would see it at night: with a little noise everywhere."""
    grain = Image.frombytes("L", SIZE, rng.randbytes(WIDTH * HEIGHT))
    soft = grain.filter(ImageFilter.GaussianBlur(0.8))
    return Image.blend(picture, Image.merge("RGB", [soft] * 3), 0.06)
