"""The model: views and ids in, hidden states or logits out."""

import math
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast

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
from saccade.roles import is_query

PREFILL_ONLY = ("pixel_values", "image_features", "view_index", "query_positions")


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
        return extract_patches(self.vision_tower, pixel_values.to(self.dtype), config.vision, config.patches_per_view)

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
        if input_ids is not None:
            inputs_embeds, call = self._embed(
                input_ids, self._patches(pixel_values, image_features), mm_token_type_ids, view_index, query_positions
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
    ) -> tuple[torch.Tensor, QueryCall | None]:
        """Embed ids, put visual and query tokens in their places, and prepare the query module's call."""
        if input_ids.shape[1] > 1 and not torch.compiler.is_compiling():
            view_index = self._checked_view_index(input_ids, patches, roles, view_index)
        tokens = None
        if patches is not None:
            if view_index is None:
                raise PromptError("a compiled model, or a prompt of one token, needs view_index beside its pictures")
            tokens = self.project_patches(patches)[view_index.clamp(min=0)].flatten(1, 2)
        embeds = self.embed(input_ids, tokens, roles)
        if roles is None or patches is None or view_index is None:
            return embeds, None
        return embeds, self.query_call(input_ids, roles, query_positions, patches, view_index)

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
    ) -> QueryCall | None:
        """Say what the query tokens of a batch read; the decoder takes it as the argument `embedded_query`.

        Args:
            input_ids: `[batch, seq]`.
            roles: `[batch, seq]`.
            query_positions: `[batch, queries]`, -1 for none; from the roles when absent.
            patches: Raw patches `[views, patches, vision_dim]`.
            view_index: `[batch, slots]`, the views of each row, -1 for none.
            image_tokens_before: `[batch]`, visual tokens of a row that stand before `input_ids`, in a cache.

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
        context = build_context(roles, query_positions, seen, patches, view_index, self.config.tokens_per_view)
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


class SaccadeForConditionalGeneration(SaccadePreTrainedModel, GenerationMixin):
    """The model with its output head: answers questions about pictures."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012 (as above)

    def __init__(self, config: SaccadeConfig) -> None:
        super().__init__(config)
        self.model = SaccadeModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.lm_head_bias)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's token embeddings."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the output head."""
        head: nn.Module = self.lm_head
        return head

    def get_image_features(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutputWithPooling:
        """See `SaccadeModel.get_image_features`."""
        features: BaseModelOutputWithPooling = self.model.get_image_features(pixel_values)
        return features

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
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Compute logits `[batch, kept, vocab]` and, with labels, the loss.

        The other arguments are those of `SaccadeModel.forward`. `labels` `[batch, seq]` align with `input_ids` and are
        shifted inside; the loss is the mean over those that are not -100. `logits_to_keep` says how many last positions
        (or which ones) get logits; 0 for all.
        """
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            mm_token_type_ids=mm_token_type_ids,
            image_features=image_features,
            view_index=view_index,
            query_positions=query_positions,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept, :])
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Any = None, **kwargs: Any
    ) -> tuple[Any, dict[str, Any]]:
        """Repeat rows for beams and several returned sequences; the repeated rows share their views."""
        views = {name: kwargs.pop(name, None) for name in ("pixel_values", "image_features")}
        views = {name: value for name, value in views.items() if value is not None}
        if views and expand_size > 1 and input_ids is not None and kwargs.get("view_index") is None:
            config, (patches,) = self.config, views.values()
            image_mask = input_ids == config.image_token_id
            kwargs["view_index"] = view_index_of(image_mask, config.tokens_per_view, patches.shape[0])
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **kwargs
        )
        return input_ids, kwargs | views

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, *, is_first_iteration: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Give pictures and placements to the prefill only, or to every step when there is no cache.

        Raises:
            PromptError: when rows are padded on the right: a row's first new token would follow its padding.
        """
        mask = kwargs.get("attention_mask")
        if is_first_iteration and mask is not None and mask.ndim == 2 and not bool(mask[:, -1].all()):
            raise PromptError("rows padded on the right give wrong answers: pad them on the left to generate")
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(  # type: ignore[misc]
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in (*PREFILL_ONLY, "mm_token_type_ids"):
                inputs.pop(name, None)
        return inputs
