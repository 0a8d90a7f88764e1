"""What is fuzzed: a function of bytes for each parser of files from elsewhere.

Each returns, or raises a DifftoolError. Whatever else comes out is a finding.
"""

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

SEPARATOR: Final = b"\0"  # in the checkpoint's bytes: between config.json and the weights


def manifest(data: bytes) -> None:
    """A bundle's manifest, up to its default program."""
    from difftool.bundle import read_bundle

    folder = _folder("bundle")
    (folder / "bundle.json").write_bytes(data)
    read_bundle(folder)


def graph(data: bytes) -> None:
    """An ONNX file, before a runtime sees it."""
    from difftool.preflight import GraphLimits, check_conditioner, check_step, read_graph

    found = read_graph(memoryview(data), "graph", control_flow=True, limits=GraphLimits())
    check = check_step if "x" in found.inputs else None
    if check:
        check(found, "graph", (1, 8, 8), ("known",))
    else:
        check_conditioner(found, "graph", classes=0)


def config(data: bytes) -> None:
    """A training's configuration, up to its model."""
    from difftool.train.config import model_spec, network_arguments, read_toml, to_toml

    path = _folder("config") / "config.toml"
    path.write_bytes(data)
    read = read_toml(path)
    path.write_text(to_toml(read), encoding="utf-8")
    read_toml(path)
    network_arguments(read, model_spec(read, (1, 8, 8)))


def checkpoint(data: bytes) -> None:
    """A checkpoint: config.json, and weights whose digest is right whatever they are."""
    from difftool.files import sha256_of
    from difftool.train.checkpoint import EMA, load_checkpoint

    folder = _folder("checkpoint")
    text, _, weights = data.partition(SEPARATOR)
    (folder / EMA).write_bytes(weights)
    try:
        value = json.loads(text)
        if "files" in value:
            value["files"] = {EMA: {"size": len(weights), "sha256": sha256_of(folder / EMA)}}
            text = json.dumps(value).encode()
    except (ValueError, TypeError, RecursionError):
        pass  # the reader is to say so
    (folder / "config.json").write_bytes(text)
    load_checkpoint(folder)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    function.__name__: function for function in (manifest, graph, config, checkpoint)
}


@cache
def _folder(name: str) -> Path:
    """A folder for the files of a target; in memory, where the system has such."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=memory if memory.is_dir() else None))
