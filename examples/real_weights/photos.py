"""The photos that scikit-image and scikit-learn carry: prints their paths, one a line."""

from pathlib import Path

import skimage
import sklearn

NAMES = (
    "astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg"
    " ihc.png moon.png motorcycle_left.png motorcycle_right.png page.png retina.jpg rocket.jpg"
)


def photos() -> list[Path]:
    """All of them."""
    ours = [Path(skimage.__file__).parent / "data" / name for name in NAMES.split()]
    return [*ours, *sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))]


if __name__ == "__main__":
    print("\n".join(map(str, photos())))
