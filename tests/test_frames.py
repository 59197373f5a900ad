"""Frames of a video: which are chosen, that nothing is left out in silence, and that they are asked about in order."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers_vlm import count_views, picture, tiny_vlm
from saccade.config import ImageConfig
from saccade.errors import ImageError, PromptError, SaccadeWarning
from saccade.vlm import VLM, Conversation, Sampling, choose_frames
from saccade.vlm.frames import evenly_spaced
from saccade.vlm.inputs import CutImage

DYNAMIC = ImageConfig(side=24, layout="dynamic", max_tiles=4)


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.mark.parametrize(
    ("total", "count", "chosen"),
    [(1, 1, [0]), (9, 1, [4]), (10, 2, [2, 7]), (10, 3, [1, 5, 8]), (5, 4, [0, 1, 3, 4]), (7, 7, [*range(7)])],
)
def test_evenly_spaced(total: int, count: int, chosen: list[int]) -> None:
    assert evenly_spaced(total, count) == chosen


def test_gaps_differ_by_one_at_most() -> None:
    for total in range(1, 40):
        for count in range(1, total + 1):
            chosen = evenly_spaced(total, count)
            gaps = {b - a for a, b in pairwise(chosen)}
            assert len(chosen) == count
            assert chosen[0] >= 0
            assert chosen[-1] < total
            assert not gaps or (min(gaps) >= 1 and max(gaps) - min(gaps) <= 1)


def test_all_frames_that_fit_are_shown_in_order(vlm: VLM) -> None:
    frames = [picture(seed) for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", SaccadeWarning)
        answer = vlm.ask_frames(frames, "What happens?", max_visual_tokens=27, max_new_tokens=6)
    talk = Conversation().ask("What happens?", frames)
    assert answer.text == vlm.answer([talk], Sampling(max_new_tokens=6))[0].text
    assert answer.image_tokens == 27
    assert answer.timings.vision > 0


def test_frames_beyond_the_budget_are_left_out_aloud(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [picture(seed) for seed in range(10)]
    keys = [image.key for image in vlm.encode_batch(frames)]
    calls = count_views(vlm, monkeypatch)
    with pytest.warns(SaccadeWarning, match="3 of 10 frames are shown, evenly spaced: each takes 9 visual tokens"):
        chosen = choose_frames(vlm, frames, 35)
    assert [image.key for image in chosen] == [keys[n] for n in evenly_spaced(10, 3)]
    assert calls == [3]


@pytest.mark.parametrize(("total", "cuts"), [(3, 3), (4, 3), (10, 4)])
def test_no_frame_is_cut_twice(vlm: VLM, monkeypatch: pytest.MonkeyPatch, total: int, cuts: int) -> None:
    """Of ten the first is cut for what it costs, beside the three that are shown; of four it is one of these."""
    cut, opened = vlm.cut, []

    def counting(image: object, **options: object) -> CutImage:
        opened.append(image)
        return cut(image, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(vlm, "cut", counting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SaccadeWarning)
        shown = choose_frames(vlm, [picture(seed) for seed in range(total)], 27)
    assert (len(shown), len(opened)) == (3, cuts)


def test_the_warning_names_the_line_that_asked(vlm: VLM) -> None:
    frames = [picture(seed) for seed in range(2)]
    with pytest.warns(SaccadeWarning, match="1 of 2 frames") as chosen:
        choose_frames(vlm, frames, 9)
    with pytest.warns(SaccadeWarning, match="1 of 2 frames") as asked:
        vlm.ask_frames(frames, "What?", max_visual_tokens=9, max_new_tokens=1)
    assert [note.filename for note in (*chosen, *asked)] == [__file__, __file__]


def test_an_array_of_frames_is_a_list_of_them(vlm: VLM) -> None:
    frames = [picture(seed) for seed in range(2)]
    keys = [image.key for image in choose_frames(vlm, np.stack([np.asarray(frame) for frame in frames]), 18)]
    assert keys == [image.key for image in vlm.encode_batch(frames)]


def test_encoded_frames_are_taken_as_they_are(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = vlm.encode_batch([picture(seed) for seed in range(2)])
    calls = count_views(vlm, monkeypatch)
    assert choose_frames(vlm, frames, 18) == frames
    assert calls == []


def test_a_frame_in_tiles_costs_all_its_views() -> None:
    tiled = tiny_vlm(image=DYNAMIC)
    frames = [picture(seed, 60, 20) for seed in range(4)]
    cost = tiled.processor.image_processor.num_image_tokens(60, 20)
    assert cost > 9
    with pytest.warns(SaccadeWarning, match="2 of 4 frames"):
        chosen = choose_frames(tiled, frames, 2 * cost)
    assert sum(image.num_tokens for image in chosen) == 2 * cost
    with pytest.raises(
        ImageError, match=r"frame 1, 20 x 20 pixels, takes 9 visual tokens but frame 0 takes .* one size"
    ):
        choose_frames(tiled, [picture(0, 60, 20), picture(1, 20, 20)], 2 * cost)


def test_refused(vlm: VLM) -> None:
    with pytest.raises(PromptError, match="a frame takes 9 visual tokens, more than max_visual_tokens 8"):
        choose_frames(vlm, [picture(1)], 8)
    with pytest.raises(ImageError, match="there is no frame"):
        choose_frames(vlm, [], 9)
    one = picture(1)
    for frames in ("video.mp4", Path("video.mp4"), b"video", one, vlm.encode(one), np.asarray(one)):
        with pytest.raises(ImageError, match="is no list of frames: decode the video first"):
            choose_frames(vlm, frames, 9)  # type: ignore[arg-type]
