"""The small parts of a model's configuration: patches, projector, embedded query."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from saccade.config.frozen import Frozen


class VisionFeatureConfig(Frozen):
    """Which of the tower's hidden states are the patches.

    Attributes:
        layer: Index into the tower's hidden states as in `hidden_states[layer]`, negative from the end; later layers
            are never built. -1 is the output of the last layer, -2 of the one before.
        post_norm: Whether the tower's final norm, where its `last_hidden_state` passes through one, is applied to that
            state. True leaves the tower as it is, so of a tower that norms its pooled output alone, as CLIP does, it
            gives the state without.
        norm_module: Name of the final norm inside the tower, replaced by an identity when `post_norm` is false.
        num_prefix_tokens: Leading tokens that are not patches (a class token, registers); dropped. A number that
            leaves more or fewer than the patches is refused when a view is encoded.
    """

    layer: Annotated[int, Field(le=-1)] = -1
    post_norm: bool = True
    norm_module: str = "post_layernorm"
    num_prefix_tokens: Annotated[int, Field(ge=0)] = 0


class ProjectorConfig(Frozen):
    """A multilayer perceptron from the visual tokens' width to the decoder's, activation between its linear layers.

    Attributes:
        hidden_sizes: Widths between input and output; empty means one linear layer. None means no linear layer at all:
            the compressor's tokens already have the decoder's width.
        input_norm: Whether a LayerNorm precedes the first linear layer.
        activation: A name from transformers' `ACT2FN`; "gelu" is the exact (erf) form.
        layer_norm_eps: Epsilon of the input norm.
    """

    hidden_sizes: tuple[PositiveInt, ...] | None = ()
    input_norm: bool = False
    activation: str = "gelu"
    layer_norm_eps: float = 1e-5


class QueryConfig(Frozen):
    """The embedded query module, EmbQ (FlashSloth, Sec. 3.3).

    Attributes:
        num_queries: Query tokens in a set.
        hidden_size: Width in which queries, text and patches meet.
        num_heads: Attention heads; divides `hidden_size` and the patch width.
        num_layers: Text-then-picture attention layers inside the module.
        before_layers: Decoder layers (0-based) whose input the module rewrites; one module serves all.
        fusion: How its output joins the query's hidden state: "add", "replace" or "gate" (appendix A.2).
        init: "dot_offset" learns an offset to the embedding of `init_token_id`; "dot" is that embedding, fixed to the
            table; "random" learns the queries alone (Table 3).
        init_token_id: The token whose embedding starts the queries.
        layer_norm_eps: Epsilon of the three norms.
    """

    num_queries: PositiveInt = 9
    hidden_size: PositiveInt
    num_heads: PositiveInt
    num_layers: PositiveInt = 1
    before_layers: tuple[Annotated[int, Field(ge=0)], ...]
    fusion: Literal["add", "replace", "gate"] = "add"
    init: Literal["dot_offset", "dot", "random"] = "dot_offset"
    init_token_id: Annotated[int, Field(ge=0)] = 0
    layer_norm_eps: float = 1e-5
