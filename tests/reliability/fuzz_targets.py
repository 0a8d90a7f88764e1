"""The targets of the fuzzer: a function of bytes for each parser of files from elsewhere.

Each returns, or raises a DifftoolError. Any other error is a finding.
"""

import json
import tempfile
from collections.abc import Callable, Collection
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from difftool.train.data import Data

SEPARATOR: Final = b"\0"  # in the checkpoint's bytes: between config.json and the weights


def manifest(data: bytes) -> None:
    """Read a bundle's manifest, up to its default program."""
    from difftool.bundle import read_bundle

    folder = _folder("bundle")
    (folder / "bundle.json").write_bytes(data)
    read_bundle(folder)


def graph(data: bytes) -> None:
    """Read an ONNX file as it is read before a runtime sees it."""
    from difftool.preflight import GraphLimits, check_conditioner, check_step, read_graph

    found = read_graph(memoryview(data), "graph", control_flow=True, limits=GraphLimits())
    check = check_step if "x" in found.inputs else None
    if check:
        check(found, "graph", (1, 8, 8), known=True)
    else:
        check_conditioner(found, "graph", classes=0)


def config(data: bytes) -> None:
    """Read a training's configuration, up to its model."""
    from difftool.train.config import model_spec, network_call, read_toml, to_toml

    path = _folder("config") / "config.toml"
    path.write_bytes(data)
    read = read_toml(path)
    path.write_text(to_toml(read), encoding="utf-8")
    read_toml(path)
    network_call(read, model_spec(read, (1, 8, 8)))


def recipe(data: bytes) -> None:
    """Read a training's configuration, and rehearse a step on points or on small images."""
    from difftool.train.config import model_spec, network_call, read_toml
    from difftool.train.ncsnv2 import resolve
    from difftool.train.rehearsal import rehearse

    path = _folder("recipe") / "config.toml"
    path.write_bytes(data)
    read = read_toml(path)
    found = _small_data("toy" if read.data.source in _toys() else read.data.mode or "L")
    read = resolve(read, found)
    spec = model_spec(read, found.shape)
    rehearse(read, spec, network_call(read, spec), found)


def image(data: bytes) -> None:
    """Read an image of a data set."""
    from difftool.data.images import stack

    for mode in ("L", "RGB", None):
        stack([{"bytes": data, "path": None}], "fuzzed", 4 if mode else None, mode)


def yaml(data: bytes) -> None:
    """Read a configuration that lies next to weights, and settings from it."""
    from difftool.importers import ncsnv2
    from difftool.importers.settings import Setting, Settings
    from difftool.importers.source import read_config

    path = _folder("yaml") / "config.yml"
    path.write_bytes(data)
    known = [item for item in vars(ncsnv2).values() if isinstance(item, Setting)]
    Settings({}, read_config(path)).choose(*known, *ncsnv2.FIXED)


def checkpoint(data: bytes) -> None:
    """Read a checkpoint: config.json, and weights whose digest is right whatever they are."""
    from difftool.checkpoint import EMA
    from difftool.files import file_sha256
    from difftool.networks.trained import load_checkpoint

    folder = _folder("checkpoint")
    text, _, weights = data.partition(SEPARATOR)
    (folder / EMA).write_bytes(weights)
    try:
        value = json.loads(text)
        if "files" in value:
            value["files"] = {EMA: {"size": len(weights), "sha256": file_sha256(folder / EMA)}}
            text = json.dumps(value).encode()
    except (ValueError, TypeError, RecursionError):
        pass  # the reader is to say so
    (folder / "config.json").write_bytes(text)
    load_checkpoint(folder)


_ALL: Final = (manifest, graph, config, checkpoint, recipe, image, yaml)
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {f.__name__: f for f in _ALL}


@cache
def _small_data(kind: str) -> "Data":
    """Return points, or images of 8x8 pixels."""
    import torch

    from difftool.train.data import Data

    if kind == "toy":
        return Data(torch.zeros(3, 2))
    return Data(torch.zeros(3, 3 if kind == "RGB" else 1, 8, 8, dtype=torch.uint8))


def _toys() -> Collection[str]:
    from difftool.data.toys import TOYS

    return TOYS


@cache
def _folder(name: str) -> Path:
    """Make a folder for the files of a target; in memory if the system has such."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=memory if memory.is_dir() else None))
