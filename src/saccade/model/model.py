"""The model without its output head: views and ids in, hidden states out."""

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.masking_utils import find_packed_sequence_indices
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling

from saccade.config import SaccadeConfig
from saccade.errors import ConfigError, PromptError
from saccade.model.compress import build_compressor
from saccade.model.layout import (
    check_query_tokens,
    check_view_index,
    place,
    query_positions_of,
    view_index_of,
)
from saccade.model.project import MultiModalProjector
from saccade.model.query import EmbeddedQuery, QueryCall, build_context, drop_call, rewrite_queries
from saccade.model.vision import build_vision_tower, extract_patches
from saccade.roles import TEXT, is_query


class SaccadePreTrainedModel(PreTrainedModel):
    """What transformers asks of every model of this family."""

    config_class = SaccadeConfig
    config: SaccadeConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]  # noqa: RUF012 (transformers declares it so)
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012 (transformers declares it so)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize what no backbone owns as the decoder does, but the queries as torch does."""
        super()._init_weights(module)
        if isinstance(module, EmbeddedQuery) and module.config.init != "dot":
            bound = 1 / math.sqrt(module.queries.shape[-1])
            init.uniform_(module.queries, -bound, bound)


class SaccadeModel(SaccadePreTrainedModel):
    """Vision tower, compressor, projector, decoder and embedded query, without the output head.

    Gradient checkpointing must be non-reentrant, the default: not every supported release of transformers lets the
    reentrant kind reach the query module. With `output_hidden_states`, the state at the input of a layer that the query
    module precedes is the one before the module rewrote it.
    """

    def __init__(self, config: SaccadeConfig) -> None:
        super().__init__(config)
        config.check()
        vision_dim, text_dim = config.vision_config.hidden_size, config.text_config.hidden_size
        self.vision_tower = build_vision_tower(config.vision_config, config.vision)
        self.compressor = build_compressor(config.compressor, vision_dim, config.grid)
        self.multi_modal_projector = MultiModalProjector(config.projector, config.token_dim, text_dim)
        self._as_torch = {*self.compressor.modules(), *self.multi_modal_projector.modules()}
        self.language_model = AutoModel.from_config(config.text_config)
        if config.query is not None:
            if not hasattr(self.language_model, "layers"):
                name = type(self.language_model).__name__
                raise ConfigError(f"the decoder {name} has no list named layers, where the query module would enter")
            self.embedded_query = EmbeddedQuery(config.query, vision_dim, text_dim)
            for index, layer in enumerate(self.language_model.layers):
                if index in config.query.before_layers:
                    layer.register_forward_pre_hook(rewrite_queries, with_kwargs=True)
                layer.register_forward_pre_hook(drop_call, with_kwargs=True)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize the linear layers and convolutions of compressor and projector as torch does.

        Layer by layer, because transformers passes over modules that have no parameter of their own. Tables of
        positions and queries start as the decoder's embeddings do, and the layers of a model inside a compressor as
        that model has it.
        """
        super()._init_weights(module)
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module in self._as_torch:
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's token embeddings."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def encode_views(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode views `[views, 3, side, side]` into raw patches `[views, patches, vision_dim]`."""
        config = self.config
        # With channels last the tower's first convolution leaves patches as all that follows reads them, row by row.
        # Measured on a processor alone.
        layout = torch.channels_last if pixel_values.is_cpu else torch.preserve_format
        pixel_values = pixel_values.to(self.dtype, memory_format=layout)
        return extract_patches(self.vision_tower, pixel_values, config.vision, config.patches_per_view)

    def project_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Compress and project raw patches `[views, patches, vision_dim]` to `[views, tokens, text_dim]`."""
        tokens: torch.Tensor = self.multi_modal_projector(self.compressor(patches))
        return tokens

    def get_image_features(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """Encode views.

        Args:
            pixel_values: `[views, 3, side, side]`, normalized.

        Returns:
            `last_hidden_state` `[views, patches, vision_dim]`, the raw patches, and `pooler_output`
            `[views, tokens, text_dim]`, the visual tokens.
        """
        patches = self.encode_views(pixel_values)
        return BaseModelOutputWithPooling(last_hidden_state=patches, pooler_output=self.project_patches(patches))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        mm_token_type_ids: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        view_index: torch.Tensor | None = None,
        query_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder over text, visual tokens and queries.

        A row may hold several conversations. Where `position_ids` restart, and neither a mask nor a cache is given, a
        token sees its own conversation only, and so do the queries. Such a call makes no cache.

        Args:
            input_ids: `[batch, seq]`, one placeholder id per visual token and per query token.
            pixel_values: `[views, 3, side, side]`; the views of all rows, in order.
            attention_mask: `[batch, seq]`, 0 on padding.
            position_ids: `[batch, seq]`.
            past_key_values: A cache.
            inputs_embeds: `[batch, seq, text_dim]`, already holding visual and query tokens, instead of `input_ids`.
            mm_token_type_ids: Roles `[batch, seq]` (see `saccade.roles`); needed when there are query tokens.
            image_features: Raw patches `[views, patches, vision_dim]`, instead of `pixel_values`.
            view_index: `[batch, slots]`, the view in each slot of a row, -1 for none; several rows may share a view.
                Taken in order from the rows' image tokens when absent.
            query_positions: `[batch, queries]`, ascending, -1 for none; from the roles when absent.
            **kwargs: Passed on to the decoder.

        Raises:
            PlaceholderMismatchError: when a row's image tokens do not match its views.
            PromptError: when there are query tokens but no roles, or both or neither of ids and embeddings.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise PromptError("pass exactly one of input_ids and inputs_embeds")
        conversations = None
        if position_ids is not None and attention_mask is None and past_key_values is None:
            conversations = find_packed_sequence_indices(position_ids)
        if conversations is not None:
            kwargs["use_cache"] = False  # beside a cache the decoder would take the row for one conversation
        if input_ids is not None:
            patches = self._patches(pixel_values, image_features)
            inputs_embeds, call = self._embed(
                input_ids, patches, mm_token_type_ids, view_index, query_positions, conversations
            )
            if call is not None:
                kwargs["embedded_query"] = call
        outputs: BaseModelOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return outputs

    def _patches(self, pixel_values: torch.Tensor | None, features: torch.Tensor | None) -> torch.Tensor | None:
        if pixel_values is not None and features is not None:
            raise PromptError("pass pixel_values or image_features, not both")
        if pixel_values is not None:
            return self.encode_views(pixel_values)
        return features if features is None else features.to(self.dtype)

    def _embed(
        self,
        input_ids: torch.Tensor,
        patches: torch.Tensor | None,
        roles: torch.Tensor | None,
        view_index: torch.Tensor | None,
        query_positions: torch.Tensor | None,
        conversations: torch.Tensor | None,
    ) -> tuple[torch.Tensor, QueryCall | None]:
        """Embed ids, put visual and query tokens in their places, and prepare the query module's call."""
        if input_ids.shape[1] > 1 and not torch.compiler.is_compiling():
            view_index = self._checked_view_index(input_ids, patches, roles, view_index)
        if self.training and torch.is_grad_enabled():
            patches, roles, view_index, query_positions = self._reach_every_module(
                input_ids, patches, roles, view_index, query_positions
            )
        tokens = None
        if patches is not None:
            if view_index is None:
                raise PromptError("a compiled model, or a prompt of one token, needs view_index beside its pictures")
            tokens = self.project_patches(patches)[view_index.clamp(min=0)].flatten(1, 2)
        embeds = self.embed(input_ids, tokens, roles)
        if roles is None or patches is None or view_index is None:
            return embeds, None
        call = self.query_call(input_ids, roles, query_positions, patches, view_index, conversations=conversations)
        return embeds, call

    def _reach_every_module(
        self,
        input_ids: torch.Tensor,
        patches: torch.Tensor | None,
        roles: torch.Tensor | None,
        view_index: torch.Tensor | None,
        query_positions: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        """Give rows without pictures a view that none of them shows, and rows without queries one that stands nowhere.

        Processes that train together wait for each other at every module (FSDP) and every gradient (DDP). One whose
        rows happen to be text alone must run the same modules; its gradients for them are zero, but they are there.
        """
        nowhere = input_ids.new_full((input_ids.shape[0], 1), -1)
        if patches is None:
            side = self.config.image.side
            patches = self.encode_views(torch.zeros(1, 3, side, side, device=input_ids.device))
            view_index = nowhere
        if self.config.query is not None:
            roles = torch.full_like(input_ids, TEXT) if roles is None else roles
            query_positions = query_positions_of(roles) if query_positions is None else query_positions
            query_positions = query_positions if query_positions.shape[1] else nowhere
        return patches, roles, view_index, query_positions

    def embed(
        self, input_ids: torch.Tensor, visual_tokens: torch.Tensor | None, roles: torch.Tensor | None
    ) -> torch.Tensor:
        """Embed ids `[batch, seq]`, with visual and query tokens in their places.

        Args:
            input_ids: `[batch, seq]`.
            visual_tokens: Projected tokens `[batch, slots, text_dim]`: the n-th image id of a row gets its row's n-th.
            roles: `[batch, seq]`; without them no query embeddings are placed.

        Returns:
            `[batch, seq, text_dim]`.
        """
        embeds: torch.Tensor = self.get_input_embeddings()(input_ids)
        if visual_tokens is not None:
            embeds = place(embeds, input_ids == self.config.image_token_id, visual_tokens)
        if self.config.query is None or roles is None:
            return embeds
        mask = is_query(roles)
        queries = self.embedded_query.embeddings(self.get_input_embeddings())
        ordinal = (mask.cumsum(dim=1) - 1) % queries.shape[0]  # every set of a row starts again with the first
        return torch.where(mask.unsqueeze(-1), queries[ordinal].to(embeds.dtype), embeds)

    def query_call(
        self,
        input_ids: torch.Tensor,
        roles: torch.Tensor,
        query_positions: torch.Tensor | None,
        patches: torch.Tensor,
        view_index: torch.Tensor,
        image_tokens_before: torch.Tensor | None = None,
        conversations: torch.Tensor | None = None,
    ) -> QueryCall | None:
        """Say what the query tokens of a batch read; the decoder takes it as the argument `embedded_query`.

        Args:
            input_ids: `[batch, seq]`.
            roles: `[batch, seq]`.
            query_positions: `[batch, queries]`, -1 for none; from the roles when absent.
            patches: Raw patches `[views, patches, vision_dim]`.
            view_index: `[batch, slots]`, the views of each row, -1 for none.
            image_tokens_before: `[batch]`, visual tokens of a row that stand before `input_ids`, in a cache.
            conversations: `[batch or 1, seq]`, see `build_context`.

        Returns:
            The call; None for a model without queries, or where there are none.
        """
        if self.config.query is None:
            return None
        if query_positions is None:
            query_positions = query_positions_of(roles)
        if query_positions.shape[1] == 0:
            return None
        image_mask = input_ids == self.config.image_token_id
        seen = image_mask.cumsum(dim=1)
        if image_tokens_before is not None:
            seen = seen + image_tokens_before.unsqueeze(1)
        context = build_context(
            roles, query_positions, seen, patches, view_index, self.config.tokens_per_view, conversations
        )
        return QueryCall(self.embedded_query, context)

    def _checked_view_index(
        self,
        input_ids: torch.Tensor,
        patches: torch.Tensor | None,
        roles: torch.Tensor | None,
        view_index: torch.Tensor | None,
    ) -> torch.Tensor:
        """Check placeholders against what stands for them, and return `view_index`, derived where it is absent."""
        config = self.config
        image_mask = input_ids == config.image_token_id
        if config.query_token_id is not None:
            check_query_tokens(input_ids, roles, config.query_token_id)
        num_views = 0 if patches is None else patches.shape[0]
        if view_index is None:
            return view_index_of(image_mask, config.tokens_per_view, num_views)
        check_view_index(image_mask, view_index, config.tokens_per_view, num_views)
        return view_index
