"""Draw the glyph atlas of the rendered world from fonts that matplotlib bundles.

Needs matplotlib (for the font files) and Pillow; run it from the root of the repository. DejaVu (Bitstream Vera
licence) and STIX (SIL Open Font License 1.1) both allow pictures of their glyphs to be shared freely.
"""

import string
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

ASSETS = Path("src/saccade/data/scenes/assets")
TRAIN_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralItalic",
)
SHIFTED_FONTS = ("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono-BoldOblique", "STIXGeneralBol")
CHARACTERS = string.digits + string.ascii_uppercase + string.ascii_lowercase
EM = 40
CELL = 60
BASELINE = 44
ORIGIN = 11
LEVELS = 16


def draw(font: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """One glyph as uint8 `[CELL, CELL]`, its origin at (ORIGIN, BASELINE), in LEVELS grays so that it packs well."""
    cell = Image.new("L", (CELL, CELL))
    ImageDraw.Draw(cell).text((ORIGIN, BASELINE), character, fill=255, font=font, anchor="ls")
    pixels = np.asarray(cell)
    if pixels[0].any() or pixels[-1].any() or pixels[:, 0].any() or pixels[:, -1].any():
        raise SystemExit(f"{font.getname()}: {character!r} does not fit its cell")
    return np.rint(pixels * ((LEVELS - 1) / 255)).astype(np.uint8)


def main() -> None:
    """Draw every character in every font and store cells, advances and names."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    names = TRAIN_FONTS + SHIFTED_FONTS
    cells = np.zeros((len(names), len(CHARACTERS), CELL, CELL), dtype=np.uint8)
    advances = np.zeros((len(names), len(CHARACTERS)), dtype=np.float32)
    for row, name in enumerate(names):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), EM, layout_engine=ImageFont.Layout.BASIC)
        missing = draw(font, "\uffff")
        for column, character in enumerate(CHARACTERS):
            cells[row, column] = draw(font, character)
            advances[row, column] = font.getlength(character)
            if not cells[row, column].any() or (cells[row, column] == missing).all():
                raise SystemExit(f"{name} has no glyph for {character!r}")
    np.savez_compressed(
        ASSETS / "glyphs.npz",
        cells=cells,
        advances=advances,
        fonts=np.array(names),
        shifted=np.array([name in SHIFTED_FONTS for name in names]),
        characters=np.array(list(CHARACTERS)),
        baseline=np.array(BASELINE),
        origin=np.array(ORIGIN),
        levels=np.array(LEVELS),
    )
    print(f"{cells.shape} glyphs, {(ASSETS / 'glyphs.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
