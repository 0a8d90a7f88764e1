"""Add a step graph in 16 bits to a bundle, for GPUs that run the graph itself."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx

from difftool.bundle import STEP, Bundle, listed_files, read_bundle, step_name
from difftool.bundle.amend import with_files
from difftool.compile.precision import in_half, require_half
from difftool.errors import UsageError
from difftool.files import atomic_directory, temporary_folder
from difftool.outputs import require_place
from difftool.runtime.shipped import open_bundle


@dataclass(frozen=True)
class Half:
    """A bundle with a step graph in 16 bits, and that graph's file, such as step.fp16.onnx."""

    bundle: Bundle
    path: Path


def half(
    bundle: Bundle | Path | str,
    precision: str = "fp16",
    *,
    out: Path | str | None = None,
    force: bool = False,
) -> Half:
    """Add a step graph whose network computes in 16 bits to a bundle.

    The backend `onnxruntime-cuda` runs it, and TensorRT's engines of this precision are compiled
    from it. Its operators are those that run fastest on GPUs. The rows, softmax and the statistics
    of norms stay in float32.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        precision: "fp16" or "bf16". fp16 has more digits, bf16 more range.
        out: the folder of a new bundle; by default the graph is added to `bundle` itself.
        force: replace the bundle at `out`, or the graph in the bundle.

    Raises:
        UsageError: the precision is neither, a weight is too large for fp16, or the graph or `out`
            exists already and `force` is not given.
        ResourceError: the bundle's folder or `out` cannot be written to.

    Examples:
        >>> made = difftool.compile.half("digits.bundle", "fp16", out="half.bundle")
        >>> made.path.name
        'step.fp16.onnx'
    """
    require_half(precision)
    opened, name = open_bundle(bundle), step_name(precision)
    if out is None and name in opened.manifest.files and not force:
        raise UsageError(
            f"{opened.path} has {precision} already", "replace it with `force`, or give `out`"
        )
    if out is not None:
        require_place(Path(out))
    model = in_half(onnx.load_from_string(opened.graph(STEP).data), precision)
    files = {name: model.SerializeToString()}
    if out is None:
        made = with_files(opened, files)
    else:
        with temporary_folder() as folder:
            shutil.copytree(opened.path, folder / "bundle")
            staged = with_files(read_bundle(folder / "bundle"), files)
            with atomic_directory(out, replace=listed_files if force else None) as new:
                shutil.copytree(staged.path, new, dirs_exist_ok=True)
        made = read_bundle(Path(out))
    return Half(made, made.file(name))
