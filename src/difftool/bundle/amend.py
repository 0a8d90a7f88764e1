"""Add files to a bundle: all of them at once, or none."""

import os
import shutil
from collections.abc import Mapping

from difftool.bundle import (
    Bounds,
    Bundle,
    Measured,
    file_entries,
    listed_files,
    read_bundle,
    write_manifest,
)
from difftool.errors import ResourceError
from difftool.files import atomic_directory, write_atomic


def with_files(
    bundle: Bundle,
    files: Mapping[str, bytes],
    *,
    bounds: Mapping[str, Bounds] | None = None,
    measured: Measured | None = None,
) -> Bundle:
    """Rewrite a bundle with more files and bounds; those of an old name replace the old ones.

    `measured` replaces what was measured before.

    ResourceError if its folder cannot be replaced.
    """
    path = bundle.path.resolve()
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise ResourceError(f"cannot write into {path}", "copy the bundle to a folder of yours")
    manifest = bundle.manifest
    all_bounds = {**manifest.bounds, **(bounds or {})}
    with atomic_directory(path, replace=listed_files) as folder:
        for name in manifest.files:
            if name not in files:
                shutil.copyfile(path / name, folder / name)
        for name, data in files.items():
            write_atomic(folder / name, data)
        value = {
            **manifest.model_dump(mode="json"),
            "files": file_entries(folder),
            "bounds": {name: value.model_dump() for name, value in all_bounds.items()},
            **({} if measured is None else {"measured": measured.model_dump(mode="json")}),
        }
        write_manifest(folder, value)
    return read_bundle(path)
