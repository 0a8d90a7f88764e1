"""Tell what the name of a data set means: files of this machine, or a data set on the hub.

Only `hf:NAME` is asked of the hub. OWNER/NAME looks just like a folder in a folder, so it is never
taken for a name there: a path that is mistyped must not be sent away.
"""

import difflib
import glob
import os
import re
from collections.abc import Collection, Iterable
from itertools import islice
from pathlib import Path
from typing import Final

from PIL import Image

from difftool.data import toys
from difftool.errors import UsageError, quoted
from difftool.log import logger

HUB: Final = "hf:"
ARRAY: Final = "<array>"
"""The source in a configuration whose data was an array that a Python program gave."""
ANY: Final = ""  # the split of data that is not split

_HINT: Final = "give a folder, a parquet file, or hf:NAME for a data set on the hub"
_NAME: Final = re.compile(r"\w[\w.-]{0,95}(?:/\w[\w.-]{0,95})?", re.ASCII)
_SPLITS: Final = ("train", "training", "test", "testing", "validation", "valid", "val", "dev")
_SHARD: Final = re.compile(r"(.+)-\d{5}-of-(\d{5})(?:-[0-9a-f]+)?")  # without .parquet
_NUMBERED: Final = re.compile(rf"({'|'.join(_SPLITS)})(?:[-_. ]?\d+)?")
_MOST: Final = 10_000  # entries of a folder that are compared with a mistyped name

log = logger(__name__)


def hub_name(source: str) -> str | None:
    """Return the name of a data set on the hub, or None; UsageError if `hf:` has no such name."""
    if not source.startswith(HUB) or source.startswith(f"{HUB}//"):
        return None
    name = source.removeprefix(HUB)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{quoted(source)} names no data set on the hub", "write hf:OWNER/NAME")
    return name


def is_remote(source: str) -> bool:
    """Tell if a source is the address of parquet files elsewhere, such as https://..."""
    return "://" in source and source.endswith(".parquet")


def parquet_files(source: str, split: str) -> list[str]:
    """Return the parquet files of a file, a pattern or a folder, as patterns.

    A folder of images has none.

    Raises:
        UsageError: nothing is there, or no such split, or shards are missing.
    """
    if os.path.isdir(source):
        splits = _parquet_splits(Path(source))
        return _whole(splits[chosen(splits, split, source)], source) if splits else []
    if source.endswith(".parquet"):
        found = [source] if os.path.isfile(source) else sorted(glob.glob(source))
        if found:
            return [glob.escape(file) for file in found]
    elif os.path.isfile(source):
        raise UsageError(f"{quoted(source)} is a file, and no parquet file", _HINT)
    raise _nothing(source)


def image_pattern(folder: str, split: str) -> str:
    """Return the pattern of the images of a split of a folder.

    UsageError if there is no such split, or no image.
    """
    splits = _image_splits(Path(folder))
    found = splits[chosen(splits, split, folder)]
    if not _has_images(os.path.join(folder, found)):
        raise UsageError(f"there are no images in {quoted(folder)}", "give another folder or file")
    return os.path.join(glob.escape(os.path.abspath(folder)), found, "**")


def chosen(splits: Collection[str], split: str, source: str) -> str:
    """Return the split to read; UsageError if it is not there.

    Data that is not split is read whole. If the only split is not "train", which is what one gets
    by default, it is read all the same.
    """
    if ANY in splits or split in splits:
        return ANY if ANY in splits else split
    known = sorted(splits)
    if split == "train" and len(known) == 1:
        log.warning("%s has only the split %s, which is read", source, known[0])
        return known[0]
    raise UsageError(
        f"{quoted(source)} has no split {quoted(split)}, but {', '.join(known)}",
        f"give `split={known[0]}`",
    )


def run_name(source: str) -> str:
    """Return a short name for data, such as "photos" for "my/photos/train-*.parquet"."""
    name = hub_name(source) if source.startswith(HUB) else source
    parts = [part for part in re.split(r"[/\\]", name or "") if part not in ("", ".", "..")]
    if not parts and os.path.isdir(source):
        parts = [Path(source).resolve().name]
    if parts and parts[-1].endswith(".parquet"):
        stem = parts.pop().removesuffix(".parquet")
        if not parts or not (_split_of(stem) or glob.has_magic(stem)):
            parts.append(stem)
    if len(parts) > 1 and parts[-1] == "data":
        parts.pop()
    return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else "").strip("-.")[:80] or "data"


def _parquet_splits(folder: Path) -> dict[str, list[Path]]:
    """Return a folder's parquet files by split, in the layouts that the hub and its users have.

    If no file or folder is named after a split, all are one.
    """
    files = sorted([*folder.glob("*.parquet"), *folder.glob("[!.]*/*.parquet")])
    files = [file for file in files if file.is_file() and file.name != "metadata.parquet"]
    named: dict[str, list[Path]] = {}
    for file in files:
        inside = file.parent.name if file.parent != folder else ""
        split = _split_of(file.stem) or (inside if inside in _SPLITS else "")
        named.setdefault(split or file.stem, []).append(file)
    places = {file.parent for file in files if file.parent.name not in _SPLITS}
    if len(places) > 1:
        names = sorted(place.name for place in places)
        raise UsageError(
            f"{quoted(str(folder))} has parquet files in several folders: {', '.join(names)}",
            "give one of these folders",
        )
    if files and not any(_split_of(f.stem) or f.parent.name in _SPLITS for f in files):
        return {ANY: files}
    return named


def _image_splits(folder: Path) -> dict[str, str]:
    """Return the subfolders of images that are splits; if there are others, all images are one."""
    entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    below = [entry.name for entry in entries if entry.is_dir()]
    others = [e.name for e in entries if e.is_file() and not e.name.endswith((".md", ".txt"))]
    if below and not others and all(name in _SPLITS for name in below):
        return {name: name for name in below}
    return {ANY: ""}


def _has_images(folder: str) -> bool:
    """Tell if a folder holds a file that the library takes for an image, or an archive of some."""
    endings = {*Image.registered_extensions(), ".zip"}
    for _, _, files in os.walk(folder):
        if any(os.path.splitext(file)[1].lower() in endings for file in files):
            return True
    return False


def _split_of(stem: str) -> str:
    """Return the split that a parquet file's name says, or ""."""
    found = _SHARD.fullmatch(stem) or _NUMBERED.fullmatch(stem)
    return found[1] if found else ""


def _whole(files: list[Path], source: str) -> list[str]:
    """Return the paths of a split's files; UsageError if shards are missing."""
    counts = {int(match[2]) for file in files if (match := _SHARD.fullmatch(file.stem))}
    if counts - {len(files)}:
        raise UsageError(
            f"{source} holds {len(files)} of its {max(counts)} shards",
            "fetch the rest, or repeat the command that drew them",
        )
    return [glob.escape(str(file)) for file in files]


def _nothing(source: str) -> UsageError:
    """Return the error for a name of which there is no data here, with the nearest name."""
    if source == ARRAY:
        return UsageError("this data was an array", "give it again from Python, or other data")
    what = "file" if source.endswith(".parquet") else "folder"
    near = _nearest(source)
    if near:
        hint = f"did you mean {near}?"
    elif what == "folder" and _NAME.fullmatch(source):
        hint = f"give a folder or a parquet file, or {HUB}{source} for the hub's data set"
    else:
        hint = _HINT
    return UsageError(f"there is no {what} {quoted(source)}", hint)


def _nearest(source: str) -> str:
    """Return the path most like one that is not there, or ""; of its folder, if that is there."""
    parts = Path(source).parts[:64]
    known: Iterable[str] = [*toys.TOYS, "digits"] if len(parts) == 1 else []
    for end in range(len(parts)):
        here = Path(*parts[:end])
        if not os.path.lexists(here / parts[end]):
            break
    else:
        return ""
    try:
        with os.scandir(here) as entries:
            names = [entry.name for entry in islice(entries, _MOST) if _holds_data(entry)]
    except (OSError, ValueError):
        return ""
    lower = {name.lower(): name for name in (*names, *known)}
    close = difflib.get_close_matches(parts[end].lower()[:200], lower, n=1, cutoff=0.7)
    if not close:
        return ""
    found = here / lower[close[0]]
    rest = found.joinpath(*parts[end + 1 :])
    return str(rest if rest.exists() else found)


def _holds_data(entry: "os.DirEntry[str]") -> bool:
    return entry.name.endswith(".parquet") or entry.is_dir()
