"""Frames of a video, shown as pictures in order: which of them, so that their visual tokens fit a budget."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

from saccade.errors import ImageError, PromptError, SaccadeWarning
from saccade.vlm.inputs import CutImage, EncodedImage, Picture

if TYPE_CHECKING:
    from saccade.vlm.answers import Stopwatch
    from saccade.vlm.vlm import VLM


def evenly_spaced(total: int, count: int) -> list[int]:
    """Return the indices in the middle of `count` equal parts of `total` things, at most as many as there are."""
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def choose_frames(
    vlm: VLM, frames: Iterable[Picture], max_visual_tokens: int, *, stopwatch: Stopwatch | None = None
) -> list[EncodedImage]:
    """Encode as many frames as fit a budget, evenly spaced over the video and in order.

    A frame costs the visual tokens of a picture of its size. Frames that are left out are not decoded, and a
    SaccadeWarning says how many are shown. What is returned can be shown in any turn of a conversation.

    Args:
        vlm: Whose tower encodes them.
        frames: The frames of one video, oldest first.
        max_visual_tokens: Most visual tokens of all frames together.
        stopwatch: Measures the stages.

    Raises:
        ImageError: when there is no frame, one cannot be read, or they do not all cost the same.
        PromptError: when not even one frame fits.
    """
    if isinstance(frames, str | bytes | PathLike):
        raise ImageError("the frames are given as one file: decode the video first and give a list of pictures")
    frames = list(frames)
    if not frames:
        raise ImageError("there is no frame: give at least one picture")

    def opened(frame: Picture) -> tuple[EncodedImage | CutImage, int]:
        shown = frame if isinstance(frame, EncodedImage) else vlm.cut(frame, stopwatch=stopwatch)
        return shown, vlm.processor.image_processor.num_image_tokens(*shown.size)

    _, cost = opened(frames[0])
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
            stacklevel=3,
        )
    chosen = {index: opened(frames[index]) for index in evenly_spaced(len(frames), count)}
    for index, (shown, tokens) in chosen.items():
        if tokens != cost:
            width, height = shown.size
            raise ImageError(
                f"frame {index}, {width} x {height} pixels, takes {tokens} visual tokens but frame 0 takes {cost}: "
                "give frames of one size"
            )
    return vlm.encode_batch([shown for shown, _ in chosen.values()], stopwatch=stopwatch)
