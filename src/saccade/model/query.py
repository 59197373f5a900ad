"""EmbQ: query tokens that look, inside the decoder, at the instruction and then at the raw patches.

FlashSloth, Sec. 3.3, Eqs. 5-6. Queries do not see each other here, so a set needs no structure of its own: every query
token reads the tokens of its instruction (see `saccade.roles`) and the views that stand before it in its conversation.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from saccade.config import QueryConfig
from saccade.model.layout import place
from saccade.roles import is_query


class QueryContext(NamedTuple):
    """What the query tokens of a batch may read; the same at every decoder layer.

    Attributes:
        mask: bool `[batch, seq]`, true on query tokens.
        positions: `[batch, queries]`, ascending; -1 beyond a row's last query.
        text_mask: bool `[batch, queries, seq]`, true on the instruction a query reads.
        patches: `[views, patches, vision_dim]`, raw.
        view_index: `[batch, slots]`, -1 for an empty slot.
        view_mask: bool `[batch, queries, slots]`, true on the views a query may see.
    """

    mask: torch.Tensor
    positions: torch.Tensor
    text_mask: torch.Tensor
    patches: torch.Tensor
    view_index: torch.Tensor
    view_mask: torch.Tensor


def build_context(
    roles: torch.Tensor,
    positions: torch.Tensor,
    image_tokens: torch.Tensor,
    patches: torch.Tensor,
    view_index: torch.Tensor,
    tokens_per_view: int,
    conversations: torch.Tensor | None = None,
) -> QueryContext:
    """Work out what each query token reads.

    Args:
        roles: `[batch, seq]`.
        positions: `[batch, queries]`, -1 padded.
        image_tokens: `[batch, seq]`, how many visual tokens of its row stand at or before each token.
        patches: `[views, patches, vision_dim]`.
        view_index: `[batch, slots]`, -1 padded.
        tokens_per_view: Visual tokens of one view.
        conversations: `[batch or 1, seq]`, ascending: which conversation of its row a token belongs to; None when each
            row is one.
    """
    valid = positions >= 0
    at = positions.clamp(min=0)
    own = roles.gather(1, at) - 1
    text_mask = (roles.unsqueeze(1) == own.unsqueeze(-1)) & valid.unsqueeze(-1)
    seen_tokens = image_tokens.gather(1, at)
    slots = torch.arange(1, view_index.shape[1] + 1, device=roles.device)
    complete = slots * tokens_per_view <= seen_tokens.unsqueeze(-1)
    view_mask = complete & (view_index >= 0).unsqueeze(1) & valid.unsqueeze(-1)
    if conversations is not None:
        of_token = conversations.expand_as(roles).unsqueeze(1)
        of_query = of_token.squeeze(1).gather(1, at).unsqueeze(-1)
        before = (image_tokens.unsqueeze(1) * (of_token < of_query)).amax(dim=-1, keepdim=True)
        text_mask = text_mask & (of_token == of_query)
        view_mask = view_mask & (slots * tokens_per_view > before)
    return QueryContext(is_query(roles), positions, text_mask, patches, view_index, view_mask)


class CrossAttention(nn.Module):
    """Multi-head attention without an output projection; keys and values may differ in width."""

    def __init__(self, query_dim: int, key_dim: int, value_dim: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(query_dim, dim)
        self.k_proj = nn.Linear(key_dim, dim)
        self.v_proj = nn.Linear(value_dim, value_dim)

    def project(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Project keys `[..., key_dim]` and values `[..., value_dim]`; apart, so shared views are projected once."""
        return self.k_proj(keys), self.v_proj(values)

    def forward(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend, scores and softmax in float32.

        Args:
            queries: `[batch, queries, query_dim]`, not yet projected.
            keys: `[batch, keys, dim]`, projected.
            values: `[batch, keys, value_dim]`, projected.
            mask: bool `[batch, queries, keys]`.

        Returns:
            Output `[batch, queries, value_dim]` and weights float32 `[batch, heads, queries, keys]`; a query whose mask
            is empty gets zeros.
        """
        query_heads, key_heads, value_heads = (
            x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for x in (self.q_proj(queries), keys, values)
        )
        scores = (query_heads @ key_heads.transpose(-1, -2)).float() / math.sqrt(query_heads.shape[-1])
        mask = mask.unsqueeze(1)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=-1) * mask
        output = weights.to(value_heads.dtype) @ value_heads
        return output.transpose(1, 2).flatten(-2), weights


class EmbeddedQueryLayer(nn.Module):
    """Queries attend the instruction, then the picture with what they found (Eqs. 5 and 6)."""

    def __init__(self, config: QueryConfig, vision_dim: int) -> None:
        super().__init__()
        dim, heads = config.hidden_size, config.num_heads
        self.text_attention = CrossAttention(dim, dim, dim, dim, heads)
        self.image_attention = CrossAttention(dim, dim, vision_dim, dim, heads)
        self.text_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.query_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)
        self.image_norm = nn.LayerNorm(dim, eps=config.layer_norm_eps)

    def forward(
        self, queries: torch.Tensor, text: torch.Tensor, image: torch.Tensor, context: QueryContext
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read text and picture.

        Args:
            queries: `[batch, queries, dim]`, down-projected.
            text: `[batch, seq, dim]`, down-projected.
            image: `[views, patches, dim]`, down-projected.
            context: What each query may read; its raw patches are the values.

        Returns:
            `[batch, queries, vision_dim]`, and the weights over text and over patches
            (float32 `[batch, heads, queries, seq]` and `[batch, heads, queries, slots * patches]`).
        """
        text = self.text_norm(text)
        keys, values = self.text_attention.project(text, text)
        found, text_weights = self.text_attention(self.query_norm(queries), keys, values, context.text_mask)
        keys, values = self.image_attention.project(self.image_norm(image), context.patches)
        view_index = context.view_index.clamp(min=0)
        mask = context.view_mask.repeat_interleave(image.shape[1], dim=-1)
        seen, image_weights = self.image_attention(
            found, keys[view_index].flatten(1, 2), values[view_index].flatten(1, 2), mask
        )
        return seen, text_weights, image_weights


class EmbeddedQuery(nn.Module):
    """The query embeddings and the module that rewrites them before a decoder layer."""

    def __init__(self, config: QueryConfig, vision_dim: int, text_dim: int) -> None:
        super().__init__()
        self.config = config
        if config.init != "dot":
            self.queries = nn.Parameter(torch.empty(config.num_queries, text_dim))
        self.text_down = nn.Linear(text_dim, config.hidden_size)
        self.image_down = nn.Linear(vision_dim, config.hidden_size)
        self.layers = nn.ModuleList([EmbeddedQueryLayer(config, vision_dim) for _ in range(config.num_layers)])
        self.up = nn.Linear(vision_dim, text_dim)
        if config.fusion == "gate":
            self.gate = nn.Linear(2 * text_dim, text_dim)

    def embeddings(self, embed_tokens: nn.Module) -> torch.Tensor:
        """Input embeddings `[queries, text_dim]` of one set.

        They are computed at every call: with an offset, the gradient reaches both the offset and the token's own row.
        """
        if self.config.init == "random":
            return self.queries
        token = torch.tensor([self.config.init_token_id], device=self.up.weight.device)
        anchor: torch.Tensor = embed_tokens(token)
        if self.config.init == "dot":
            return anchor.expand(self.config.num_queries, -1)
        return self.queries + anchor

    def fuse(self, queries: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
        """Join a query's hidden state with what it found, both `[batch, queries, text_dim]` (appendix A.2)."""
        if self.config.fusion == "replace":
            return found
        if self.config.fusion == "gate":
            gate = torch.sigmoid(self.gate(torch.cat([queries, found], dim=-1)))
            return gate * queries + (1 - gate) * found
        return queries + found

    def forward(self, hidden: torch.Tensor, context: QueryContext) -> torch.Tensor:
        """Rewrite the query tokens of `hidden` `[batch, seq, text_dim]`; a query that sees no view stays as it is."""
        at = context.positions.clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        queries = hidden.gather(1, at)
        text, image = self.text_down(hidden), self.image_down(context.patches)
        sees = context.view_mask.any(dim=-1, keepdim=True)
        for layer in self.layers:
            found, _, _ = layer(self.text_down(queries), text, image, context)
            queries = torch.where(sees, self.fuse(queries, self.up(found)), queries)
        return place(hidden, context.mask, queries)


class QueryCall(NamedTuple):
    """The query module with its context, on its way to the decoder layer that calls it.

    It travels as the keyword argument `embedded_query` of the decoder: hooks stay stateless, so a deep copy of a
    model calls its own module.
    """

    module: EmbeddedQuery
    context: QueryContext


def rewrite_queries(
    _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook of a decoder layer: apply the `embedded_query` it was handed to its input."""
    call: QueryCall | None = kwargs.get("embedded_query")
    if call is None:
        return args, kwargs
    if args:
        return (call.module(args[0], call.context), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": call.module(kwargs["hidden_states"], call.context)}


def drop_call(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Forward pre-hook of every decoder layer, after `rewrite_queries`: attention kernels never see the argument."""
    return args, {name: value for name, value in kwargs.items() if name != "embedded_query"}
