"""Read files that someone else wrote: tensors and plain values come out, and nothing runs."""

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from difftool.errors import ArtefactError
from difftool.files import read_json
from difftool.importers import layout
from difftool.importers.plain_yaml import read_yaml

# The names that formats give to a configuration next to the tensors.
CONFIGS: Final = ("config.yml", "config.yaml", "config.json", "flags.json")

_PICKLE: Final = b"\x80"  # the first byte of a pickle of protocol 2 or later
_TORCH_PROTOCOL: Final = b"\x02"  # the protocol of torch.save, which is a pickle's second byte
_START: Final = 1 << 16  # bytes at a file's start that are searched


@dataclass(frozen=True)
class Source:
    """The tensors and the configuration found at a path.

    - `path`: the given file or folder
    - `file`, `content`: the one file of tensors there, and its content: tensors, numbers, words,
      lists and dictionaries. Both are None if a folder has no such file or several
    - `beside`: the configuration next to it, or nothing. For a diffusers model it has the
      configurations of all parts, by their names: unet, scheduler, pipeline
    - `configs`: the files from which `beside` was read
    """

    path: Path
    file: Path | None
    content: Any
    beside: Mapping[str, Any]
    configs: tuple[Path, ...]

    def item(self, index: int) -> Any:
        """Return an item of the content, or None if that is not a list or is too short."""
        is_there = isinstance(self.content, list) and index < len(self.content)
        return self.content[index] if is_there else None

    @property
    def first(self) -> Any:
        """Return the first item of the content if that is a list, or else the content."""
        return self.item(0) if isinstance(self.content, list) else self.content

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that were read."""
        return (*([] if self.file is None else [self.file]), *self.configs)


def open_source(path: Path) -> Source:
    """Read the files at a path; ArtefactError if that is impossible without running code."""
    if not path.exists():
        raise ArtefactError(f"there is no {path}", "give a file of weights or its folder")
    folder = layout.unet_folder(path) if path.is_dir() else path.parent
    found = [path] if path.is_file() else tensor_files(folder)
    config = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    configs: tuple[Path, ...] = () if config is None else (config,)
    beside = read_config(config)
    if layout.CLASS in beside:
        parts = layout.part_files(folder)
        configs = tuple(parts.values())
        beside = {part: read_config(file) for part, file in parts.items()}
        found = layout.without_copies(found) if path.is_dir() else found
    file = found[0] if len(found) == 1 else None
    return Source(path, file, None if file is None else load(file), beside, configs)


def tensor_files(folder: Path) -> list[Path]:
    """Return the files directly in a folder that hold tensors, or a pickle that may."""
    return sorted(file for file in folder.iterdir() if file.is_file() and _holds_tensors(file))


def load(path: Path) -> Any:
    """Load a file of torch.save or safetensors to the CPU.

    Raises:
        ArtefactError: it is damaged, or it asks for code to be run, which is refused.
    """
    if _is_safetensors(path):
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise _unreadable(path, error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice is not for our users
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a hostile file can make the reader raise anything
        raise (_refusal(path, str(error)) or _unreadable(path, error)) from error


def read_config(path: Path | None) -> Mapping[str, Any]:
    """Read the mapping in a YAML or JSON file; ArtefactError if it is anything but plain data."""
    if path is None:
        return {}
    value = read_json(path) if path.suffix == ".json" else read_yaml(path)
    if not isinstance(value, Mapping):
        raise ArtefactError(f"{path} is not a configuration", "remove it, or copy it again")
    return value


def _holds_tensors(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            return file.read(1) == _PICKLE or _is_safetensors(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # a broken archive; `load` says why it is refused
        return True


def _is_safetensors(path: Path) -> bool:
    """Tell if a file begins with the length of a JSON header that fits into it."""
    with open(path, "rb") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length + 8 <= path.stat().st_size


def _refusal(path: Path, reason: str) -> ArtefactError | None:
    """Return why a file that torch refused is dangerous; None if it may just be broken."""
    with open(path, "rb") as file:
        start = file.read(_START)
    if b"_reconstruct_persistent_obj" in start:
        return ArtefactError(
            f"{path} carries Python source that loading it would run, as EDM's pickles do",
            "save the state_dict of its network with its authors' code, and import that",
        )
    if found := re.search(r"nsupported (?:global: )?GLOBAL ([\w.]+)", reason):
        return ArtefactError(
            f"{path} asks to run {found[1]} when it is loaded, which weights need not do",
            "do not use it, unless you know its author; a state_dict of tensors needs no code",
        )
    if start[:1] == _PICKLE and start[1:2] > _TORCH_PROTOCOL:
        return ArtefactError(
            f"{path} is a pickle of protocol {start[1]}, which may run anything when it is loaded",
            "save the state_dict of its network with torch.save, and import that",
        )
    return None


def _unreadable(path: Path, error: Exception) -> ArtefactError:
    reason = " ".join(str(error).split())[:150] or type(error).__name__
    return ArtefactError(
        f"{path} is not a whole file of torch.save or safetensors: {reason}",
        "download or copy it again",
    )
