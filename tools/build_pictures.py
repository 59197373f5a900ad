"""Build the bundled pictures: scenes of the validation split, which no model is trained on.

python tools/build_pictures.py
"""

from pathlib import Path

from PIL import Image

from saccade.data import scenes

FOLDER = Path(__file__).parents[1] / "src" / "saccade" / "assets" / "pictures"
PICTURES = {"shapes": ("objects", 9), "digits": ("digits", 9)}


def main() -> None:
    """Write the pictures and print their captions."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (family, index) in PICTURES.items():
        scene = scenes.render(family, "val", index)
        Image.fromarray(scene.image).save(FOLDER / f"{name}.png", optimize=True)
        print(f"{name}.png: {scene.caption}")


if __name__ == "__main__":
    main()
