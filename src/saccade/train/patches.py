"""Stage 0: the tower learns what the renderer knows about every patch.

It stands in for a tower's pretraining on the web: dense targets teach a small vision transformer in minutes what
single-word answers alone do not teach in hours.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from saccade.config import SaccadeConfig
from saccade.data import scenes
from saccade.image.transform import normalize
from saccade.model import SaccadeModel
from saccade.model.vision import extract_patches
from saccade.train.world import Pictures

CLASSES = {"shape": len(scenes.SHAPES) + 1, "color": len(scenes.COLORS) + 1, "character": len(scenes.CHARACTERS) + 1}
LABELS = (*CLASSES, "center", "offset", "spelling", "neighbor")


class PatchDataset(Pictures):
    """Pictures with the labels of their patches."""

    def __init__(self, *args: Any, grid: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grid = grid

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return views and labels `[grid * grid]` of one picture."""
        scene = self.scene(number)
        return {"views": self.views(number, scene), **flat_labels(scene, self.grid)}


def flat_labels(scene: scenes.Scene, grid: int) -> dict[str, NDArray[Any]]:
    """Labels of a picture's patches by kind, `[grid * grid, values]`, row-major."""
    return {name: label.reshape(grid**2, -1) for name, label in scenes.patch_labels(scene, grid).items()}


def collate_patches(config: SaccadeConfig, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Stack pictures and labels; the single view of a picture carries its labels."""
    pixels = normalize(np.concatenate([item["views"] for item in items]), config.image)
    batch = {"pixel_values": torch.from_numpy(pixels)}
    for name in LABELS:
        batch[name] = torch.from_numpy(np.stack([item[name] for item in items])).squeeze(-1)
    return batch


def patch_middles(grid: int) -> torch.Tensor:
    """Middles `[grid * grid, 2]` of the patches as (x, y) in fractions of the picture's sides, row-major."""
    middles = (torch.arange(grid) + 0.5) / grid
    rows, columns = torch.meshgrid(middles, middles, indexing="ij")
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


class PatchPretraining(nn.Module):
    """The tower of a model under linear heads, one per kind of label."""

    def __init__(self, model: SaccadeModel) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"vision_tower": model.vision_tower})
        self.features = model.config.vision
        dim = model.config.vision_config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(dim, count) for name, count in CLASSES.items()})
        self.heads["center"] = nn.Linear(dim, 1)
        self.heads["offset"] = nn.Linear(dim, 2)
        self.heads["place"] = nn.Linear(dim, 2)
        self.heads["spelling"] = nn.Linear(dim, scenes.SPELLED * CLASSES["character"])
        self.heads["neighbor"] = nn.Linear(dim, CLASSES["shape"] + CLASSES["color"])
        self.grid = model.config.grid

    def encode(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode views `[views, 3, side, side]` into the patches `[views, patches, dim]` that the heads read."""
        return extract_patches(self.model["vision_tower"], pixel_values, self.features, self.grid**2)

    def forward(
        self,
        pixel_values: torch.Tensor,
        shape: torch.Tensor,
        color: torch.Tensor,
        character: torch.Tensor,
        center: torch.Tensor,
        offset: torch.Tensor,
        spelling: torch.Tensor,
        neighbor: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Sum the mean losses of all kinds of label.

        Args:
            pixel_values: `[views, 3, side, side]`.
            shape: Classes `[views, patches]`, 0 for none.
            color: Classes `[views, patches]`.
            character: Classes `[views, patches]`.
            center: 1 where an object's center falls, else 0, `[views, patches]`.
            offset: `[views, patches, 2]`, counted where a patch shows an object.
            spelling: Classes `[views, patches, SPELLED]`, counted where something is written.
            neighbor: Classes `[views, patches, 2]` of shape and color, counted where a patch shows a shape with one.
        """
        patches = self.encode(pixel_values)
        labels = {"shape": shape, "color": color, "character": character}
        losses = {
            name: F.cross_entropy(self.heads[name](patches).flatten(0, 1), label.flatten())
            for name, label in labels.items()
        }
        center_logits = self.heads["center"](patches).squeeze(-1)
        losses["center"] = F.binary_cross_entropy_with_logits(center_logits, center.float())
        shows = color > 0
        # With the offset alone the tower may forget where a patch is, and "left of" needs its place in the picture.
        for name, target in (("offset", offset), ("place", offset + patch_middles(self.grid).to(offset))):
            losses[name] = _mean_where(shows, (self.heads[name](patches) - target).abs().sum(-1))
        letters = self.heads["spelling"](patches).unflatten(-1, (scenes.SPELLED, -1))
        losses["spelling"] = _mean_where(spelling[..., 0] > 0, _wrong(letters, spelling).mean(-1))
        of_neighbor = self.heads["neighbor"](patches).split((CLASSES["shape"], CLASSES["color"]), dim=-1)
        wrong = sum(_wrong(logits, neighbor[..., index]) for index, logits in enumerate(of_neighbor))
        losses["neighbor"] = _mean_where(neighbor[..., 0] > 0, torch.as_tensor(wrong))
        loss = sum(losses.values())
        return {"loss": torch.as_tensor(loss), **{f"{name}_loss": value.detach() for name, value in losses.items()}}


def _wrong(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each of the classes, in their shape; the logits have one more axis."""
    return F.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none").view_as(classes)


def _mean_where(counted: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The mean of the values that count, over all processes."""
    return (values * counted).sum() / _mean_over_processes(counted.sum()).clamp(min=1)


def _mean_over_processes(count: torch.Tensor) -> torch.Tensor:
    """Average a count over the processes of a run, so that the mean of their losses is that of one large batch."""
    count = count.float()
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count /= torch.distributed.get_world_size()
    return count
