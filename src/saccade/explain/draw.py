"""One page: the picture under the weights of each panel, and the question's words shaded by how much they were read.

Letters come from Pillow's own font, which knows the Latin alphabet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.explain.colors import heat, lightness
from saccade.explain.maps import Box, to_map
from saccade.explain.marks import hatch, outline

Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_PAGE, _INK, _DIM = (18, 18, 23), (240, 240, 245), (152, 152, 166)
_WIDTH, _MARGIN, _GAP = 960, 36, 20
_TOP_COLUMNS, _QUERY_COLUMNS = 3, 5
_FEW_COLUMNS = {1: 2, 2: 2, 4: 4}  # where so many large panels would fill rows of three badly
_TALLEST = 1.25  # of a panel's width
_LARGE, _TEXT, _SMALL = 25, 17, 14
_SCALE_WIDTH, _SCALE_HEIGHT = 160, 10
_OUTLINE, _BRIGHTEST = 1.5, 90  # how strongly the picture's outlines are drawn under a map, and at most in 0..255
_TINY = 1e-12  # in place of a peak of 0


@dataclass(frozen=True, eq=False)
class Panel:
    """One view of the picture.

    Attributes:
        title: What it shows.
        note: A second, smaller line.
        weights: `[views, grid, grid]` to lay on the picture; None shows the picture alone.
        lines: Boxes to draw a line around, in pixels of the picture.
        shared: Boxes to hatch where two or more of them overlap, in pixels of the picture.
    """

    title: str
    note: str
    weights: NDArray[np.float32] | None = None
    lines: Sequence[Box] = ()
    shared: Sequence[Box] = ()


def draw_page(
    picture: Image.Image,
    boxes: Sequence[Box],
    heading: tuple[str, str],
    top: Sequence[Panel],
    small: Sequence[Panel],
    words: Sequence[tuple[str, float]],
    notes: Sequence[str] = (),
) -> Image.Image:
    """Draw a page.

    Args:
        picture: The picture, RGB.
        boxes: What the patches of each view cover, in pixels of the picture.
        heading: The question and the answer.
        top: Panels drawn large.
        small: Panels drawn small below them.
        words: Words with their weights.
        notes: Lines at the foot of the page.
    """
    heads = [_lines(heading[0], _LARGE, _INK), _lines(heading[1], _LARGE, _shade(0.75))]
    parts = [
        *heads,
        _panels(picture, boxes, top, _FEW_COLUMNS.get(len(top), _TOP_COLUMNS)),
        *([_panels(picture, boxes, small, _QUERY_COLUMNS)] if small else []),
        *([_words(words)] if words else []),
        _scale(),
        *(_lines(note, _SMALL, _DIM) for note in notes),
    ]
    gaps = [_GAP // 2, *([_GAP] * (len(parts) - 1))]
    height = sum(part.height for part in parts) + sum(gaps[: len(parts) - 1])
    page = Image.new("RGB", (_WIDTH + 2 * _MARGIN, height + 2 * _MARGIN), _PAGE)
    y = _MARGIN
    for part, gap in zip(parts, gaps, strict=True):
        page.paste(part, (_MARGIN, y))
        y += part.height + gap
    return page


def overlay(
    picture: Image.Image, boxes: Sequence[Box], weights: NDArray[np.float32], size: tuple[int, int]
) -> Image.Image:
    """Lay weights `[views, grid, grid]` on the picture's outlines at `size`; the brightest color is their peak.

    Where the picture is even, the colors are those of the scale.
    """
    laid = to_map(weights, _scaled(boxes, picture, size), *size)
    strength = laid / max(float(laid.max()), _TINY)
    lines = _outlines(np.asarray(picture.resize(size), dtype=np.float64))[..., None]
    # Light upon light ("screen"): where the picture is the same, more weight is always lighter.
    return Image.fromarray((lines + heat(strength) * (1 - lines / 255)).round().astype(np.uint8))


def _scaled(boxes: Sequence[Box], picture: Image.Image, size: tuple[int, int]) -> list[Box]:
    """Bring boxes in pixels of the picture to a panel of `size`."""
    across, down = size[0] / picture.width, size[1] / picture.height
    return [(left * across, top * down, right * across, bottom * down) for left, top, right, bottom in boxes]


def _outlines(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how steeply pixels `[height, width, 3]` change, `[height, width]`."""
    steps = [np.gradient(pixels, axis=axis) for axis in (0, 1) if pixels.shape[axis] > 1]  # across one pixel: nothing
    steep: NDArray[np.float64] = np.sqrt(sum((step**2 for step in steps), np.zeros(pixels.shape))).max(axis=-1)
    return (_OUTLINE * steep).clip(max=_BRIGHTEST)


def _panels(picture: Image.Image, boxes: Sequence[Box], panels: Sequence[Panel], columns: int) -> Image.Image:
    """Lay panels out in columns, each below its title and note."""
    width = (_WIDTH - (columns - 1) * _GAP) // columns
    factor = min(width / picture.width, _TALLEST * width / picture.height)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    head = _line_height(_TEXT) + _line_height(_SMALL) + _GAP // 4
    rows = -(-len(panels) // columns)
    block = Image.new("RGB", (_WIDTH, rows * (head + size[1]) + (rows - 1) * _GAP), _PAGE)
    ink = ImageDraw.Draw(block)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        x, y = column * (width + _GAP), row * (head + size[1] + _GAP)
        ink.text((x, y), panel.title, fill=_INK, font=_font(_TEXT))
        ink.text((x, y + _line_height(_TEXT)), panel.note, fill=_DIM, font=_font(_SMALL))
        shown = picture.resize(size) if panel.weights is None else overlay(picture, boxes, panel.weights, size)
        shown = hatch(shown, _scaled(panel.shared, picture, size))
        block.paste(outline(shown, _scaled(panel.lines, picture, size)), (x, y + head))
    return block


def _words(words: Sequence[tuple[str, float]]) -> Image.Image:
    """Draw words on chips shaded by their weights, which stand below them, wrapped to the page.

    A word that is broken has its weight below its first piece.
    """
    pad, font = _GAP // 2, _font(_LARGE)
    title = "words of the question, by how much the queries read them"
    chip, head = _line_height(_LARGE) + pad, _line_height(_TEXT) + pad
    step = chip + _line_height(_SMALL) + pad
    peak = max(*(weight for _, weight in words), _TINY)
    placed: list[tuple[str, str, float, int, int, int]] = []
    x = row = 0
    for word, weight in words:
        for number, piece in enumerate(_broken(word, font, _WIDTH - 2 * pad)):
            width = max(round(font.getlength(piece)), round(_font(_SMALL).getlength("100%"))) + 2 * pad
            if x and x + width > _WIDTH:
                x, row = 0, row + 1
            placed.append((piece, "" if number else f"{weight:.0%}", weight, x, row, width))
            x += width + pad // 2
    block = Image.new("RGB", (_WIDTH, head + (row + 1) * step), _PAGE)
    ink = ImageDraw.Draw(block)
    ink.text((0, 0), title, fill=_INK, font=_font(_TEXT))
    for word, label, weight, x, row, width in placed:
        color, y = _shade(weight / peak), head + row * step
        letters = _PAGE if lightness(np.array(color)) > 127 else _INK
        ink.rounded_rectangle((x, y, x + width, y + chip), radius=pad // 2, fill=color, outline=_shade(0.3))
        ink.text((x + width / 2, y + chip / 2), word, fill=letters, font=font, anchor="mm")
        ink.text((x + width / 2, y + chip + 3), label, fill=_DIM, font=_font(_SMALL), anchor="ma")
    return block


def _scale() -> Image.Image:
    """Draw what the colors mean."""
    block = Image.new("RGB", (_WIDTH, _line_height(_SMALL)), _PAGE)
    ramp = heat(np.linspace(0, 1, _SCALE_WIDTH))[None].repeat(_SCALE_HEIGHT, axis=0)
    ink = ImageDraw.Draw(block)
    left = round(ink.textlength("nothing", font=_font(_SMALL))) + _GAP // 2
    middle = block.height // 2
    ink.text((0, middle), "nothing", fill=_DIM, font=_font(_SMALL), anchor="lm")
    block.paste(Image.fromarray(ramp.round().astype(np.uint8)), (left, middle - _SCALE_HEIGHT // 2))
    text = "the highest weight of each panel, and of the words"
    ink.text((left + _SCALE_WIDTH + _GAP // 2, middle), text, fill=_DIM, font=_font(_SMALL), anchor="lm")
    return block


def _lines(text: str, size: int, color: Color) -> Image.Image:
    """Draw text, wrapped to the page."""
    font, lines = _font(size), [""]
    for piece in (piece for word in text.split() for piece in _broken(word, font, _WIDTH)):
        longer = f"{lines[-1]} {piece}".strip()
        if lines[-1] and font.getlength(longer) > _WIDTH:
            lines.append(piece)
        else:
            lines[-1] = longer
    block = Image.new("RGB", (_WIDTH, len(lines) * _line_height(size)), _PAGE)
    ImageDraw.Draw(block).multiline_text((0, 0), "\n".join(lines), fill=color, font=font)
    return block


def _broken(word: str, font: Font, width: int) -> list[str]:
    """Break a word that is wider than `width` pixels into pieces that are not."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


@cache
def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)


def _line_height(size: int) -> int:
    return round(1.35 * size)


def _shade(value: float) -> Color:
    red, green, blue = heat(np.array(value)).round().astype(int).tolist()
    return red, green, blue
