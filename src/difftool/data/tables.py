"""Read folders of images, parquet files and the hub's data sets with the `datasets` library."""

import os
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.data import sources
from difftool.diffusion.spec import usable_names
from difftool.errors import MissingDependencyError, UsageError, quoted
from difftool.log import logger

_OTHER: Final = "give another folder or file"

log = logger(__name__)


def open_table(source: str, split: str, *, labels: bool) -> Any:
    """Open a folder, parquet file or hub name as a table; `labels` adds those of subfolders."""
    name = sources.hub_name(source)
    remote = name is not None or sources.is_remote(source)
    # All that can be known without the library comes first, for it takes a second to import.
    files = [] if remote else sources.parquet_files(source, split)
    pattern = "" if remote or files else sources.image_pattern(source, split)
    # By default the library reports to Hugging Face whatever it reads, even a local folder.
    os.environ["HF_UPDATE_DOWNLOAD_COUNTS"] = "0"
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("datasets", "data") from error
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # in case a host program has loaded it before
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # the errors below say enough
    if remote:
        log.warning("asking the hub for %s" if name else "fetching %s", name or source)
    try:
        if name is not None:
            return datasets.load_dataset(name, split=split)
        if remote or files:
            return datasets.load_dataset("parquet", data_files=files or source, split="train")
        return datasets.load_dataset(
            "imagefolder", data_files=pattern, split="train", drop_labels=not labels
        )
    except Exception as error:  # its file systems and parsers may raise anything
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise UsageError(f"cannot load the data {quoted(source)}: {reason}", _OTHER) from error


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


def labels(
    table: Any, source: str, column: str
) -> tuple[NDArray[np.int64], int | None, tuple[str, ...]]:
    """Return the column of labels, int64 [N], the number of classes and their names, if known."""
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
    names = tuple(getattr(kind, "names", None) or ())
    if not usable_names(names):
        log.warning("the names of the classes of %s are not kept: some are alike", quoted(source))
        names = ()
    return found.astype(np.int64), getattr(kind, "num_classes", None), names


def samples(table: Any) -> NDArray[np.float32] | None:
    """Return the column `sample` of lists of numbers, float32 [N, D]; None if there is none."""
    if "sample" not in table.features:
        return None
    found: NDArray[np.float32] = table.with_format("numpy")["sample"][:]
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
