"""Build tests/data/expectations.safetensors: inputs, weights and outputs of SAP, projector, splice and EmbQ.

The outputs come from the loops in tests/plain.py, never from the modules under test. Run from anywhere:
`python tools/build_expectations.py`.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import plain  # noqa: E402
import small  # noqa: E402

TARGET = TESTS / "data" / "expectations.safetensors"
PARTS = ("compressor.", "multi_modal_projector.", "embedded_query.", "language_model.embed_tokens.")
NUM_VIEWS = 2


def build() -> dict[str, Tensor]:
    """Return everything the file holds."""
    state = small.model().model.state_dict()
    weights = {name: tensor.clone() for name, tensor in state.items() if name.startswith(PARTS)}
    generator = torch.Generator().manual_seed(small.SEED + 1)
    vision_dim, text_dim = weights["embedded_query.up.weight"].T.shape
    patches = torch.randn(NUM_VIEWS, small.GRID**2, vision_dim, generator=generator)
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


if __name__ == "__main__":
    tensors = {name: tensor.contiguous() for name, tensor in build().items()}
    save_file(tensors, TARGET)
    print(f"{TARGET.name}: {len(tensors)} tensors, {TARGET.stat().st_size:,} bytes")
