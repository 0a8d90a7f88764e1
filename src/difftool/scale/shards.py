"""Shards of samples: Parquet files in the layout of the `datasets` library.

The columns of a shard are:

- `index`: int64, the sample's index
- `image`: a PNG, as a struct of bytes and path; or `sample`: float32, a list of fixed size, if the
  model's samples are not images
- `label`: int64, if the model has classes; null stands for no class
- `sha256`: the digest of the sample's float32 numbers, before they are rounded to pixels
"""

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.runtime import is_image, to_uint8
from difftool.scale.manifest import read_manifest

Floats = NDArray[np.float32]


def encode_shard(
    samples: Floats, spec: ModelSpec, first: int, labels: NDArray[np.int64] | None
) -> bytes:
    """Return samples float32 [N, *S] from index `first` on as a shard; equal ones, equal bytes.

    `labels` [N] are those of a model with classes. MissingDependencyError without pyarrow.
    """
    arrow, parquet = require_parquet()
    columns: dict[str, Any] = {"index": arrow.array(range(first, first + len(samples)))}
    features: dict[str, Any] = {}
    if is_image(spec):
        pictures = [{"bytes": _png(pixels), "path": None} for pixels in to_uint8(samples, spec)]
        kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        columns["image"] = arrow.array(pictures, kind)
        features["image"] = {"_type": "Image"}
    else:
        flat = samples.reshape(len(samples), -1)
        columns["sample"] = arrow.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
    if labels is not None:
        columns["label"] = arrow.array(labels, mask=labels == spec.classes)
        names = [str(label) for label in range(spec.classes)]
        features["label"] = {"names": names, "_type": "ClassLabel"}
    columns["sha256"] = arrow.array(
        [hashlib.sha256(each.tobytes()).hexdigest() for each in samples]
    )
    about = json.dumps({"info": {"features": features}})  # where `datasets` looks for its types
    table = arrow.table(columns).replace_schema_metadata({"huggingface": about})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    return buffer.getvalue()


def digests(folder: Path | str) -> dict[int, str]:
    """Return the sha256 of each sample's float32 numbers, by the sample's index.

    Raises:
        ArtefactError: it is no folder of samples, or a shard cannot be read.
        MissingDependencyError: pyarrow is not installed.
    """
    return dict(each_digest(Path(folder)))


def each_digest(folder: Path) -> Iterator[tuple[int, str]]:
    """Yield index and digest of each sample that the manifest lists, one shard after another."""
    _, parquet = require_parquet()
    for shard in read_manifest(folder).shards:
        try:
            table = parquet.read_table(folder / shard.file, columns=["index", "sha256"])
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ArtefactError(
                f"cannot read {folder / shard.file}",
                "repeat the command that drew the folder, which draws what is missing",
            ) from error
        yield from zip(*(table[name].to_pylist() for name in table.column_names), strict=True)


def require_parquet() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet; MissingDependencyError without them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError.extra("pyarrow", "data") from error
    return pyarrow, pyarrow.parquet


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()
