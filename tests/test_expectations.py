"""The parts that the papers invent against committed tensors that were computed by loops (see `plain`)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import plain
import small
from saccade.model import SaccadeForConditionalGeneration
from saccade.model.compress import to_windows
from saccade.model.layout import query_positions_of
from saccade.model.query import build_context

EXPECTED = load_file(Path(__file__).parent / "data" / "expectations.safetensors")
WEIGHTS = {name.removeprefix("weights."): tensor for name, tensor in EXPECTED.items() if name.startswith("weights.")}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def model(**query: Any) -> SaccadeForConditionalGeneration:
    """The small model with the committed weights where there are some."""
    built = small.model(**query)
    state = built.model.state_dict()
    built.model.load_state_dict({**state, **{name: tensor for name, tensor in WEIGHTS.items() if name in state}})
    return built


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual.detach(), expected, **TOLERANCE)


def test_the_committed_tensors_are_what_the_loops_give() -> None:
    for index, view in enumerate(EXPECTED["patches"]):
        pooled, alphas = plain.sap(WEIGHTS, view, small.WINDOW)
        close(pooled, EXPECTED["pooled"][index])
        close(alphas, EXPECTED["alphas"][index])
        close(plain.project(WEIGHTS, pooled), EXPECTED["projected"][index])
    for index, row in enumerate(small.rows()):
        visual = EXPECTED["projected"][row.views].flatten(0, 1)
        close(plain.splice(WEIGHTS, row.ids, row.roles, visual, small.INIT_ID), EXPECTED[f"embeds.{index}"])
        close(loops(WEIGHTS, index, row), EXPECTED[f"rewritten.{index}"])


def loops(weights: dict[str, Tensor], index: int, row: small.Row, fusion: str = "add") -> Tensor:
    """The query module's result for one row, by loops."""
    return plain.embq(
        weights,
        EXPECTED[f"hidden.{index}"],
        row.roles,
        [EXPECTED["patches"][view] for view in row.views],
        tokens_per_view=small.TOKENS_PER_VIEW,
        heads=small.HEADS,
        layers=small.LAYERS,
        fusion=fusion,
    )


@torch.no_grad()
def test_sap() -> None:
    compressor = model().model.compressor
    close(compressor(EXPECTED["patches"]), EXPECTED["pooled"])
    close(compressor.weights(to_windows(EXPECTED["patches"], small.WINDOW)), EXPECTED["alphas"])


@torch.no_grad()
def test_the_projector() -> None:
    close(model().model.multi_modal_projector(EXPECTED["pooled"]), EXPECTED["projected"])


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_the_splice(side: str) -> None:
    built, seen = model(), []
    decoder = built.model.language_model
    with decoder.register_forward_pre_hook(lambda _, __, given: seen.append(given["inputs_embeds"]), with_kwargs=True):
        inputs = small.batch(side)
        built(**inputs, image_features=EXPECTED["patches"])
    for index, mask in enumerate(inputs["attention_mask"].bool()):
        close(seen[0][index][mask], EXPECTED[f"embeds.{index}"])


def rewritten(built: SaccadeForConditionalGeneration, side: str) -> list[Tensor]:
    """The query module's result for every row of the batch, padding taken off."""
    inputs = small.batch(side)
    mask, roles = inputs["attention_mask"].bool(), inputs["mm_token_type_ids"]
    hidden = torch.full((*mask.shape, EXPECTED["hidden.0"].shape[-1]), 1e3)
    hidden[mask] = torch.cat([EXPECTED[f"hidden.{index}"] for index in range(len(mask))])
    context = build_context(
        roles,
        query_positions_of(roles),
        (inputs["input_ids"] == small.IMAGE_ID).cumsum(1),
        EXPECTED["patches"],
        inputs["view_index"],
        small.TOKENS_PER_VIEW,
    )
    with torch.no_grad():
        output = built.model.embedded_query(hidden, context)
    return [row[real] for row, real in zip(output, mask, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_embq(side: str) -> None:
    for index, result in enumerate(rewritten(model(), side)):
        close(result, EXPECTED[f"rewritten.{index}"])


@pytest.mark.parametrize("fusion", ["replace", "gate"])
def test_other_fusions(fusion: str) -> None:
    built = model(fusion=fusion)
    weights = dict(built.model.state_dict())
    for index, (result, row) in enumerate(zip(rewritten(built, "left"), small.rows(), strict=True)):
        close(result, loops(weights, index, row, fusion))


def test_a_query_reads_its_own_instruction_and_the_pictures_before_it() -> None:
    """The expectations tell the rules apart: each rule broken gives another result for the first row."""
    row = small.rows()[0]
    kept = EXPECTED["rewritten.0"]
    first, second = (row.roles.index(role) for role in (3, 5))
    exchanged = [{2: 4, 4: 2}.get(role, role) for role in row.roles]
    other_question = loops(WEIGHTS, 0, small.Row(row.ids, exchanged, row.views))
    other_pictures = loops(WEIGHTS, 0, small.Row(row.ids, row.roles, row.views[::-1]))
    for start in (first, second):
        assert (other_question[start] - kept[start]).abs().max() > 1e-2
    assert (other_pictures[first] - kept[first]).abs().max() > 1e-2
    close(other_pictures[second], kept[second])


@torch.no_grad()
def test_the_whole_small_model_treats_rows_alone() -> None:
    """Left padded, with a shared view and a row without a view: each row gives what it gives by itself."""
    built, inputs = model(), small.batch("left")
    positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    together = built(**inputs, position_ids=positions, image_features=EXPECTED["patches"]).logits
    for index, row in enumerate(small.rows()):
        mask = inputs["attention_mask"][index].bool()
        shown = {"image_features": EXPECTED["patches"][row.views]} if row.views else {}
        alone = built(input_ids=torch.tensor([row.ids]), mm_token_type_ids=torch.tensor([row.roles]), **shown).logits
        torch.testing.assert_close(together[index][mask], alone[0], atol=1e-4, rtol=1e-4)
