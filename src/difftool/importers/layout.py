"""The folders in which diffusers keeps the parts of a model: one for all, or one for each.

    config.json  scheduler_config.json  weights             google's DDPMs
    model_index.json  unet/  scheduler/                     a pipeline
    checkpoint-500/unet_ema/  checkpoint-500/unet/          a training in the folder of a pipeline

Each part has a configuration, which names its class.
"""

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Final, TypeVar

CLASS: Final = "_class_name"
UNET: Final = "unet"
SCHEDULER: Final = "scheduler"
PIPELINE: Final = "pipeline"
UNET_FOLDERS: Final = ("unet_ema", UNET)  # the moving average first
UNET_FILE: Final = "config.json"
SCHEDULER_FILE: Final = "scheduler_config.json"
PIPELINE_FILE: Final = "model_index.json"
# The suffixes of weights; of two copies the first is preferred.
WEIGHTS: Final = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")

AnyPath = TypeVar("AnyPath", bound=PurePath)


def is_layout(folder: Path) -> bool:
    """Tell if a folder holds parts in folders of their own."""
    return unet_folder(folder) != folder or (folder / PIPELINE_FILE).is_file()


def unet_folder(folder: Path) -> Path:
    """Return the folder of the U-Net: the folder itself, or one in a pipeline or training."""
    parts = (folder, *(folder / name for name in UNET_FOLDERS))
    return next((part for part in parts if (part / UNET_FILE).is_file()), folder)


def part_files(folder: Path) -> dict[str, Path]:
    """Return the configuration files of a model's parts; its U-Net is in `folder`."""
    around = [folder]
    if folder.absolute().name in UNET_FOLDERS:
        around += [folder.parent, folder.parent.parent]
    places = {
        UNET: [folder / UNET_FILE],
        SCHEDULER: [
            place for a in around for place in (a / SCHEDULER_FILE, a / SCHEDULER / SCHEDULER_FILE)
        ],
        PIPELINE: [a / PIPELINE_FILE for a in around],
    }
    found = {part: [file for file in files if file.is_file()] for part, files in places.items()}
    return {part: files[0] for part, files in found.items() if files}


def without_copies(files: Iterable[AnyPath]) -> list[AnyPath]:
    """Keep one file of each weights: not model.bin next to model.safetensors, nor model.fp16.bin.

    Files that have no suffix of weights are left out, too.
    """
    files = list(files)
    found: dict[str, AnyPath] = {}
    for suffix in reversed(WEIGHTS):
        found |= {path.stem: path for path in files if path.suffix == suffix}
    return [path for stem, path in found.items() if stem.rpartition(".")[0] not in found]
