"""Prepare images for a network as its makers did: colour, size, crop, and the range of pixels."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difftool.errors import UsageError, quoted
from difftool.evaluate.views import Pixels

_IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Recipe:
    """What a family of networks expects.

    An image becomes RGB. Its shorter side is scaled to `margin` times the network's size with the
    filter, and its centre is cut out. Pixels in 0 .. 1 lose `mean` and are divided by `std`.
    """

    margin: float
    filter: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


RECIPES: Final = {
    # make_classification_eval_transform of DINOv2 (Oquab et al. 2023): 256, then 224
    "dinov2": Recipe(256 / 224, Image.Resampling.BICUBIC, *_IMAGENET),
    # _transform of CLIP (Radford et al. 2021): 224, or what a larger one takes
    "clip": Recipe(1.0, Image.Resampling.BICUBIC, *_CLIP),
    # torchvision's weights for ImageNet: 256, then 224
    "imagenet": Recipe(256 / 224, Image.Resampling.BILINEAR, *_IMAGENET),
}
NONE: Final = "none"
NAMES: Final = (*RECIPES, NONE)
_USUAL: Final = 224  # pixels of an image, if the file leaves its size free


class Preprocess:
    """Images uint8 to a network's input float32; `name` is one of NAMES.

    `axes` is the network's own [C, H, W], None for free ones; H is the size that images are cut to.
    With "none" they keep shape and channels, and pixels are in 0 .. 1. UsageError if there is no
    such name.
    """

    def __init__(self, name: str, axes: tuple[int | None, ...]) -> None:
        if name not in NAMES:
            raise UsageError(f"unknown preprocessing {quoted(name)}", f"known: {', '.join(NAMES)}")
        self.name = name
        self._recipe = RECIPES.get(name)
        self._size = axes[1] or axes[2] or _USUAL

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape [C, H, W] that an image of this shape becomes."""
        return image if self._recipe is None else (3, self._size, self._size)

    def apply(self, pixels: Pixels) -> NDArray[np.float32]:
        """Prepare pixels uint8 [N, H, W, C]; float32 [N, C, H, W]."""
        recipe = self._recipe
        if recipe is None:
            return _unit(pixels)
        cut = np.stack([_fitted(image, recipe, self._size) for image in pixels])
        mean, std = (
            np.asarray(numbers, np.float32)[:, None, None] for numbers in (recipe.mean, recipe.std)
        )
        return np.asarray((_unit(cut) - mean) / std)


def _unit(pixels: Pixels) -> NDArray[np.float32]:
    return pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)


def _fitted(pixels: Pixels, recipe: Recipe, size: int) -> Pixels:
    """Return RGB pixels [size, size, 3] of an image [H, W, C], as Resize and CenterCrop do.

    Those of torchvision: it rounds the longer side down, and the corner to the nearest even pixel.
    """
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels).convert("RGB")
    shorter, least = round(size * recipe.margin), min(image.size)
    sides = (int(shorter * image.width / least), int(shorter * image.height / least))
    if sides != image.size:
        image = image.resize(sides, recipe.filter)
    left, top = (round((side - size) / 2) for side in sides)
    return np.asarray(image.crop((left, top, left + size, top + size)))
