"""What a model costs, in closed form and from its configuration alone: nothing is loaded and nothing runs.

One multiply-accumulate (MAC) is two floating-point operations (FLOPs). Counted are matrix products, convolutions and
attention; not counted are norms, activations, softmax, rotations and the lookup of embeddings, as in torch's own
counter. Attention is counted in full, as kernels without a causal shortcut compute it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from saccade.bench.counted import count_flops
from saccade.bench.skeleton import skeleton
from saccade.config import (
    AverageConfig,
    CropConfig,
    IdentityConfig,
    LdpV2Config,
    PixelShuffleConfig,
    SaccadeConfig,
    SapConfig,
)
from saccade.errors import ConfigError

LDPV2_KERNEL = 3  # of the depthwise convolution, as published


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        views: Views of the picture, of every row.
        text_tokens: Tokens of the prompt that are neither visual nor query tokens.
        batch: Rows.
    """

    views: int
    text_tokens: int
    batch: int = 1


class Analysis:
    """A model's parameters by part and the MACs of its stages.

    Args:
        config: The model.

    Raises:
        ConfigError: when the configuration contradicts itself, or has a part whose work this does not know, such as
            experts.

    Attributes:
        config: The model.
        parameters: Parameters by part; a tied output head counts none of its own.
    """

    def __init__(self, config: SaccadeConfig) -> None:
        self.config = config
        model = skeleton(config)
        inner = model.model
        self._tower, self._decoder = _matrices(inner.vision_tower), _matrices(inner.language_model)
        self._convolutions = _numel(inner.vision_tower, nn.Conv2d)
        self._projector = _numel(inner.multi_modal_projector, nn.Linear)
        embeddings = inner.get_input_embeddings()
        tied = model.lm_head.weight is embeddings.weight
        table = int(embeddings.weight.numel())
        self._head = int(model.lm_head.weight.numel())
        self.parameters = {
            "vision tower": _parameters(inner.vision_tower),
            "compressor": _parameters(inner.compressor),
            "projector": _parameters(inner.multi_modal_projector),
            "embedded query": 0 if config.query is None else _parameters(inner.embedded_query),
            "embeddings": table,
            "decoder": _parameters(inner.language_model) - table,
            "head": _parameters(model.lm_head) - (table if tied else 0),
        }
        self._step_parameters = self.parameters["decoder"] + _parameters(model.lm_head)

    def prompt_tokens(self, work: Workload) -> int:
        """Tokens of a row's prompt."""
        return work.text_tokens + self.visual_tokens(work) + self.query_tokens

    def visual_tokens(self, work: Workload) -> int:
        """Visual tokens of a row."""
        return work.views * self.config.tokens_per_view

    @property
    def query_tokens(self) -> int:
        """Query tokens of a row."""
        return 0 if self.config.query is None else self.config.query.num_queries

    @property
    def kv_elements(self) -> int:
        """Numbers that the cache holds for one token."""
        text = self.config.text_config
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return 2 * int(text.num_hidden_layers) * int(heads) * _head_dim(text)

    @property
    def step_elements(self) -> int:
        """Parameters that one decode step reads: layers, final norm and output head."""
        return self._step_parameters

    def vision(self, work: Workload) -> int:
        """MACs of the tower; a pooling head, which no patch passes through, is left out."""
        tower, patches = self.config.vision_config, self.config.patches_per_view
        tokens = patches + self.config.vision.num_prefix_tokens
        layers = tower.num_hidden_layers + self.config.vision.layer + 1
        attention = 2 * layers * tokens**2 * int(tower.hidden_size)
        each = self._tower * tokens + self._convolutions * patches + attention
        return int(each * work.views * work.batch)

    def compress(self, work: Workload) -> int:
        """MACs of compressor and projector."""
        config = self.config
        patches, dim = config.patches_per_view, int(config.vision_config.hidden_size)
        kind = config.compressor
        if isinstance(kind, AverageConfig | IdentityConfig | PixelShuffleConfig | CropConfig):
            each = 0
        elif isinstance(kind, SapConfig):  # hidden, score, weighted sum
            each = patches * (dim**2 + dim + dim)
        elif isinstance(kind, LdpV2Config):
            width = kind.hidden_size
            each = patches * (dim * width + width**2) + config.tokens_per_view * width * LDPV2_KERNEL**2
        else:  # convolutions and attention of several kinds: run on shapes alone
            each = count_flops(config, "compressor", Workload(1, 0)) // 2
        return int((each + self._projector * config.tokens_per_view) * work.views * work.batch)

    def query(self, work: Workload) -> int:
        """MACs of the embedded query module, in all decoder layers that it precedes."""
        config = self.config.query
        if config is None:
            return 0
        patches = work.views * self.config.patches_per_view
        text, dim = int(self.config.text_config.hidden_size), config.hidden_size
        picture = int(self.config.vision_config.hidden_size)
        queries, prompt = config.num_queries, self.prompt_tokens(work)
        down = prompt * text * dim + patches * picture * dim
        layer = queries * text * dim  # queries down
        layer += 2 * queries * dim**2 + 2 * prompt * dim**2 + 2 * queries * prompt * dim  # read the text
        layer += patches * (dim**2 + picture**2) + queries * patches * (dim + picture)  # read the picture
        layer += queries * picture * text  # up
        if config.fusion == "gate":
            layer += queries * 2 * text * text
        return (down + config.num_layers * layer) * len(config.before_layers) * work.batch

    def decode(self, new: int, past: int = 0, batch: int = 1) -> int:
        """MACs of the decoder's layers over `new` tokens a row that follow `past` cached ones."""
        text = self.config.text_config
        attention = 2 * text.num_hidden_layers * int(text.num_attention_heads) * _head_dim(text) * new * (past + new)
        return int(batch * (self._decoder * new + attention))

    def head(self, positions: int) -> int:
        """MACs of the output head."""
        return self._head * positions

    def first_token(self, work: Workload) -> dict[str, int]:
        """MACs by stage from pixels to the first token."""
        return {
            "vision": self.vision(work),
            "compress": self.compress(work),
            "embedded query": self.query(work),
            "prefill": self.decode(self.prompt_tokens(work), batch=work.batch),
            "head": self.head(work.batch),
        }

    def step(self, work: Workload, past: int) -> int:
        """MACs of one decode step after `past` tokens."""
        return self.decode(1, past, work.batch) + self.head(work.batch)

    def activations(self, work: Workload) -> int:
        """Most numbers alive beside weights and cache: one layer's tensors, none reused, no attention scores.

        Six as wide as the model (residual, normed, queries, keys, values, attended) and three as wide as its inner
        layer, of tower or decoder, whichever is more; raw patches and the logits of the last position stay.
        """
        views = work.views * work.batch
        patches = views * (self.config.patches_per_view + self.config.vision.num_prefix_tokens)
        tower, text = self.config.vision_config, self.config.text_config
        layer = max(patches * _layer_width(tower), work.batch * self.prompt_tokens(work) * _layer_width(text))
        kept = patches * int(tower.hidden_size) + work.batch * int(text.vocab_size)
        return layer + kept


def _layer_width(config: Any) -> int:
    return 6 * int(config.hidden_size) + 3 * int(config.intermediate_size)


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _numel(module: nn.Module, kind: type[nn.Linear] | type[nn.Conv2d]) -> int:
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, kind))


def _matrices(module: nn.Module) -> int:
    """Weights of the linear layers inside a stack of layers, each of which every token passes once.

    Raises:
        ConfigError: where a layer has matrices that are no linear layer.
    """
    layers = [layer for stack in module.modules() if isinstance(stack, nn.ModuleList) for layer in stack]
    linears = {part for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)}
    known = {id(part.weight) for part in linears}
    for layer in layers:
        for name, parameter in layer.named_parameters():
            if parameter.ndim > 1 and id(parameter) not in known:
                raise ConfigError(
                    f"{type(module).__name__} has {name} {list(parameter.shape)} in a layer, which is no linear layer: "
                    "its work cannot be planned, measure it with `saccade bench`"
                )
    return sum(part.weight.numel() for part in linears)
