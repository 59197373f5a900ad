"""Attention over grouped keys, as they stand: equal to transformers' own, and gone when a step is over."""

from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from helpers_vlm import tiny_vlm
from saccade.engine.grouped import NAME, attend_grouped, grouped_keys
from saccade.engine.paths import check_path
from saccade.errors import ConfigError


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("heads", "groups", "new"), [(6, 2, 1), (6, 6, 1), (6, 1, 1), (6, 2, 4)])
def test_grouped_attention_equals_that_of_transformers(heads: int, groups: int, new: int, masked: bool) -> None:
    generator = torch.Generator().manual_seed(heads * groups + new)
    query = torch.randn(3, heads, new, 8, generator=generator)
    key, value = (torch.randn(3, groups, 11, 8, generator=generator) for _ in range(2))
    mask = (torch.rand(3, 1, new, 11, generator=generator) < 0.6) if masked else None
    if mask is not None:
        mask[..., 0] = True
    module = SimpleNamespace(num_key_value_groups=heads // groups, is_causal=True)
    found, _ = attend_grouped(module, query, key, value, mask, scaling=0.2)  # type: ignore[arg-type]
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.2)  # type: ignore[arg-type]
    torch.testing.assert_close(found, expected)


def test_a_decoder_attends_as_before_after_a_step_even_one_that_fails() -> None:
    config = Qwen2Config(attn_implementation="sdpa")
    with grouped_keys(config):
        assert config._attn_implementation == NAME
    with pytest.raises(ZeroDivisionError), grouped_keys(config):
        _ = 1 // 0
    assert config._attn_implementation == "sdpa"


def test_who_generates_meanwhile_keeps_its_padding_masked() -> None:
    torch.manual_seed(0)
    model = tiny_vlm().model
    ids, mask = torch.arange(1, 9).view(2, 4), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    with torch.inference_mode():
        expected = model.model.language_model(input_ids=ids, attention_mask=mask).last_hidden_state
        with grouped_keys(model.config.text_config):
            found = model.model.language_model(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected)


def test_a_path_that_cannot_be_had_is_refused_by_name() -> None:
    assert check_path("compiled", torch.device("cpu")) == "compiled"
    with pytest.raises(ConfigError, match="no path 'quick': choose auto, plain, compiled or graphs"):
        check_path("quick", torch.device("cpu"))
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        check_path("graphs", torch.device("cpu"))
