"""The model with its output head: logits, the loss, and what generation needs."""

from typing import Any

import torch
from torch import nn
from transformers import GenerationMixin
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from saccade.config import SaccadeConfig
from saccade.errors import PromptError
from saccade.model.layout import view_index_of
from saccade.model.loss import next_token_loss
from saccade.model.model import SaccadeModel, SaccadePreTrainedModel

PREFILL_ONLY = ("pixel_values", "image_features", "view_index", "query_positions")


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
        shifted inside; the loss is the mean over those that are not -100, or their sum over `num_items_in_batch`.
        `logits_to_keep` says how many last positions (or which ones) get logits; 0 for all. The loss is that of all
        positions whatever it says: to train, keep 1, and `[batch, seq, vocab]` is never built (see `next_token_loss`).
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
        states = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(states[:, kept, :])
        loss = None
        if labels is not None and isinstance(logits_to_keep, int) and logits_to_keep == 0:
            loss = self.loss_function(
                logits=logits, labels=labels, vocab_size=logits.shape[-1], num_items_in_batch=num_items
            )
        elif labels is not None:
            loss = next_token_loss(self.lm_head, states, labels, logits.shape[-1], num_items)
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
            config, patches = self.config, next(iter(views.values()))
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
