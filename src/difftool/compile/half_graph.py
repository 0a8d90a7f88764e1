"""Add a step graph in 16 bits to a bundle, for backends that run ONNX on a GPU."""

import shutil
from pathlib import Path

import onnx

from difftool.bundle import STEP, Bundle, listed_files, read_bundle, step_name
from difftool.bundle.amend import with_files
from difftool.compile.precision import in_half
from difftool.compile.quantization.bundle import require_target
from difftool.files import atomic_directory, temporary_folder
from difftool.runtime.shipped import open_bundle


def half(
    bundle: Bundle | Path | str,
    *,
    precision: str = "fp16",
    out: Path | str | None = None,
    force: bool = False,
) -> Bundle:
    """Add a step graph whose network computes in 16 bits to a bundle; nothing is calibrated.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        precision: "fp16" or "bf16".
        out: write a bundle with that graph there; by default it is added to the bundle itself.
        force: replace the bundle at `out`, or that graph in the bundle.

    Raises:
        UsageError: the graph or `out` exists already, without `force`; or a weight is too large for
            fp16.
        ResourceError: the bundle's folder or `out` cannot be written to.

    Examples:
        >>> bundle = difftool.compile.half("digits.bundle", out="half.bundle")
        >>> "step.fp16.onnx" in bundle.manifest.files
        True
    """
    opened = open_bundle(bundle)
    replace = listed_files if force or out is None else None
    target = require_target(opened, precision, out, force, replace)
    graph = in_half(onnx.load_from_string(opened.graph(STEP).data), precision)
    with temporary_folder() as folder:
        shutil.copytree(opened.path, folder / "bundle")
        files = {step_name(precision): graph.SerializeToString()}
        made = with_files(read_bundle(folder / "bundle"), files)
        with atomic_directory(target, replace=replace) as new:
            shutil.copytree(made.path, new, dirs_exist_ok=True)
    return read_bundle(target)
