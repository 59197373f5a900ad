"""Build what tests/data expects of SAP, projector, splice, EmbQ (inputs, weights, outputs) and preprocessing (views).

The outputs come from the loops in tests/plain.py, never from the modules under test. Run from anywhere:
`python tools/build_expectations.py`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import plain  # noqa: E402
import small  # noqa: E402

TARGET, VIEWS = TESTS / "data" / "expectations.safetensors", TESTS / "data" / "views.npz"
PARTS = ("compressor.", "multi_modal_projector.", "embedded_query.", "language_model.embed_tokens.")
SIDE, TILES_PER_SIDE, LANDSCAPE = 9, 3, (23, 14)


def build() -> dict[str, Tensor]:
    """Return everything the file holds."""
    state = small.model().model.state_dict()
    weights = {name: tensor.clone() for name, tensor in state.items() if name.startswith(PARTS)}
    generator = torch.Generator().manual_seed(small.SEED + 1)
    vision_dim, text_dim = weights["embedded_query.up.weight"].T.shape
    patches = torch.randn(small.NUM_VIEWS, small.GRID**2, vision_dim, generator=generator)
    seen = [plain.sap(weights, view, small.WINDOW) for view in patches]
    pooled, alphas = torch.stack([view for view, _ in seen]), torch.stack([weight for _, weight in seen])
    projected = torch.stack([plain.project(weights, view) for view in pooled])
    found = {"patches": patches, "pooled": pooled, "alphas": alphas, "projected": projected}
    for index, row in enumerate(small.rows()):
        visual = projected[row.views].flatten(0, 1)
        found[f"embeds.{index}"] = plain.splice(weights, row.ids, row.roles, visual, small.INIT_ID)
        hidden = torch.randn(len(row.ids), text_dim, generator=generator)
        found[f"hidden.{index}"] = hidden
        found[f"rewritten.{index}"] = plain.embq(
            weights,
            hidden,
            row.roles,
            [patches[view] for view in row.views],
            tokens_per_view=small.TOKENS_PER_VIEW,
            heads=small.HEADS,
            layers=small.LAYERS,
        )
    return {**{f"weights.{name}": tensor for name, tensor in weights.items()}, **found}


def build_views() -> dict[str, NDArray[np.uint8]]:
    """Return views `[views, 3, side, side]` of the small picture, by how they are made."""
    made = {
        f"{fit}_{resample.name.lower()}": [plain.square(small.picture(*LANDSCAPE), SIDE, fit, resample)]
        for fit in ("squash", "pad")
        for resample in (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR)
    }
    for name, size in (("landscape", LANDSCAPE), ("portrait", LANDSCAPE[::-1])):
        picture = small.picture(*size)
        made[f"tiles_{name}"] = plain.thumbnail_and_tiles(picture, SIDE, TILES_PER_SIDE, Image.Resampling.BICUBIC)
    return {name: np.stack([np.asarray(view).transpose(2, 0, 1) for view in shown]) for name, shown in made.items()}


if __name__ == "__main__":
    np.savez_compressed(VIEWS, allow_pickle=False, **build_views())
    tensors = {name: tensor.contiguous() for name, tensor in build().items()}
    save_file(tensors, TARGET)
    print(f"{TARGET.name}: {len(tensors)} tensors, {TARGET.stat().st_size:,} bytes")
