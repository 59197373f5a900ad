"""Each stage of the model against the reference's, fed with the reference's own inputs to that stage."""

from typing import Any

import pytest
import torch
from torch import Tensor

import golden
from golden import NUM_QUERIES, STAGE, close
from saccade.model.compress import to_windows
from saccade.model.layout import query_positions_of, view_index_of
from saccade.model.query import QueryContext, build_context

pytestmark = pytest.mark.golden

PICTURES = ["single_image", "batch_padded", "hd_five_tiles", "train_multiturn", "train_mixed_batch"]
QUERIES = [
    ("single_image", "own"),
    ("batch_padded", "own"),
    ("hd_five_tiles", "own"),
    ("train_multiturn", "own"),
    ("train_mixed_batch", "own"),
    ("infer_multiturn_history", "first"),
]


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_the_tower_gives_the_raw_patches(name: str) -> None:
    tensors = golden.case(name)
    close(golden.model().model.encode_views(tensors["pixel_values"]), tensors["vision_features"], STAGE)


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_sap_scores_weighs_and_pools(name: str) -> None:
    tensors, sap = golden.case(name), golden.model().model.compressor
    logits: list[Tensor] = []
    with sap.score.register_forward_hook(lambda *call: logits.append(call[-1])):
        pooled = sap(tensors["vision_features"])
    close(logits[0].squeeze(-1), tensors["sap_logits"], STAGE)
    close(sap.weights(to_windows(tensors["vision_features"], sap.window)), tensors["sap_alphas"], STAGE)
    close(pooled, tensors["sap_pooled"], STAGE)


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_the_projector(name: str) -> None:
    tensors = golden.case(name)
    close(golden.model().model.multi_modal_projector(tensors["sap_pooled"]), tensors["projected"], STAGE)


@pytest.mark.parametrize("name", PICTURES)
@torch.no_grad()
def test_visual_and_query_tokens_are_spliced_in(name: str) -> None:
    tensors, _, inputs = golden.whole_inputs(name)
    del inputs["pixel_values"]
    inputs.pop("labels", None)
    given = decoder_inputs(image_features=golden.shown(tensors, "vision_features"), **inputs)
    real = inputs["attention_mask"].bool()
    close(given[real], tensors["inputs_embeds"][real], STAGE)


def decoder_inputs(**inputs: Any) -> Tensor:
    """Run the model and return what its decoder was given."""
    seen: list[Tensor] = []

    def keep(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["inputs_embeds"])

    model = golden.model()
    with model.model.language_model.register_forward_pre_hook(keep, with_kwargs=True):
        model(**inputs)
    return seen[0]


@pytest.mark.parametrize(("name", "history"), QUERIES)
def test_our_roles_name_the_ranges_the_reference_found(name: str, history: str) -> None:
    tensors, rows, _ = golden.whole_inputs(name, history=history)
    check_ranges(tensors, rows)


def test_our_roles_name_the_ranges_of_the_plain_form() -> None:
    tensors = golden.case("pretrain_plain_20")
    check_ranges(tensors, golden.rows_of(tensors, plain=True))


def check_ranges(tensors: dict[str, Tensor], rows: list[golden.Row]) -> None:
    assert len(rows) == len(tensors["question_ranges"])
    for row, ranges, starts, modal in zip(
        rows, tensors["question_ranges"].tolist(), tensors["query_start"].tolist(), tensors["modal"], strict=True
    ):
        expected = [tuple(pair) for pair in ranges[: len(row.spans)]]
        if modal == 1:  # the reference starts one token late where there is no picture; nothing reads that range
            assert expected[0] == (row.spans[0][0] + 1, row.spans[0][1])
            expected[0] = row.spans[0]
        assert row.spans == expected
        assert row.starts == starts[: len(row.starts)]


class Recorder:
    """What the parts of the query module returned."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}

    def keep(self, name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            self.seen[name] = output

        return hook


def embq(tensors: dict[str, Tensor], rows: list[golden.Row]) -> tuple[Tensor, Recorder, QueryContext]:
    """Run the query module on the reference's hidden states and patches."""
    inputs = golden.batch(rows)
    module, recorder = golden.model().model.embedded_query, Recorder()
    roles, image_mask = inputs["mm_token_type_ids"], inputs["input_ids"] == golden.IMAGE_ID
    patches = golden.shown(tensors, "embq_image_features")
    index = view_index_of(image_mask, golden.TOKENS_PER_VIEW, len(patches))
    context = build_context(
        roles, query_positions_of(roles), image_mask.cumsum(1), patches, index, golden.TOKENS_PER_VIEW
    )
    layer = module.layers[0]
    with (
        layer.text_attention.register_forward_hook(recorder.keep("text")),
        layer.image_attention.register_forward_hook(recorder.keep("image")),
        torch.no_grad(),
    ):
        return module(tensors["hidden_before_embq"], context), recorder, context


@pytest.mark.parametrize(("name", "history"), QUERIES)
def test_embq(name: str, history: str) -> None:
    tensors, rows, _ = golden.whole_inputs(name, history=history)
    hidden, recorder, _ = embq(tensors, rows)
    real = tensors["decoder_attention_mask"].bool()
    close(hidden[real], tensors["hidden_after_embq"][real], STAGE)
    (text_out, text_weights), (image_out, image_weights) = recorder.seen["text"], recorder.seen["image"]
    order = 0
    for index, row in enumerate(rows):
        for count, (start, stop) in enumerate(row.spans):
            mine, theirs, order = slice(count * NUM_QUERIES, (count + 1) * NUM_QUERIES), order, order + 1
            at = slice(row.starts[count], row.starts[count] + NUM_QUERIES)
            close(tensors["hidden_before_embq"][index, at], tensors["embq_in_queries"][theirs], STAGE)
            if tensors["modal"][index] == 1:
                continue
            read = tensors["embq_in_text_mask"][theirs].bool()
            close(tensors["hidden_before_embq"][index, start:stop], tensors["embq_in_text"][theirs][read], STAGE)
            close(text_weights[index, :, mine, start:stop], tensors["embq_text_attention"][theirs][..., read], STAGE)
            assert text_weights[index, :, mine].sum() == pytest.approx(text_weights[index, :, mine, start:stop].sum())
            close(text_out[index, mine], tensors["embq_text_output"][theirs], STAGE)
            close(image_weights[index, :, mine], tensors["embq_image_attention"][theirs], STAGE)
            close(image_out[index, mine], tensors["embq_image_output"][theirs], STAGE)
            close(hidden[index, at], tensors["embq_out"][theirs], STAGE)


def test_embq_leaves_a_row_without_a_picture_as_it_is() -> None:
    tensors, rows, _ = golden.whole_inputs("train_mixed_batch")
    hidden, _, _ = embq(tensors, rows)
    assert tensors["modal"].tolist() == [2, 1]
    assert torch.equal(hidden[1], tensors["hidden_before_embq"][1])
    assert not torch.equal(hidden[0], tensors["hidden_before_embq"][0])
