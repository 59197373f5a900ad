"""Frames of a video, shown as pictures in order: which of them, so that their visual tokens fit a budget."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from saccade.errors import ImageError, PromptError, SaccadeWarning
from saccade.vlm.inputs import CutImage, EncodedImage, Picture

if TYPE_CHECKING:
    from saccade.vlm.answers import Stopwatch
    from saccade.vlm.vlm import VLM


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return the indices in the middle of `count` equal parts of `total` things, at most as many as there are."""
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def choose_frames(
    vlm: VLM,
    frames: Iterable[Picture],
    max_visual_tokens: int,
    *,
    stopwatch: Stopwatch | None = None,
    stacklevel: int = 2,
) -> list[EncodedImage]:
    """Encode as many frames as fit a budget, evenly spaced over the video and in order.

    A frame costs the visual tokens of a picture of its size. The first one is always decoded, because it tells the
    cost; the others that are left out are not. A SaccadeWarning says how many are shown. What is returned can be shown
    in any turn of a conversation.

    Args:
        vlm: Whose tower encodes them.
        frames: The frames of one video, oldest first; as one array, `[frames, height, width, 3 or 4]`.
        max_visual_tokens: Most visual tokens of all frames together.
        stopwatch: Measures the stages.
        stacklevel: Whose line the warning names, as in `warnings.warn`.

    Raises:
        ImageError: when there is no list of frames, none in it, one cannot be read, or they do not all cost the same.
        PromptError: when not even one frame fits.
    """
    frames = _listed(frames)

    def opened(frame: Picture) -> tuple[EncodedImage | CutImage, int]:
        shown = frame if isinstance(frame, EncodedImage) else vlm.cut(frame, stopwatch=stopwatch)
        return shown, vlm.processor.image_processor.num_image_tokens(*shown.size)

    first = opened(frames[0])
    cost = first[1]
    count = min(len(frames), max_visual_tokens // cost)
    if count < 1:
        raise PromptError(
            f"a frame takes {cost} visual tokens, more than max_visual_tokens {max_visual_tokens}: allow more"
        )
    if count < len(frames):
        warnings.warn(
            f"{count} of {len(frames)} frames are shown, evenly spaced: each takes {cost} visual tokens, and "
            f"max_visual_tokens is {max_visual_tokens}",
            SaccadeWarning,
            stacklevel=stacklevel,
        )
    chosen = {index: opened(frames[index]) if index else first for index in evenly_spaced(len(frames), count)}
    for index, (shown, tokens) in chosen.items():
        if tokens != cost:
            width, height = shown.size
            raise ImageError(
                f"frame {index}, {width} x {height} pixels, takes {tokens} visual tokens but frame 0 takes {cost}: "
                "give frames of one size"
            )
    return vlm.encode_batch([shown for shown, _ in chosen.values()], stopwatch=stopwatch)


def _listed(frames: Iterable[Picture]) -> list[Picture]:
    """Return the frames of a video as a list; raise ImageError where one picture or file is given, or none."""
    one_array = isinstance(frames, np.ndarray) and frames.ndim < 4
    if one_array or isinstance(frames, str | bytes | PathLike | Image.Image | EncodedImage):
        raise ImageError(
            f"one {type(frames).__name__} is no list of frames: decode the video first and give a list of pictures, or "
            "an array [frames, height, width, 3 or 4]"
        )
    listed = list(frames)
    if not listed:
        raise ImageError("there is no frame: give at least one picture")
    return listed
