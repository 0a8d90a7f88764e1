"""difftool compile: an engine from a bundle, 16 bits, a graph that samples anywhere, or Triton."""

from pathlib import Path
from typing import Annotated

from typer import Option

from difftool.cli import options, trt
from difftool.cli.console import report, waiting
from difftool.diffusion import SamplerCall
from difftool.errors import UsageError
from difftool.outputs import require_free

EXAMPLES = """\b
Examples:
  difftool compile ddpm-mnist --trt --gpu sm89,sm120 --precision fp16
  difftool compile runs/mnist/bundle --trt --profile 1,16,256 --out mnist.engine
  difftool compile ddpm-mnist --portable --sampler dpmpp_2m --steps 20 --out sampler.onnx
  difftool compile ddpm-mnist --onnx --precision fp16 --out half.bundle
  difftool compile ddpm-mnist --triton models
"""


def compile_(
    model: options.Model,
    tensorrt: Annotated[bool, Option("--trt", help="Compile with TensorRT.")] = False,
    portable: Annotated[
        bool,
        Option("--portable", help="Write sampler.onnx: the whole sampler for any ONNX Runtime."),
    ] = False,
    onnx: Annotated[
        bool,
        Option("--onnx", help="Add the step graph in fp16 or bf16, for ONNX Runtime on a GPU."),
    ] = False,
    triton: Annotated[
        Path | None,
        Option(
            metavar="REPO",
            help="Write a model repository for Triton's server: a new folder of this name.",
        ),
    ] = None,
    precision: trt.Precision = trt.PRECISION,
    gpu: trt.Gpu = trt.GPU,
    profile: trt.Profile = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    out: Annotated[
        Path | None,
        options.out(
            "PATH",
            "File to write; by default sampler.onnx with --portable, and with --trt only the "
            "cache. With --onnx a new bundle; by default BUNDLE itself is given the graph.",
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Compile a bundle for GPUs, or into one file for any host.

    --onnx needs neither GPU nor TensorRT: onnxruntime-cuda runs the graph itself.

    --trt works without the GPUs that it builds for. It keeps the engine in the cache, and
    sampling finds it there; see difftool cache. --sampler, --steps, --eta and --arg are for
    --portable and --triton: they choose the program that sampler.onnx runs.

    --triton writes three models: one whose requests share steps and choose their samplers, the same
    with previews, and sampler.onnx.
    """
    if (tensorrt, portable, onnx, triton is not None).count(True) != 1:
        text = "compile needs either --trt, --portable, --onnx or --triton"
        raise UsageError(text, "give one of them")
    given = options.sampler_call(sampler, steps, eta, assignments) != SamplerCall()
    if given and (tensorrt or onnx):
        what = "an engine" if tensorrt else "a step graph"
        raise UsageError(f"{what} runs any sampler", "leave the sampler's options out")
    if tensorrt:
        from difftool.compile import tensorrt as make

        sizes = trt.profile_from(profile)
        with waiting("compiling", quiet=json) as tell:
            engine = make(
                model,
                gpus=gpu.split(","),
                precision=precision,
                profile=sizes,
                out=out,
                force=force,
                on_build=tell,
            )
        record = engine.record
        report(
            {
                "engine": str(engine.path),
                "name": record.name,
                "sha256": record.sha256,
                "bytes": record.size,
                "seconds": record.seconds,
                "built": engine.built,
                "key": record.key.model_dump(mode="json"),
            },
            as_json=json,
        )
        return
    if (gpu, profile) != (trt.GPU, None):
        raise UsageError("--gpu and --profile need --trt", "leave them out, or use --trt")
    if onnx:
        from difftool.compile import half

        if precision == trt.PRECISION:
            raise UsageError("--onnx needs --precision", "give fp16 or bf16")
        graph = half(model, precision, out=out, force=force)
        entry = graph.bundle.manifest.files[graph.path.name]
        report({"graph": str(graph.path), **entry.model_dump()}, as_json=json)
        return
    if triton is not None:
        from difftool.compile import triton as repository

        if out is not None:
            raise UsageError("--triton names the folder itself", "leave --out out")
        bundle, program = options.open_program(model, sampler, steps, eta, assignments)
        written = repository(bundle, triton, program=program, precision=precision, force=force)
        report(
            {
                "out": str(written.path),
                "models": [written.model, written.stream, written.sampler],
                "files": written.files,
                "bytes": written.size,
                "program": written.program.name,
                "precision": written.precision,
            },
            as_json=json,
        )
        return
    from difftool.compile import portable as write

    out = out or Path("sampler.onnx")
    require_free(out, force=force)
    bundle, program = options.open_program(model, sampler, steps, eta, assignments)
    made = write(bundle, out, program=program, precision=precision, force=force)
    report(
        {
            "out": str(made.path),
            "sha256": made.sha256,
            "bytes": made.size,
            "program": made.program.name,
            "precision": made.precision,
        },
        as_json=json,
    )
