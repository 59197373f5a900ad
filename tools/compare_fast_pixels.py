"""How far the fast mode of preprocessing is from the exact one: in pixels, and in what nano answers.

    python tools/compare_fast_pixels.py [--questions 300] [--out docs/results/fast_pixels.json]

Pixels: rendered scenes and noise at many sizes, and JPEG files large enough to be decoded at a reduced size, through
every way of cutting that a preset has; differences in levels of 255. "integers" is the CPU's kernel, "floats" the
arithmetic of every other device, run on the CPU. Answers: greedy, to validation questions of every family.
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

import saccade
from saccade import presets
from saccade.config import ImageConfig
from saccade.data import scenes
from saccade.engine.pictures import PictureStore
from saccade.evaluate.provenance import made_with
from saccade.evaluate.world import MAX_NEW_TOKENS, Item, is_right, items
from saccade.image import fast, open_image, to_views
from saccade.vlm import VLM, EncodedImage

SIZES = ((90, 90), (224, 224), (640, 480), (480, 640), (1024, 768), (1500, 500), (300, 1200), (1920, 1080))
PHOTOS = ((3000, 2000), (2250, 4000))
QUALITY = 90
BATCH = 50
KERNELS = {"integers": fast._resize_step, "floats": fast._resize_floats}


def sources() -> Iterator[tuple[str, NDArray[np.uint8] | bytes]]:
    """Yield (kind, picture): arrays of scenes and of noise, and files of scenes."""
    generator = np.random.default_rng(0)
    for number, size in enumerate((*SIZES, *PHOTOS)):
        family = scenes.FAMILIES[number % len(scenes.FAMILIES)]
        scene = Image.fromarray(scenes.render(family, "val", number).image).resize(size, Image.Resampling.LANCZOS)
        if size in PHOTOS:
            buffer = io.BytesIO()
            scene.save(buffer, "JPEG", quality=QUALITY)
            yield "large JPEG files", buffer.getvalue()
        else:
            yield "scenes", np.array(scene)
            yield "noise", generator.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)


def summary(histogram: NDArray[np.int64]) -> dict[str, float]:
    """Mean, 99.9th percentile and largest of differences that were counted by level."""
    share = histogram.cumsum() / histogram.sum()
    return {
        "mean": round(float(histogram @ np.arange(256) / histogram.sum()), 4),
        "p99.9": int((share >= 0.999).argmax()),
        "max": int(histogram.nonzero()[0][-1]),
    }


def pixels(config: ImageConfig, kind: str) -> dict[str, dict[str, float]]:
    """Differences of all pictures of a kind, by kernel."""
    counted = {kernel: np.zeros(256, dtype=np.int64) for kernel in KERNELS}
    for source in (source for other, source in sources() if other == kind):
        exact = to_views(open_image(source, config.max_pixels), config).astype(np.int64)
        opened = fast.open_fast(source, config)
        for kernel, histogram in counted.items():
            fast._resize_step = KERNELS[kernel]
            found = fast.fast_views(torch.from_numpy(opened.pixels), config, opened.size).numpy()
            histogram += np.bincount(np.abs(found - exact).ravel(), minlength=256)
    fast._resize_step = KERNELS["integers"]
    return {kernel: summary(histogram) for kernel, histogram in counted.items()}


def by_preset() -> dict[str, Any]:
    """Differences for every way of cutting, under the names of the presets that have it."""
    names: dict[ImageConfig, list[str]] = {}
    for name, build in presets.PRESETS.items():
        names.setdefault(build().image, []).append(name)
    kinds = list(dict.fromkeys(kind for kind, _ in sources()))
    return {
        ", ".join(shared): {kind: pixels(config, kind) for kind in kinds}
        for config, shared in track(names.items(), "pixels")
    }


def answers(vlm: VLM, asked: list[Item], quick: bool) -> list[str]:
    """Greedy answers with pictures that were made in one of the two modes."""
    store, said = PictureStore(vlm.model.config.image, vlm.model.device, fast=quick, max_bytes=0), []
    for start in track(range(0, len(asked), BATCH), "answers, fast" if quick else "answers, exact"):
        batch = asked[start : start + BATCH]
        shown = [store.submit(scenes.render(i.family, i.split, i.scene).image).result() for i in batch]
        with torch.no_grad():
            seen = store.look(shown, vlm.model.model.encode_views, vlm.model.model.project_patches)
        encoded = [EncodedImage(s.patches, p.size, s.num_tokens, s.key) for s, p in zip(seen, shown, strict=True)]
        requests = [(image, item.question.text) for image, item in zip(encoded, batch, strict=True)]
        said += [answer.text for answer in vlm.ask_batch(requests, max_new_tokens=MAX_NEW_TOKENS)]
    store.close()
    return said


def compare_answers(name: str, questions: int) -> dict[str, Any]:
    """Share of equal answers in both modes, and how many of each are right."""
    vlm, each = saccade.load(name), -(-questions // len(scenes.FAMILIES))
    asked = [item for family in scenes.FAMILIES for item in items(family, "val", each)][:questions]
    exact, quick = answers(vlm, asked, False), answers(vlm, asked, True)

    def right(said: list[str]) -> float:
        return round(sum(is_right(a, i.question.answer) for a, i in zip(said, asked, strict=True)) / len(asked), 4)

    return {
        "model": name,
        "questions": len(asked),
        "equal": round(sum(a == b for a, b in zip(exact, quick, strict=True)) / len(asked), 4),
        "right_exact": right(exact),
        "right_fast": right(quick),
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="whose answers are compared (default nano)")
    parser.add_argument("--questions", type=int, default=300, help="questions in all (default 300)")
    parser.add_argument("--out", type=Path, help="write the JSON to this file (default: print it)")
    arguments = parser.parse_args()
    report = {
        "command": f"python tools/compare_fast_pixels.py --model {arguments.model} --questions {arguments.questions}",
        "unit": "levels of 255",
        "answers": compare_answers(arguments.model, arguments.questions),
        "pixels": by_preset(),
        "pillow": PIL.__version__,
        **made_with(),
    }
    if arguments.out is None:
        print(json.dumps(report))
    else:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
