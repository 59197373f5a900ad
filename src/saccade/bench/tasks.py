"""Fixed lists of what is asked, and the pictures for them."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from saccade.bench.subjects import Pixels

COARSE = 24  # cells along each side of the smooth part of a picture
GRAIN = 12  # levels by which pixels differ from it, as in a photograph
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Ask:
    """One question about one picture.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        text_tokens: Tokens of the prompt that are neither visual nor query tokens.
    """

    width: int
    height: int
    text_tokens: int


@dataclass(frozen=True)
class Task:
    """A list of questions under one name."""

    name: str
    asks: tuple[Ask, ...]


def picture(width: int, height: int, seed: int) -> Pixels:
    """Draw a picture `[height, width, 3]` that is as hard to decode and resize as a photograph: smooth, with grain."""
    rng = np.random.default_rng((seed, width, height))
    coarse = Image.fromarray(rng.integers(0, 256, (COARSE, COARSE, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    grainy = smooth + rng.integers(-GRAIN, GRAIN + 1, smooth.shape, dtype=np.int16)
    return grainy.clip(0, 255).astype(np.uint8)


def encoded(pixels: Pixels) -> bytes:
    """Return a picture as the bytes of a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
