"""difftool compile: make an engine of a bundle, or one graph that samples anywhere."""

from pathlib import Path
from typing import Annotated, Any

from typer import Option

from difftool.cli import options, trt
from difftool.cli.console import report
from difftool.diffusion.calls import SamplerCall
from difftool.errors import UsageError

EXAMPLES = """\b
Examples:
  difftool compile ddpm-mnist --trt --gpu sm89,sm120 --precision fp16
  difftool compile runs/mnist/bundle --trt --profile 1,16,256 --out mnist.engine
  difftool compile ddpm-mnist --portable --sampler dpmpp_2m --steps 20 --out sampler.onnx
"""


def compile_(
    model: options.Model,
    tensorrt: Annotated[bool, Option("--trt", help="Compile with TensorRT.")] = False,
    portable: Annotated[
        bool,
        Option("--portable", help="Write sampler.onnx: the whole sampler for any ONNX Runtime."),
    ] = False,
    precision: trt.Precision = trt.PRECISION,
    gpu: trt.Gpu = trt.GPU,
    profile: trt.Profile = trt.PROFILE,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    out: Annotated[
        Path | None,
        Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write; sampler.onnx by default with --portable, and with --trt none "
            "beside the cache.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compile a bundle for GPUs, or into one file for any host.

    The GPUs need not be there. An engine is kept in the cache, where sampling finds it; see
    difftool cache. --sampler, --steps, --eta and --arg choose the program that sampler.onnx runs
    if it is given none.
    """
    if tensorrt == portable:
        raise UsageError("nothing says what to compile with", "say --trt or --portable")
    asked = options.sampler_call(sampler, steps, eta, assignments)
    if tensorrt:
        if asked != SamplerCall():
            raise UsageError("an engine runs any program", "leave the sampler out")
        record = _engine(model, precision, gpu, profile, out, force=force, quiet=json)
    else:
        if (gpu, profile) != (trt.GPU, trt.PROFILE):
            raise UsageError("--gpu and --profile are of an engine", "say --trt instead")
        out = out or Path("sampler.onnx")
        record = _sampler(model, precision, asked, out, force=force)
    report(record, as_json=json)


def _engine(
    model: str,
    precision: str,
    gpu: str,
    profile: str,
    out: Path | None,
    *,
    force: bool,
    quiet: bool,
) -> dict[str, Any]:
    from difftool.bundle import read_bundle
    from difftool.compile.engine.compile import compile_bundle
    from difftool.files import write_atomic
    from difftool.runtime.model import find_bundle

    if out is not None:
        options.require_free(out, force=force)
    request = trt.request_of(precision, gpu, profile)
    bundle = read_bundle(find_bundle(model))
    with trt.building("compiling", quiet=quiet) as tell:
        compiled = compile_bundle(bundle, request, model=model, on_progress=tell)
    if out is not None:
        write_atomic(out, compiled.path.read_bytes())
    return {"engine": str(out or compiled.path), **trt.described(compiled)}


def _sampler(
    model: str, precision: str, asked: SamplerCall, out: Path, *, force: bool
) -> dict[str, Any]:
    from difftool.bundle import read_bundle
    from difftool.compile.sampler_onnx.graph import portable_sampler
    from difftool.files import sha256_of, write_atomic
    from difftool.runtime.model import find_bundle

    options.require_free(out, force=force)
    bundle = read_bundle(find_bundle(model))
    program = options.choose_program(bundle, asked)
    graph = portable_sampler(bundle, program, precision)
    write_atomic(out, graph)
    return {
        "out": str(out),
        "sha256": sha256_of(out),
        "bytes": len(graph),
        "program": program.name,
        "precision": precision,
    }
