"""An image encoder of the kind of DINOv2 and CLIP passes the door, and sees what PyTorch sees."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from difftool.evaluate import open_extractor
from difftool.evaluate.preprocess import Preprocess
from difftool.export.lowerings import Lowerings
from difftool.export.onnx import export_module


class Encoder(nn.Module):
    """A vision transformer of one block, for images of 28x28 pixels in four patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 14, 14)
        self.token, self.places = (nn.Parameter(torch.randn(1, n, 16)) for n in (1, 5))
        self.norm, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.mixed = nn.Linear(16, 48)
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        heads = self.mixed(self.norm(x)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        seen = nn.functional.scaled_dot_product_attention(*heads)
        x = x + seen.transpose(1, 2).flatten(2)
        return x + self.layers(self.second(x))


def test_a_vision_transformer_is_an_extractor(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder, path = Encoder().eval(), tmp_path / "encoder.onnx"
    inputs = (torch.zeros(2, 3, 28, 28),)
    plain = Lowerings(translations={}, rewrites=())
    axes = {"pixel_values": (Dim("batch"),)}
    export_module(encoder, inputs, axes, ("last_hidden_state",), path, plain)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 1), dtype=np.uint8)
    found = open_extractor(path, preprocess="dinov2").view(pixels)
    prepared = Preprocess("dinov2", (3, 28, 28)).apply(pixels)
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(prepared))[:, 0]
    np.testing.assert_allclose(found.features, expected.numpy(), atol=1e-5)
    assert found.probabilities is None
