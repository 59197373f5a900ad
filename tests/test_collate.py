"""Batches: padding on both sides, views shared and placed, positions of the queries, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from saccade.config import ImageConfig
from saccade.data.collate import Sample, collate
from saccade.errors import DataError, PlaceholderMismatchError
from saccade.image import normalize
from saccade.prompt import Encoded, Turn, encode, picture_segments, render_chat
from saccade.prompt.encode import IGNORE
from saccade.roles import IMAGE, TEXT, query_role
from tokenizers_for_tests import PLAIN_TEXT, tokenizer

SIDE, TOKENS, QUERIES, PAD = 5, 4, 9, 7
IMAGE_CONFIG = ImageConfig(side=SIDE, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


def encoded(*questions: tuple[str, int], answer: str | None = None) -> Encoded:
    turns: list[Turn] = []
    for text, images in questions:
        turns += [Turn("user", text, images), Turn("assistant", answer or "yes")]
    generate = answer is None
    segments = render_chat(turns[:-1] if generate else turns, PLAIN_TEXT, generate=generate)
    view = picture_segments((1,), TOKENS, PLAIN_TEXT)
    return encode(segments, tokenizer(), [view] * sum(images for _, images in questions))


def pixels(seed: int, views: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (views, 3, SIDE, SIDE), dtype=np.uint8)


def together(samples: list[Sample], **options: Any) -> dict[str, torch.Tensor]:
    settings: dict[str, Any] = {"image": IMAGE_CONFIG, "pad_id": PAD, "tokens_per_view": TOKENS, "num_queries": QUERIES}
    return collate(samples, **(settings | {"labels": True} | options))


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_padded(side: str) -> None:
    rows = [encoded(("How many squares?", 1), ("Sure?", 0), answer="Two"), encoded(("Hello", 0), answer="Hi")]
    batch = together([Sample(rows[0], pixels(0)), Sample(rows[1])], padding_side=side)
    width = len(rows[0].input_ids)
    for n, row in enumerate(rows):
        own = slice(width - len(row.input_ids), None) if side == "left" else slice(len(row.input_ids))
        mask = torch.zeros(width, dtype=torch.int64)
        mask[own] = 1
        assert torch.equal(batch["attention_mask"][n], mask)
        for name, values, fill in (
            ("input_ids", row.input_ids, PAD),
            ("mm_token_type_ids", row.roles, TEXT),
            ("labels", row.labels, IGNORE),
        ):
            assert batch[name].dtype == torch.int64
            assert batch[name][n, own].tolist() == values
            assert (batch[name][n][mask == 0] == fill).all()
    assert (batch["attention_mask"][1] == 0).any()


@pytest.mark.parametrize("side", ["right", "left"])
def test_query_positions(side: str) -> None:
    rows = [encoded(("One?", 1), ("Two?", 0)), encoded(("A much longer question than that?", 1)), encoded(("Hello", 0))]
    samples = [Sample(rows[0], pixels(0)), Sample(rows[1], pixels(1)), Sample(rows[2])]
    batch = together(samples, padding_side=side, labels=False)
    positions, query = batch["query_positions"], tokenizer().convert_tokens_to_ids("<learnable>")
    assert positions.shape == (3, 2 * QUERIES)
    for row, count in enumerate((18, 9, 0)):
        places = positions[row, :count]
        assert (positions[row, count:] == -1).all()
        assert (places.diff() > 0).all()
        assert (batch["input_ids"][row] == query).nonzero().flatten().tolist() == places.tolist()
    assert batch["mm_token_type_ids"][0, positions[0]].tolist() == [query_role(0)] * 9 + [query_role(1)] * 9


def test_views_are_normalized_and_placed() -> None:
    first, second = pixels(0, 2), pixels(1)
    samples = [
        Sample(encoded(("Same?", 2)), first),
        Sample(encoded(("Hello", 0))),
        Sample(encoded(("One?", 1)), second),
    ]
    batch = together(samples, labels=False)
    assert batch["pixel_values"].dtype == torch.float32
    assert np.array_equal(batch["pixel_values"], normalize(np.concatenate([first, second]), IMAGE_CONFIG))
    assert batch["view_index"].tolist() == [[0, 1], [-1, -1], [2, -1]]


def test_one_picture_and_several_questions() -> None:
    shared, other = pixels(0), pixels(1)
    samples = [Sample(encoded((text, 1)), views) for text, views in (("a", other), ("b", shared), ("c", shared))]
    batch = together(samples, labels=False)
    assert batch["view_index"].tolist() == [[0], [1], [1]]
    assert np.array_equal(batch["pixel_values"], normalize(np.concatenate([other, shared]), IMAGE_CONFIG))


def test_equal_pixels_in_arrays_of_their_own_are_not_compared() -> None:
    samples = [Sample(encoded((text, 1)), pixels(0)) for text in "ab"]
    assert together(samples, labels=False)["view_index"].tolist() == [[0], [1]]


def test_what_is_not_there_is_absent() -> None:
    batch = together([Sample(encoded(("Hello", 0), answer="Hi"))])
    assert set(batch) == {"input_ids", "attention_mask", "mm_token_type_ids", "labels"}
    assert "labels" not in together([Sample(encoded(("Hello", 0)))], labels=False)


class TestRefused:
    def test_no_sample(self) -> None:
        with pytest.raises(DataError, match="at least one sample"):
            together([])

    @pytest.mark.parametrize(("views", "expected"), [(None, 0), (pixels(0, 2), 8)], ids=["none", "two"])
    def test_views_that_do_not_fit_the_prompt(self, views: NDArray[np.uint8] | None, expected: int) -> None:
        samples = [Sample(encoded(("a", 1)), pixels(0)), Sample(encoded(("b", 1)), views)]
        with pytest.raises(PlaceholderMismatchError, match=f"row 1 .*{expected} image tokens were expected, 4 "):
            together(samples, labels=False)

    def test_pictures_beside_patches(self) -> None:
        patches = np.zeros((1, TOKENS, 3), np.float16)
        samples = [Sample(encoded(("a", 1)), pixels(0)), Sample(encoded(("b", 1)), patches)]
        with pytest.raises(DataError, match="some samples hold pictures and others patches"):
            together(samples, labels=False)

    def test_a_set_that_is_not_full(self) -> None:
        row = Encoded([1] * 5, [IGNORE] * 5, [IMAGE] * 4 + [query_role(0)])
        with pytest.raises(PlaceholderMismatchError, match="row 0 holds 1 query tokens, which do not make sets of 9"):
            together([Sample(row, pixels(0))], labels=False)
        with pytest.raises(PlaceholderMismatchError, match="sets of 0"):
            together([Sample(row, pixels(0))], labels=False, num_queries=0)

    def test_nothing_to_learn(self) -> None:
        samples = [Sample(encoded(("a", 0), answer="b")), Sample(encoded(("a", 0)))]
        with pytest.raises(DataError, match="row 1 has no trained token"):
            together(samples)
