"""Where visual and query tokens stand in the rows: index tensors of static shape, and the placement that uses them."""

import torch

from saccade.errors import PlaceholderMismatchError, PromptError
from saccade.roles import is_query


def place(target: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """Put the n-th source vector of each row where the row's mask is true for the n-th time.

    Shapes never depend on the mask's values, so the graph compiles whole.

    Args:
        target: `[batch, seq, dim]`.
        mask: bool `[batch, seq]`.
        source: `[batch, slots, dim]` with at least as many slots as the mask has true values in any row.

    Returns:
        `[batch, seq, dim]`.
    """
    ordinal = (mask.cumsum(dim=1) - 1).clamp(min=0, max=source.shape[1] - 1)
    gathered = source.gather(1, ordinal.unsqueeze(-1).expand(-1, -1, source.shape[-1]))
    return torch.where(mask.unsqueeze(-1), gathered.to(target.dtype), target)


def query_positions_of(roles: torch.Tensor) -> torch.Tensor:
    """Positions `[batch, queries]` of each row's query tokens, ascending, -1 beyond the row's last.

    The width is the largest count of any row: a host synchronization on accelerators. Give `query_positions` to avoid
    it.
    """
    mask: torch.Tensor = is_query(roles)
    width = int(mask.sum(dim=1).max())
    order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
    return order.masked_fill(~mask.gather(1, order), -1)


def view_index_of(image_mask: torch.Tensor, tokens_per_view: int, num_views: int) -> torch.Tensor:
    """Views `[batch, slots]` of each row, taken in order, -1 beyond the row's last; from the count of its image tokens.

    Args:
        image_mask: bool `[batch, seq]`, true on visual tokens.
        tokens_per_view: Visual tokens of one view.
        num_views: Views given for the whole batch.

    Raises:
        PlaceholderMismatchError: when a row's count is no whole number of views, or the rows do not use up the views.
    """
    counts = image_mask.sum(dim=1)
    for row, count in enumerate(counts.tolist()):
        if count % tokens_per_view:
            raise PlaceholderMismatchError(
                f"row {row} has {count} image tokens, no multiple of the {tokens_per_view} tokens of a view: "
                "expand each picture's placeholder with the model's processor"
            )
    views = counts // tokens_per_view
    if int(views.sum()) != num_views:
        raise PlaceholderMismatchError(
            f"the rows have image tokens for {views.tolist()} views, {int(views.sum())} in all, but {num_views} views "
            "were given: pass one placeholder per picture"
        )
    slots = torch.arange(int(views.max()), device=views.device)
    first = views.cumsum(0) - views
    return torch.where(slots < views[:, None], first[:, None] + slots, -1)


def check_view_index(image_mask: torch.Tensor, view_index: torch.Tensor, tokens_per_view: int, num_views: int) -> None:
    """Raise PlaceholderMismatchError where a row's image tokens are not those of the views its slots name."""
    found, slots = image_mask.sum(dim=1), (view_index >= 0).sum(dim=1)
    for row, (count, views) in enumerate(zip(found.tolist(), slots.tolist(), strict=True)):
        if count != views * tokens_per_view:
            raise PlaceholderMismatchError(
                f"row {row} has {count} image tokens but its {views} views need {views * tokens_per_view}: expand each "
                "picture's placeholder with the model's processor"
            )
    if view_index.numel() and (last := int(view_index.max())) >= num_views:
        raise PlaceholderMismatchError(f"view_index names view {last} but only {num_views} views were given")


def check_query_tokens(input_ids: torch.Tensor, roles: torch.Tensor | None, query_token_id: int) -> None:
    """Raise PromptError when ids hold query placeholders but no roles say what they read."""
    if roles is None and bool((input_ids == query_token_id).any()):
        raise PromptError(
            f"the prompt holds query tokens (id {query_token_id}) but no mm_token_type_ids: pass those of the processor"
        )
