"""A folder with what commands read, for the tests that run many of them in it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from difftool.compile.sampler_onnx.site import RUNTIME

IMPORT = (
    "import weights.pt --set image_size=8 --set num_heads=1 --set diffusion_steps=1000 "
    "--set noise_schedule=linear"
)


def furnish(place: Path, copies: Mapping[str, Path]) -> Path:
    """Make a folder of copies, by name, with somebody's `weights.pt` and a page's `dist`."""
    import torch

    from tests.oracles.plain_openai import Shape

    for name, path in copies.items():
        shutil.copytree(path, place / name)
    weights = Shape(widths=(32,), attention=(), updown=False, outputs=3).random_state()
    torch.save(weights, place / "weights.pt")
    (place / "dist").mkdir()
    for name in RUNTIME:
        (place / "dist" / name).write_text(name)
    return place


def inside(folder: Path) -> dict[str, bytes]:
    """Return each file below a folder with its content, and each folder with none."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }
