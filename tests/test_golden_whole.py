"""The whole model against the reference: hidden states, logits, losses and gradients of every recorded case."""

from typing import Any

import pytest
import torch
from torch import Tensor

import golden
from golden import WHOLE, close
from saccade.checkpoint.flashsloth import FLASHSLOTH
from saccade.model import SaccadeForConditionalGeneration

pytestmark = pytest.mark.golden

CASES: list[tuple[str, dict[str, Any]]] = [
    ("single_image", {}),
    ("batch_padded", {}),
    ("hd_five_tiles", {}),
    ("train_multiturn", {}),
    ("train_mixed_batch", {}),
    ("infer_multiturn_history", {"history": "first"}),
    ("text_only", {"bare_query": True}),
]
TRAINED = ["train_multiturn", "train_mixed_batch", "pretrain_plain_20"]
GRADIENT = {"atol": 1e-5, "rtol": 1e-4}
DOT_ROW = 764


def arguments(name: str, **options: Any) -> tuple[dict[str, Tensor], list[golden.Row], dict[str, Tensor]]:
    """Return a case, its rows and the model's arguments, the twenty plain rows sharing one picture."""
    tensors, rows, inputs = golden.whole_inputs(name, plain=name == "pretrain_plain_20", **options)
    if name == "pretrain_plain_20":
        inputs["pixel_values"] = tensors["pixel_values_shared"]
        inputs["view_index"] = torch.zeros(len(rows), 1, dtype=torch.long)
    return tensors, rows, inputs


def layer_inputs(model: SaccadeForConditionalGeneration, inputs: dict[str, Tensor]) -> tuple[list[Tensor], Any]:
    """Run the model; return the input of every decoder layer's norm, the final state, and the output."""
    states: list[Tensor] = []
    decoder = model.model.language_model
    hooks = [
        layer.input_layernorm.register_forward_pre_hook(lambda _, given: states.append(given[0]))
        for layer in decoder.layers
    ]
    hooks.append(decoder.final_layernorm.register_forward_hook(lambda *call: states.append(call[-1])))
    try:
        return states, model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("name", "options"), CASES)
@torch.no_grad()
def test_hidden_states_and_logits(name: str, options: dict[str, Any]) -> None:
    tensors, rows, inputs = arguments(name, **options)
    states, output = layer_inputs(golden.model(), inputs)
    real = inputs["attention_mask"].bool()
    close(states[7][real], tensors["hidden_after_embq"][real], WHOLE)
    close(states[-1][real], tensors["final_hidden"][real], WHOLE)
    last = torch.tensor([len(row.ids) - 1 for row in rows])
    close(output.logits[torch.arange(len(rows)), last], tensors["logits_last"], WHOLE)


@torch.no_grad()
def test_every_layer_of_one_picture() -> None:
    tensors, _, inputs = arguments("single_image")
    states, output = layer_inputs(golden.model(), inputs)
    close(torch.stack(states), tensors["all_hidden_states"], WHOLE)
    close(output.logits, tensors["logits"], WHOLE)


@torch.no_grad()
def test_the_plain_form_of_pretraining() -> None:
    tensors, rows, inputs = arguments("pretrain_plain_20")
    states, output = layer_inputs(golden.model(), inputs)
    real = inputs["attention_mask"].bool()[:4]
    close(states[7][:4][real], tensors["hidden_after_embq_first4"][real], WHOLE)
    close(states[-1][:4][real], tensors["final_hidden_first4"][real], WHOLE)
    close(output.loss, tensors["loss"][0], WHOLE)
    assert len(rows) == 20


@pytest.mark.parametrize("name", TRAINED)
def test_loss_and_gradients(name: str) -> None:
    tensors, _, inputs = arguments(name)
    model = golden.fresh_model()
    model.model.vision_tower.requires_grad_(False)
    loss = model(**inputs).loss
    loss.backward()
    close(loss, tensors["loss"][0], WHOLE)
    gradients = {parameter: value.grad for parameter, value in model.named_parameters() if value.grad is not None}
    checked = 0
    for key, expected in tensors.items():
        if key.startswith("grad."):
            theirs = key.removeprefix("grad.").removesuffix(f".row{DOT_ROW}")
            found = gradients[FLASHSLOTH.table.names_of_ours(theirs)[0]]
            close(found[DOT_ROW] if key.endswith(f".row{DOT_ROW}") else found, expected, GRADIENT)
            checked += 1
    assert checked > 0
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    torch.testing.assert_close(norm, tensors["grad_norm_total"][0], rtol=1e-5, atol=0.0)
    assert not [parameter for parameter in gradients if ".vision_tower." in parameter]


def test_the_tower_learns_unless_it_is_frozen() -> None:
    """The reference never propagates into the tower; here that is the trainer's choice."""
    _, _, inputs = arguments("train_multiturn")
    model = golden.fresh_model()
    model(**inputs).loss.backward()
    reached = [value.grad.abs().sum() > 0 for value in model.model.vision_tower.parameters()]
    assert reached
    # A key's bias shifts all scores of a query alike, so its gradient is zero up to rounding: all others must move.
    assert sum(bool(one) for one in reached) >= len(reached) - model.config.vision_config.num_hidden_layers


@torch.no_grad()
def test_a_query_set_reads_its_own_question_by_default() -> None:
    """At inference the reference gives every query set the first question; the default is what it was trained with."""
    tensors, rows, inputs = arguments("infer_multiturn_history")
    states, _ = layer_inputs(golden.model(), inputs)
    start = rows[0].starts[1]
    close(states[7][:, :start], tensors["hidden_after_embq"][:, :start], WHOLE)
    changed = (states[7][0, start : start + 9] - tensors["hidden_after_embq"][0, start : start + 9]).abs().amax(dim=-1)
    assert bool((changed > 1e-2).all())


@torch.no_grad()
def test_many_rows_do_not_change_what_is_read() -> None:
    """With twenty rows the reference reads the ranges of the plain form; here a row never depends on their number."""
    tensors, rows, inputs = arguments("single_image")
    shared = {"pixel_values": inputs["pixel_values"], "view_index": torch.zeros(20, 1, dtype=torch.long)}
    logits = golden.model()(**golden.batch(rows * 20), **shared).logits
    close(logits, tensors["logits"].expand(20, -1, -1), WHOLE)


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_rows_in_a_batch_are_rows_alone(side: str) -> None:
    """Rows of different length, with two pictures, with none, with five views: each gets what it gets alone."""
    rows, pixels = mixed_rows()
    inputs = golden.batch(rows, side=side)
    positions = (inputs["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
    together = golden.model()(**inputs, position_ids=positions, pixel_values=torch.cat(pixels)).logits
    for index, (row, views) in enumerate(zip(rows, pixels, strict=True)):
        alone = golden.model()(**golden.batch([row]), **({"pixel_values": views} if len(views) else {})).logits
        close(together[index][inputs["attention_mask"][index].bool()], alone[0], WHOLE)


def mixed_rows() -> tuple[list[golden.Row], list[Tensor]]:
    """Return rows of several kinds and the views of each."""
    padded, mixed, tiled = (golden.case(name) for name in ("batch_padded", "train_mixed_batch", "hd_five_tiles"))
    short, long = golden.rows_of(padded)
    with_picture, without = golden.rows_of(mixed)
    two = golden.rows_of(golden.case("single_image"))[0]
    at = two.ids.index(golden.IMAGE_ID)
    count = golden.TOKENS_PER_VIEW
    two.ids[at:at] = two.ids[at : at + count]
    two.roles[at:at] = two.roles[at : at + count]
    views = padded["pixel_values"]
    nothing = views[:0]
    rows = [short, two, without, long, *golden.rows_of(tiled), with_picture]
    return rows, [views[:1], views, nothing, views[1:], tiled["pixel_values"], mixed["pixel_values"][:1]]
