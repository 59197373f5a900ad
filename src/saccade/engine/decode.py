"""One more token for every conversation: a function of buffers that stay where they are, with nothing to wait for."""

from dataclasses import dataclass

import torch

from saccade.engine.attend import visible
from saccade.engine.sampling import choose_tokens
from saccade.engine.slots import Slots, Window
from saccade.model import SaccadeForConditionalGeneration


@dataclass(frozen=True, slots=True)
class State:
    """What a decoding step knows of every slot; all tensors live on the model's device.

    Attributes:
        tokens: The last token of each conversation, not yet in its slot `[slots]`.
        positions: Where that token goes `[slots]`.
        working: 1 where a conversation is being answered, else 0 `[slots]`.
        temperature: `[slots]`.
        top_p: `[slots]`.
        draws: Random numbers, uniform in [0, 1), one for the choice made at each position `[slots, length + 1]`.
        hushed: bool `[vocab]`, ids that are never chosen.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    working: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor
    draws: torch.Tensor
    hushed: torch.Tensor

    @classmethod
    def empty(cls, slots: int, length: int, vocab: int, hushed: list[int], device: torch.device) -> "State":
        """Return the state in which no slot is in work."""
        silent = torch.zeros(vocab, dtype=torch.bool, device=device)
        silent[hushed] = True
        return cls(
            tokens=torch.zeros(slots, dtype=torch.int64, device=device),
            positions=torch.zeros(slots, dtype=torch.int64, device=device),
            working=torch.zeros(slots, dtype=torch.int64, device=device),
            temperature=torch.zeros(slots, device=device),
            top_p=torch.ones(slots, device=device),
            draws=torch.zeros(slots, length + 1, device=device),
            hushed=silent,
        )

    def choose(
        self, logits: torch.Tensor, rows: torch.Tensor | slice, positions: torch.Tensor, draw: bool
    ) -> torch.Tensor:
        """Choose the next token of some slots from `logits` `[batch, vocab]`; -1 where they are not finite.

        `draw` is false where all are greedy.
        """
        finite = logits.sum(dim=-1).isfinite()
        logits = logits.masked_fill(self.hushed, -torch.inf)
        if draw:
            draws = self.draws[rows].gather(1, positions.unsqueeze(1)).squeeze(1)
            ids = choose_tokens(logits, self.temperature[rows], self.top_p[rows], draws)
        else:
            ids = logits.argmax(dim=-1)
        return torch.where(finite, ids, -1)


def decode(
    model: SaccadeForConditionalGeneration, slots: Slots, state: State, batch: int, length: int, draw: bool
) -> torch.Tensor:
    """Feed the last token of the first `batch` slots and choose the next ones.

    Slots that are not in work run along: what they compute is written where the next prompt will overwrite it.

    Args:
        model: The model.
        slots: Keys and values.
        state: Its tokens and positions move on by one.
        batch: How many slots, counted from the first.
        length: How many positions of each are read; more than the largest position.
        draw: Whether any of them draws its tokens.

    Returns:
        The new ids `[batch]`.
    """
    rows = slice(0, batch)
    positions = state.positions[rows]
    window = Window(rows, positions.unsqueeze(1), length)
    hidden = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(state.tokens[rows].unsqueeze(1)),
        attention_mask=visible(window.positions, length),
        position_ids=slots.turned(window.positions),
        past_key_values=slots.at(window),
        use_cache=True,
    ).last_hidden_state
    ids = state.choose(model.lm_head(hidden[:, -1]).float(), rows, positions, draw)
    state.tokens[rows] = ids.clamp(min=0)
    # A conversation whose last token is still on its way to the host runs along beyond its end.
    state.positions[rows] = (positions + state.working[rows]).clamp(max=slots.spare)
    return ids
