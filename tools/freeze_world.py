"""Write what a version of the rendered world is frozen by: fingerprints of its tests, and pictures to compare with.

Run it from the root of the repository, once for each new version; running it again must change nothing. The
fingerprints of older versions stay as they were stored: a newer world keeps their families.
"""

import json
from pathlib import Path

from PIL import Image

from saccade.data.scenes import ALL_FAMILIES, VERSIONS, fingerprint, render

FROZEN = Path("src/saccade/data/scenes/frozen.json")
PICTURES = Path("tests/data")
INDEX = 14


def main() -> None:
    """Add the fingerprints of the newest version to those stored, and store one test picture of each family."""
    stored = json.loads(FROZEN.read_text()) if FROZEN.exists() else {}
    stored[f"world {VERSIONS[-1]}"] = {split: fingerprint(split, VERSIONS[-1]) for split in ("test", "shifted")}
    FROZEN.write_text(json.dumps(stored, indent=2) + "\n")
    for family in ALL_FAMILIES:
        Image.fromarray(render(family, "test", INDEX).image).save(PICTURES / f"scene_{family}_test_{INDEX}.png")


if __name__ == "__main__":
    main()
