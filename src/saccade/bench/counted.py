"""The twin of `count`: torch's own counter over the model's own modules, on tensors that have shapes and no content."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

import saccade.engine.cpu  # noqa: F401 (registers the operators)
from saccade.bench.skeleton import skeleton
from saccade.config import SaccadeConfig
from saccade.model.query import QueryContext

if TYPE_CHECKING:
    from saccade.bench.count import Workload
    from saccade.model import SaccadeForConditionalGeneration

Part = Literal["vision", "compressor", "compress", "embedded query", "prefill", "step"]


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """FLOPs of attention `[batch, heads, seq, head_dim]` over all keys; queries may share keys and values."""
    batch, heads, length, dim = query
    return int(2 * batch * heads * length * key[2] * (dim + value[3]))


def _linear_flops(rows: Any, weight: Any, *_: Any, **__: Any) -> int:
    """FLOPs of a linear layer on rows `[..., in]` with weights `[out, in]`."""
    return int(2 * math.prod(rows) * weight[0])


def counter() -> FlopCounterMode:
    """Return torch's counter, which also counts shared keys, this device's attention kernels and our own ones."""
    names = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
    kernels = [getattr(torch.ops.aten, f"_scaled_dot_product_{name}") for name in names]
    known: dict[Any, Any] = dict.fromkeys([*kernels, torch.ops.saccade.attend], _attention_flops)
    return FlopCounterMode(display=False, custom_mapping=known | {torch.ops.saccade.linear: _linear_flops})


def count_flops(config: SaccadeConfig, part: Part, work: Workload, past: int = 0) -> int:
    """Count the FLOPs of one part of a model.

    Args:
        config: The model.
        part: "compressor" is without the projector, "compress" with it; "prefill" is the decoder's layers over the
            prompt, "step" one decode step after `past` tokens with the output head.
        work: What is asked.
        past: Tokens before the step.
    """
    model = skeleton(config)
    with torch.device("meta"), torch.no_grad():
        views, dim = work.views * work.batch, config.vision_config.hidden_size
        if part == "vision":
            call = model.model.encode_views, torch.empty(views, 3, config.image.side, config.image.side)
        elif part in ("compressor", "compress"):
            module = model.model.compressor if part == "compressor" else model.model.project_patches
            call = module, torch.empty(views, config.patches_per_view, dim)
        elif part == "embedded query":
            return _query_flops(model, work)
        else:
            return _decoder_flops(model, work, part, past)
        with counter() as counted:
            call[0](call[1])
    return int(counted.get_total_flops())


def _prompt(config: SaccadeConfig, work: Workload) -> int:
    queries = 0 if config.query is None else config.query.num_queries
    return work.text_tokens + work.views * config.tokens_per_view + queries


def _decoder_flops(model: SaccadeForConditionalGeneration, work: Workload, part: Part, past: int) -> int:
    decoder, width = model.model.language_model, model.config.text_config.hidden_size
    length = _prompt(model.config, work) if part == "prefill" else past
    before = counter()
    with before:
        cache = decoder(inputs_embeds=torch.empty(work.batch, length, width), use_cache=True).past_key_values
    if part == "prefill":
        return int(before.get_total_flops())
    with counter() as counted:
        step = decoder(inputs_embeds=torch.empty(work.batch, 1, width), past_key_values=cache)
        model.lm_head(step.last_hidden_state)
    return int(counted.get_total_flops())


def _query_flops(model: SaccadeForConditionalGeneration, work: Workload) -> int:
    config = model.config
    assert config.query is not None
    prompt, queries, rows = _prompt(config, work), config.query.num_queries, work.batch
    views = rows * work.views
    context = QueryContext(
        mask=torch.empty(rows, prompt, dtype=torch.bool),
        positions=torch.empty(rows, queries, dtype=torch.long),
        text_mask=torch.empty(rows, queries, prompt, dtype=torch.bool),
        patches=torch.empty(views, config.patches_per_view, config.vision_config.hidden_size),
        view_index=torch.empty(rows, work.views, dtype=torch.long),
        view_mask=torch.empty(rows, queries, work.views, dtype=torch.bool),
    )
    with counter() as counted:
        model.model.embedded_query(torch.empty(rows, prompt, config.text_config.hidden_size), context)
    return int(counted.get_total_flops()) * len(config.query.before_layers)
