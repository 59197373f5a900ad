"""Can a patch's place be read from a model's patches? A linear probe, R2 for row and column on held-out pictures.

python tools/probe_position.py [--model nano]
"""

import argparse
import json

import numpy as np
import torch
from PIL import Image

import saccade
from saccade.data import scenes
from saccade.image.transform import normalize, to_views
from saccade.train.patches import patch_middles

FITTED, HELD_OUT = 160, 80
RIDGE = 1e-2


def explained(features: torch.Tensor, targets: torch.Tensor, fitted: int) -> list[float]:
    """Share of the variance of each target column that a linear map explains on the rows after `fitted`."""
    inputs = torch.cat([features, torch.ones(len(features), 1)], dim=1)
    known, unknown = inputs[:fitted], inputs[fitted:]
    gram = known.T @ known + RIDGE * torch.eye(inputs.shape[1])
    weights = torch.linalg.solve(gram, known.T @ targets[:fitted])
    errors = ((unknown @ weights - targets[fitted:]) ** 2).sum(0)
    spread = ((targets[fitted:] - targets[fitted:].mean(0)) ** 2).sum(0)
    return [round(float(value), 3) for value in 1 - errors / spread]


def main() -> None:
    """Print one JSON line: R2 of (column, row) over all patches and over those that show an object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="nano, a folder or a hub id (default nano)")
    vlm = saccade.load(parser.parse_args().model)
    config = vlm.model.config
    pictures = [scenes.render("objects", "val", index) for index in range(FITTED + HELD_OUT)]
    views = np.concatenate([to_views(Image.fromarray(scene.image), config.image) for scene in pictures])
    with torch.no_grad():
        patches = vlm.model.model.encode_views(torch.from_numpy(normalize(views, config.image)))
    shapes = [torch.from_numpy(scenes.patch_labels(scene, config.grid)["shape"]).flatten() for scene in pictures]
    shows = torch.stack(shapes) > 0
    places = patch_middles(config.grid).expand(len(pictures), -1, -1)
    everywhere = explained(patches.flatten(0, 1), places.flatten(0, 1), FITTED * config.patches_per_view)
    on_objects = explained(patches[shows], places[shows], int(shows[:FITTED].sum()))
    print(json.dumps({"column_row_r2": everywhere, "column_row_r2_on_objects": on_objects}))


if __name__ == "__main__":
    main()
