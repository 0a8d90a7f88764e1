"""Read folders of images, parquet files and the hub's data sets with the `datasets` library."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.errors import MissingDependencyError, UsageError, quoted

_COUNT: Final = re.compile(r"-of-(\d{5})\.parquet$")  # at the end of a shard's name


def open_table(source: str, split: str, *, labels: bool) -> Any:
    """Open a folder, parquet file or hub name as a table; `labels` adds those of subfolders."""
    _require_source(source)
    # A name on the hub, or one too long, is no folder.
    shards = _shards(Path(source), split) if os.path.isdir(source) else []
    # By default the library reports to Hugging Face whatever it reads, even a local folder.
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("datasets", "data") from error
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # in case a host program has loaded it before
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the errors below say enough
    try:
        if source.endswith(".parquet") or shards:
            return datasets.load_dataset("parquet", data_files=shards or source, split="train")
        if Path(source).is_dir():
            return datasets.load_dataset(
                "imagefolder", data_dir=source, split="train", drop_labels=not labels
            )
        return datasets.load_dataset(source, split=split)
    except Exception as error:  # its file systems and parsers may raise anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(
            f"cannot load the data {quoted(source)}: {reason}",
            "give a folder, a parquet file, or a hub name (which needs the network)",
        ) from error


def _require_source(source: str) -> None:
    """Refuse a path that holds no data, which the library would look for on the hub."""
    hint = "give a folder, a parquet file, or a hub name (which needs the network)"
    if source.endswith(".parquet"):
        return
    if os.path.isfile(source):
        raise UsageError(f"{quoted(source)} is a file, and no parquet file", hint)
    # A name on the hub is NAME or OWNER/NAME.
    path = source.startswith((".", "~", os.sep)) or source.endswith(os.sep) or source.count("/") > 1
    if path and not os.path.isdir(source):
        raise UsageError(f"there is no folder {quoted(source)}", hint)


def encoded_images(table: Any, source: str, column: str | None) -> Iterable[Any]:
    """Return the encoded images as dicts of `bytes` and `path`; UsageError for another column."""
    import datasets

    chosen = _image_column(table, source, column)
    try:
        images: Iterable[Any] = table.cast_column(chosen, datasets.Image(decode=False))[chosen]
        return images
    except Exception as error:  # several libraries take part
        raise UsageError(
            f"column {quoted(chosen)} of {quoted(source)} holds no images",
            f"set column to one of: {', '.join(table.features)}",
        ) from error


def labels(table: Any, source: str, column: str) -> tuple[NDArray[np.int64], int | None]:
    """Return the column of labels, int64 [N], and the number of classes if the table has it."""
    if column not in table.features:
        raise UsageError(
            f"{quoted(source)} has no column {quoted(column)}",
            f"set labels to one of: {', '.join(table.features)}",
        )
    kind = table.features[column]
    whole = str(getattr(kind, "dtype", "")).removeprefix("u").startswith("int")
    found = np.asarray(table[column][:]) if whole else None
    if found is None or found.dtype.kind not in "iu":  # an item without a label is None
        raise UsageError(
            f"column {quoted(column)} of {quoted(source)} does not hold an integer for each item",
            "choose a column of whole numbers from 0",
        )
    return found.astype(np.int64), getattr(kind, "num_classes", None)


def samples(table: Any) -> NDArray[np.float32] | None:
    """Return the column `sample` of lists of numbers, float32 [N, D]; None if there is none."""
    if "sample" not in table.features:
        return None
    found: NDArray[np.float32] = table.with_format("numpy")["sample"][:]
    return found


def _shards(folder: Path, split: str) -> list[str]:
    """Return the shards of a split, if a folder has them in the hub's layout.

    `difftool sample` writes such folders. UsageError if shards are missing.
    """
    found = sorted(map(str, folder.glob(f"data/{split}-*-of-*.parquet")))
    counts = {int(match[1]) for name in found if (match := _COUNT.search(name))}
    if counts - {len(found)}:
        raise UsageError(
            f"{folder} holds {len(found)} of its {max(counts)} shards",
            "repeat the command that drew them, which draws the rest",
        )
    return found


def _image_column(table: Any, source: str, column: str | None) -> str:
    import datasets

    columns = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
    if column is not None:
        columns = [name for name in table.features if name == column]
    if len(columns) != 1:
        raise UsageError(
            f"{quoted(source)} has {len(columns) or 'no'} columns of images to choose from",
            f"set column to one of: {', '.join(table.features)}",
        )
    return str(columns[0])
