"""What encoders are fed, against Pillow and PyTorch with the numbers of the papers' own code."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from difftool.evaluate.preprocess import NAMES, Preprocess

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
# Of an image of 45x30 pixels: name, the network's size, the scaled sides, the corner, the numbers.
CASES = [
    ("dinov2", None, (384, 256), (80, 16), "bicubic", *IMAGENET),
    ("clip", None, (336, 224), (56, 0), "bicubic", *CLIP),
    ("clip", 336, (504, 336), (84, 0), "bicubic", *CLIP),
    ("imagenet", None, (384, 256), (80, 16), "bilinear", *IMAGENET),
    ("imagenet", 21, (36, 24), (8, 2), "bilinear", *IMAGENET),  # 7.5 and 1.5, to even numbers
]
IDS = ["dinov2", "clip", "clip at 336", "imagenet", "imagenet at 21"]


def _smooth(channels: int = 3) -> np.ndarray:
    """Pixels [2, 30, 45, C] that differ at each place and in each channel."""
    y, x = np.mgrid[0:30, 0:45]
    waves = [128 + 60 * np.sin(x / (3 + c)) + 60 * np.cos(y / (4 + c)) for c in range(channels)]
    image = np.stack(waves, -1).astype(np.uint8)
    return np.stack([image, 255 - image])


@pytest.mark.parametrize(("name", "size", "sides", "corner", "kind", "mean", "std"), CASES, ids=IDS)
def test_numbers_are_those_of_pillow_and_torch(
    name: str,
    size: int | None,
    sides: tuple[int, int],
    corner: tuple[int, int],
    kind: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    pixels = _smooth()
    found = Preprocess(name, (3, size, size)).apply(pixels)
    cut, (left, top) = size or 224, corner
    resampling = Image.Resampling[kind.upper()]
    scaled = [np.asarray(Image.fromarray(one).resize(sides, resampling)) for one in pixels]
    whole = torch.from_numpy(np.stack(scaled)).permute(0, 3, 1, 2).float() / 255
    scale = [torch.tensor(numbers)[:, None, None] for numbers in (mean, std)]
    expected = ((whole - scale[0]) / scale[1])[..., top : top + cut, left : left + cut]
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-6)
    assert found.dtype == np.float32
    # PyTorch's own scaling has the same filters, and rounds no intermediate result to 8 bits.
    plain = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    other = interpolate(plain, sides[::-1], mode=kind, antialias=True).clamp(0, 1)
    assert (other - whole).abs().max() < 1.5 / 255


def test_grey_becomes_colour() -> None:
    grey = _smooth(1)
    for name in ("dinov2", "clip", "imagenet"):
        prepare = Preprocess(name, (3, 8, 8))
        np.testing.assert_array_equal(prepare.apply(grey), prepare.apply(grey.repeat(3, -1)))
        assert prepare.shape((1, 30, 45)) == prepare.apply(grey).shape[1:] == (3, 8, 8)


def test_upright_images_are_cut_in_the_middle_too() -> None:
    pixels = _smooth()
    upright = Preprocess("clip", (3, 8, 8)).apply(pixels.transpose(0, 2, 1, 3))
    across = Preprocess("clip", (3, 8, 8)).apply(pixels)
    np.testing.assert_allclose(upright, across.transpose(0, 1, 3, 2), atol=0.05)


def test_none_changes_nothing_but_the_range() -> None:
    pixels = _smooth(1)
    prepare = Preprocess("none", (None, None, None))
    np.testing.assert_allclose(prepare.apply(pixels), pixels.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    assert prepare.shape((1, 30, 45)) == (1, 30, 45)
    assert NAMES == ("dinov2", "clip", "imagenet", "none")
