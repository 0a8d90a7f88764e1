"""difftool compile: make an engine of a bundle."""

from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options, trt
from difftool.cli.console import report
from difftool.errors import UsageError

EXAMPLES = """\b
Examples:
  difftool compile ddpm-mnist --trt --gpu sm89,sm120 --precision fp16
  difftool compile runs/mnist/bundle --trt --profile 1,16,256 --out mnist.engine
"""


def compile_(
    model: options.Model,
    tensorrt: Annotated[bool, Option("--trt", help="Compile with TensorRT.")] = False,
    precision: trt.Precision = trt.PRECISION,
    gpu: trt.Gpu = trt.GPU,
    profile: trt.Profile = trt.PROFILE,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Also write the engine to a file, for a host of your own.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compile a bundle for GPUs, which need not be there.

    The engine is kept in the cache, where sampling finds it; see difftool cache.
    """
    if not tensorrt:
        raise UsageError("nothing says what to compile with", "say --trt")
    from difftool.bundle import read_bundle
    from difftool.export.tensorrt.compile import compile_bundle
    from difftool.files import write_atomic
    from difftool.runtime.model import find_bundle

    if out is not None:
        options.require_free(out, force=force)
    request = trt.request_of(precision, gpu, profile)
    bundle = read_bundle(find_bundle(model))
    with trt.building("compiling", quiet=json) as tell:
        compiled = compile_bundle(bundle, request, model=model, on_progress=tell)
    if out is not None:
        write_atomic(out, compiled.path.read_bytes())
    report({"engine": str(out or compiled.path), **trt.described(compiled)}, as_json=json)
