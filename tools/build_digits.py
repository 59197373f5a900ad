"""Write the handwritten digits that the rendered world ships, from scikit-learn's copy of them.

The images are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI Machine
Learning Repository, CC BY 4.0). Needs scikit-learn; run it from the root of the repository.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

ASSETS = Path("src/saccade/data/scenes/assets")


def main() -> None:
    """Store all 1797 rows in their original order: the order is what keeps held-out writers apart."""
    digits = load_digits()
    images = digits.images.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    np.savez_compressed(ASSETS / "digits.npz", images=images, labels=labels)
    print(f"{images.shape} images, {(ASSETS / 'digits.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
