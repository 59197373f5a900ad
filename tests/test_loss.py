"""The loss without all logits: that of all logits, in parts, where labels count, and zero where none does."""

from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

import chats
import small
from saccade.config import SaccadeConfig
from saccade.model import SaccadeForConditionalGeneration, loss
from saccade.roles import TEXT

FAMILIES = {"queries": small.config(), "without": small.shuffled()}
every_family = pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
HELD_TOKENS = 5


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few logits at a time, so that a small batch needs several parts."""
    monkeypatch.setattr(loss, "HELD", HELD_TOKENS * small.VOCAB + 1)


def inputs_of(config: SaccadeConfig) -> dict[str, torch.Tensor]:
    inputs = chats.placed(chats.batch(chats.single_views(config), "right", config), config)
    trained = (inputs["mm_token_type_ids"] == TEXT) & inputs["attention_mask"].bool()
    return inputs | {"labels": inputs["input_ids"].masked_fill(~trained, -100)}


def gradients(model: nn.Module, inputs: dict, **options: object) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    output = model(**inputs, **options)
    output.loss.backward()
    return output.loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one: tuple, other: tuple) -> None:
    torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-6)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(other[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@every_family
@pytest.mark.parametrize("items", [{}, {"num_items_in_batch": torch.tensor(7)}], ids=["mean", "items"])
def test_loss_and_gradients_are_those_of_all_logits(config: SaccadeConfig, items: dict) -> None:
    model, inputs = chats.build(config), inputs_of(config)
    assert_same(gradients(model, inputs, **items), gradients(model, inputs, logits_to_keep=1, **items))


@pytest.fixture
def widths() -> Iterator[tuple[SaccadeForConditionalGeneration, list[int]]]:
    """A model, and the numbers of tokens that its head was called with."""
    model, seen = chats.build(FAMILIES["queries"]), list[int]()
    model.lm_head.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    return model, seen


def test_the_head_sees_trained_tokens_only_and_few_at_a_time(widths: tuple) -> None:
    model, seen = widths
    inputs = inputs_of(model.config)
    output = model(**inputs, logits_to_keep=1)
    rows, count = len(inputs["labels"]), int((inputs["labels"][:, 1:] != -100).sum())
    assert output.logits.shape == (rows, 1, small.VOCAB)
    assert seen == [
        rows,
        *[HELD_TOKENS] * (count // HELD_TOKENS),
        *([count % HELD_TOKENS] if count % HELD_TOKENS else []),
    ]
    assert len(seen) > 3


@every_family
def test_rows_without_labels_give_zeros_and_reach_every_parameter(config: SaccadeConfig) -> None:
    model, inputs = chats.build(config).train(), inputs_of(config)
    inputs["labels"] = torch.full_like(inputs["labels"], -100)
    value, found = gradients(model, inputs, logits_to_keep=1)
    assert value == 0
    assert found.keys() == {name for name, _ in model.named_parameters()}
    assert not any(gradient.any() for gradient in found.values())


def test_the_softmax_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    head, states, labels = nn.Linear(8, 300).bfloat16(), torch.randn(2, 20, 8).bfloat16(), torch.arange(40).view(2, 20)
    found = loss.next_token_loss(head, states, labels, 300)
    logits = head(states[:, :-1]).float().flatten(0, 1)
    assert found.dtype == torch.float32
    expected = nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)


def test_an_adapter_on_the_head_and_checkpointed_layers_change_nothing() -> None:
    config = FAMILIES["queries"]
    torch.manual_seed(0)
    lora = LoraConfig(r=2, target_modules=["q_proj", "lm_head"], init_lora_weights=False)
    model, inputs = get_peft_model(chats.build(config), lora), inputs_of(config)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = gradients(model, inputs)
    assert any("lm_head" in name and gradient.any() for name, gradient in expected[1].items())
    assert_same(expected, gradients(model, inputs, logits_to_keep=1))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(expected, gradients(model.train(), inputs, logits_to_keep=1))


@pytest.mark.slow
def test_the_loss_compiles_whole() -> None:
    model, inputs = chats.build(FAMILIES["queries"]), inputs_of(FAMILIES["queries"])
    expected = gradients(model, inputs)
    torch._dynamo.reset()
    model.forward = torch.compile(model.forward, fullgraph=True, backend="aot_eager")
    assert_same(expected, gradients(model, inputs, logits_to_keep=1))
