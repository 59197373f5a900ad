"""How well a tower in training tells patches apart: accuracy on the labelled patches of validation pictures.

python tools/score_patches.py runs/nano/0-patches/checkpoint-3400
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from saccade import presets
from saccade.data import scenes
from saccade.image.transform import to_views
from saccade.model import SaccadeModel
from saccade.train.patches import CLASSES, PatchPretraining, collate_patches, flat_labels


def score(checkpoint: Path, family: str, count: int) -> dict[str, float]:
    """Share of the patches with a label of each kind that are told right, over `count` validation pictures."""
    config = presets.nano()
    module = PatchPretraining(SaccadeModel(config)).eval()
    stored = load_file(checkpoint / "model.safetensors")
    state = {name.removeprefix("_orig_mod."): value for name, value in stored.items()}
    here, there = ({name: value.shape for name, value in one.items()} for one in (module.state_dict(), state))
    other = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    if other:
        raise SystemExit(
            f"{checkpoint} is no checkpoint of a patch stage with today's classes {CLASSES} ({', '.join(other[:3])} "
            "differ): train the stage again, or run the commit that trained it"
        )
    module.load_state_dict(state)
    items = []
    for index in range(count):
        scene = scenes.render(family, "val", index)
        views = to_views(Image.fromarray(scene.image), config.image)
        items.append({"views": views, **flat_labels(scene, config.grid)})
    batch = collate_patches(config, items)
    with torch.no_grad():
        patches = module.encode(batch["pixel_values"])
    shares = {}
    for name in CLASSES:
        labelled = batch[name] > 0
        if bool(labelled.any()):
            right = module.heads[name](patches).argmax(-1) == batch[name]
            shares[name] = round(float(right[labelled].float().mean()), 3)
    written = batch["spelling"][..., 0] > 0
    if bool(written.any()):
        said = module.heads["spelling"](patches).unflatten(-1, (scenes.SPELLED, -1)).argmax(-1)
        whole = (said == batch["spelling"]).all(-1)
        shares["spelling"] = round(float(whole[written].float().mean()), 3)
    labelled = batch["neighbor"][..., 0] > 0
    if bool(labelled.any()):
        told = module.heads["neighbor"](patches).split((CLASSES["shape"], CLASSES["color"]), dim=-1)
        for index, (name, logits) in enumerate(zip(("shape", "color"), told, strict=True)):
            right = logits.argmax(-1) == batch["neighbor"][..., index]
            shares[f"neighbor_{name}"] = round(float(right[labelled].float().mean()), 3)
    return shares


def main() -> None:
    """Print one JSON line per family."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of a patch stage")
    parser.add_argument("--count", type=int, default=200, help="validation pictures of each family (default 200)")
    arguments = parser.parse_args()
    for family in scenes.FAMILIES:
        print(json.dumps({"family": family, **score(arguments.checkpoint, family, arguments.count)}))


if __name__ == "__main__":
    main()
