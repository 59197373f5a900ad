"""The next token of every row, chosen on the device: greedy and drawing rows side by side, no wait for the host."""

import torch


def choose_tokens(
    logits: torch.Tensor, temperature: torch.Tensor, top_p: torch.Tensor, draw: torch.Tensor
) -> torch.Tensor:
    """Choose a token for each row.

    A row's choice depends on its own logits and its own random number alone, so it is the same in every batch.

    Args:
        logits: float32 `[batch, vocab]`.
        temperature: `[batch]`; 0 takes the likeliest token.
        top_p: `[batch]`; the draw is from the likeliest tokens that hold this much probability together.
        draw: `[batch]`, uniform in [0, 1).

    Returns:
        Ids `[batch]`.
    """
    greedy = temperature <= 0
    scaled = logits / torch.where(greedy, torch.ones_like(temperature), temperature).unsqueeze(1)
    ordered, ids = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    total = ordered.cumsum(dim=-1)
    kept = (total - ordered) < top_p.unsqueeze(1)
    mass = torch.where(kept, ordered, torch.zeros_like(ordered)).sum(dim=-1)
    place = (total <= (draw * mass).unsqueeze(1)).sum(dim=-1)
    place = torch.minimum(place, kept.sum(dim=-1) - 1).clamp(
        min=0
    )  # rounding may leave it just outside of what is kept
    drawn = ids.gather(1, place.unsqueeze(1)).squeeze(1)
    return torch.where(greedy, logits.argmax(dim=-1), drawn)
