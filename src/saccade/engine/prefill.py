"""Prompts into slots: what a slot does not hold yet goes through the decoder, several prompts at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from saccade.data.collate import pad, place_views
from saccade.engine.attend import visible
from saccade.engine.prompts import Prompt
from saccade.engine.slots import Slots, Window, to_device
from saccade.model import SaccadeForConditionalGeneration
from saccade.roles import TEXT, is_query

_PAD_ID = 0  # any id of the decoder: what padding becomes is never read


@dataclass(frozen=True, slots=True)
class Arrival:
    """A prompt that goes into a slot.

    Attributes:
        prompt: The prompt.
        slot: Its slot.
        held: How many of its first tokens the slot holds already.
    """

    prompt: Prompt
    slot: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Prefill:
    """Arrivals as tensors, padded on the right.

    Attributes:
        window: Where they are written and read.
        input_ids: `[batch, seq]`, without the tokens that are held.
        roles: `[batch, seq]`.
        last: The place of each row's last token `[batch]`.
        visual_tokens: `[batch, most visual tokens of a row, text_dim]`, or None where none is new.
        patches: Raw patches of all pictures that query tokens may read `[views, patches, vision_dim]`, or None.
        view_index: `[batch, most views of a row]`.
        query_positions: `[batch, most query tokens of a row]`, or None.
        image_tokens_before: Visual tokens that are held, `[batch]`.
    """

    window: Window
    input_ids: torch.Tensor
    roles: torch.Tensor
    last: torch.Tensor
    visual_tokens: torch.Tensor | None
    patches: torch.Tensor | None
    view_index: torch.Tensor
    query_positions: torch.Tensor | None
    image_tokens_before: torch.Tensor


def prepare(arrivals: Sequence[Arrival], spare: int, device: torch.device) -> Prefill:
    """Lay arrivals out as tensors.

    Args:
        arrivals: At least one.
        spare: The position that padding is written to.
        device: Where the model is.
    """
    roles = pad([one.prompt.roles[one.held :] for one in arrivals], TEXT, "right")
    places = [list(range(one.held, len(one.prompt))) for one in arrivals]
    queries = [row.nonzero().flatten().tolist() for row in is_query(roles)]
    distinct, view_index = place_views([[picture.patches for picture in one.prompt.pictures] for one in arrivals])
    before = [one.prompt.image_tokens(0, one.held) for one in arrivals]
    window = Window(
        rows=_rows([one.slot for one in arrivals], device),
        positions=to_device(pad(places, spare, "right"), device),
        length=max(len(one.prompt) for one in arrivals),
        start=places[0][0] if all(row == places[0] for row in places) else None,
    )
    return Prefill(
        window=window,
        input_ids=to_device(pad([one.prompt.ids[one.held :] for one in arrivals], _PAD_ID, "right"), device),
        roles=to_device(roles, device),
        last=to_device([len(row) - 1 for row in places], device),
        visual_tokens=_new_tokens(arrivals),
        patches=torch.cat(distinct) if distinct and any(queries) else None,
        view_index=to_device(view_index, device),
        query_positions=to_device(pad(queries, -1, "right"), device) if any(queries) else None,
        image_tokens_before=to_device(before, device),
    )


def prefill(model: SaccadeForConditionalGeneration, slots: Slots, batch: Prefill) -> torch.Tensor:
    """Write the keys and values of a batch into its slots.

    Returns:
        The logits after the last token of each row, float32 `[batch, vocab]`.
    """
    call = None
    if batch.patches is not None:
        call = model.model.query_call(
            batch.input_ids,
            batch.roles,
            batch.query_positions,
            batch.patches,
            batch.view_index,
            batch.image_tokens_before,
        )
    outputs = model.model.language_model(
        inputs_embeds=model.model.embed(batch.input_ids, batch.visual_tokens, batch.roles),
        attention_mask=visible(batch.window.positions, batch.window.length),
        position_ids=slots.turned(batch.window.positions),
        past_key_values=slots.at(batch.window),
        use_cache=True,
        **({} if call is None else {"embedded_query": call}),
    )
    at = batch.last[:, None, None].expand(-1, 1, outputs.last_hidden_state.shape[-1])
    logits: torch.Tensor = model.lm_head(outputs.last_hidden_state.gather(1, at).squeeze(1))
    return logits.float()


def _rows(slots: list[int], device: torch.device) -> torch.Tensor | slice:
    if slots == list(range(slots[0], slots[0] + len(slots))):
        return slice(slots[0], slots[0] + len(slots))
    return to_device(slots, device)


def _new_tokens(arrivals: Sequence[Arrival]) -> torch.Tensor | None:
    """Visual tokens of each row that no slot holds yet, padded."""
    rows = []
    for one in arrivals:
        tokens = [picture.tokens.flatten(0, 1) for picture in one.prompt.pictures]
        rows.append(torch.cat(tokens)[one.prompt.image_tokens(0, one.held) :] if tokens else None)
    new = [row for row in rows if row is not None and len(row)]
    if not new:
        return None
    padded = new[0].new_zeros(len(rows), max(map(len, new)), new[0].shape[-1])
    for index, row in enumerate(rows):
        if row is not None:
            padded[index, : len(row)] = row
    return padded
