"""A contact sheet: scenes with their questions and answers, for a person to look at."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from saccade.data.scenes.scene import Scene
from saccade.errors import DataError

_CELL_WIDTH = 330
_PICTURE_SIDE = 314
_MARGIN = 8
_LINE = 14
_WRAP = 52


def contact_sheet(scenes: Sequence[Scene], columns: int) -> Image.Image:
    """Lay scenes out in columns, each picture above its caption, questions and answers.

    Raises:
        DataError: There is nothing to lay out, or no column to lay it in.
    """
    if not scenes or columns < 1:
        raise DataError(f"a contact sheet needs a scene and a column, not {len(scenes)} and {columns}")
    cells = [_cell(scene) for scene in scenes]
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    sheet = Image.new("RGB", (columns * _CELL_WIDTH, sum(max(cell.height for cell in row) for row in rows)), "white")
    top = 0
    for row in rows:
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * _CELL_WIDTH, top))
        top += max(cell.height for cell in row)
    return sheet


def _cell(scene: Scene) -> Image.Image:
    lines = [f"{scene.family} {scene.split} {scene.index}", *textwrap.wrap(scene.caption, _WRAP)]
    for question in scene.questions:
        wrong = f", not {question.wrong}" if question.wrong else ""
        lines += textwrap.wrap(f"{question.text} > {question.answer}{wrong}", _WRAP)
    picture = Image.fromarray(scene.image)
    enlarged = max(1, _PICTURE_SIDE // max(picture.size))
    picture = picture.resize((picture.width * enlarged, picture.height * enlarged), Image.Resampling.NEAREST)
    cell = Image.new("RGB", (_CELL_WIDTH, picture.height + len(lines) * _LINE + 3 * _MARGIN), "white")
    cell.paste(picture, (_MARGIN, _MARGIN))
    ink = ImageDraw.Draw(cell)
    font = ImageFont.load_default(size=11)
    for number, line in enumerate(lines):
        ink.text((_MARGIN, picture.height + 2 * _MARGIN + number * _LINE), line, fill="black", font=font)
    return cell
