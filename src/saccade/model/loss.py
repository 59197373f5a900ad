"""The loss on the next token, without the logits of a whole batch."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from saccade.prompt.encode import IGNORE

# Logits held at a time, all rows of a part together: 256 MiB in float32.
HELD = 2**26


def next_token_loss(
    head: nn.Module,
    states: torch.Tensor,
    labels: torch.Tensor,
    vocab_size: int,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Cross entropy of the next tokens, with logits only where a label counts, and only some of them at a time.

    What is computed in several parts is computed again in the backward pass, so that no more than `HELD` logits and
    what the softmax makes of them are in memory at once. Without any label the loss is zero, with gradients of zero.

    Under FSDP the head must not be a unit of its own: processes call it for as many parts as their labels need.

    Args:
        head: Makes logits `[tokens, vocab]` of states `[tokens, dim]`.
        states: `[batch, seq, dim]`.
        labels: `[batch, seq]`, aligned with the input; -100 where nothing is trained.
        vocab_size: Width of the logits.
        num_items: What the sum is divided by; the number of labels when absent.

    Returns:
        float32, a scalar.
    """
    states, targets = states[:, :-1].flatten(0, 1), labels[:, 1:].flatten().to(states.device)
    counted = targets != IGNORE
    if not torch.compiler.is_compiling():  # a compiled graph has the shapes of all labels, whatever they say
        states, targets = states[counted], targets[counted]
    parts = list(zip(*(x.split(max(1, HELD // vocab_size)) for x in (states, targets)), strict=True))
    if len(parts) == 1:
        total = _summed(head, *parts[0])
    else:
        losses = [checkpoint(_summed, head, *part, use_reentrant=False) for part in parts]
        total = torch.stack(losses).sum()
    return total / (counted.sum().clamp(min=1) if num_items is None else num_items)


def _summed(head: nn.Module, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(head(states).float(), targets, ignore_index=IGNORE, reduction="sum")
