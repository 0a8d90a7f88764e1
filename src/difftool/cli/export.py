"""difftool export: make a bundle from a checkpoint."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from difftool.cli import options, trt
from difftool.cli.console import counted, report, waiting
from difftool.cli.foreign import As, Sets, checkpoint_from
from difftool.diffusion import Feature
from difftool.errors import UsageError
from difftool.outputs import require_place

EXAMPLES = """\b
Examples:
  difftool export runs/digits --out digits.bundle
  difftool export runs/mnist --out mnist.bundle --sampler ddim --steps 50 --torchscript
  difftool export runs/mnist --out mnist.bundle --portable --sampler dpmpp_2m --steps 20
  difftool export runs/faces --out faces.bundle --with known --with guidance
  difftool export runs/faces --out faces.bundle --trt --precision fp16 --gpu sm89,sm120
  difftool export runs/faces --out faces.bundle --aot --precision bf16
"""

_MORE = "What else to put into the bundle"  # a group of the help


def export(
    checkpoint: Annotated[
        Path,
        Argument(
            metavar="CHECKPOINT",
            help="Folder of a checkpoint, or of a run, whose newest checkpoint is taken; or any "
            "PATH that difftool import takes.",
        ),
    ],
    out: Annotated[Path, options.out("BUNDLE", options.NEW_FOLDER)],
    raw: options.Raw = False,
    torchscript: Annotated[
        bool,
        Option(
            "--torchscript",
            help="Add step.ts, the step graph as TorchScript.",
            rich_help_panel=_MORE,
        ),
    ] = False,
    portable: Annotated[
        bool,
        Option(
            "--portable",
            help="Add sampler.onnx: the whole sampler for any ONNX Runtime.",
            rich_help_panel=_MORE,
        ),
    ] = False,
    features: Annotated[
        list[Feature] | None,
        Option(
            "--with",
            metavar="NAME",
            help="Add a feature to the step graph: known (keep known values), guidance (by class "
            "labels) or norms (adaptive corrector steps); repeatable.",
            rich_help_panel=_MORE,
        ),
    ] = None,
    tensorrt: Annotated[
        bool,
        Option(
            "--trt",
            help="Add an engine that TensorRT compiles from the step graph.",
            rich_help_panel=_MORE,
        ),
    ] = False,
    aot: Annotated[
        bool,
        Option(
            "--aot",
            help="Add step.pt2, the step graph compiled by PyTorch for this GPU or CPU.",
            rich_help_panel=_MORE,
        ),
    ] = False,
    precision: trt.Precision = trt.PRECISION,
    gpu: trt.Gpu = trt.GPU,
    profile: trt.Profile = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    format: As = None,
    sets: Sets = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Make a bundle from a checkpoint, to sample without PyTorch.

    --sampler, --steps, --eta and --arg choose the program that the bundle runs by default.
    --precision is for --trt and --aot; --gpu and --profile are for --trt.
    """
    from difftool.export import export as make

    require_place(out)
    engine = None
    if tensorrt:  # refuse before any work if TensorRT is missing or cannot do this
        from difftool.compile import engine_request

        engine = engine_request(gpu.split(","), precision, trt.profile_from(profile))
    elif (gpu, profile) != (trt.GPU, None):
        raise UsageError("--gpu and --profile need --trt", "add --trt")
    elif precision != trt.PRECISION and not aot:
        raise UsageError("--precision needs --trt or --aot", "add one of them")
    with (
        checkpoint_from(checkpoint, format, sets, quiet=json) as taken,
        waiting("exporting", quiet=json) as tell,
    ):
        bundle = make(
            taken,
            out,
            ema=not raw,
            torchscript=torchscript,
            aot=precision if aot else None,
            portable=portable,
            features=features or (),
            sampler=options.sampler_call(sampler, steps, eta, assignments),
            engine=engine,
            on_build=tell,
            force=force,
        )
    manifest = bundle.manifest
    size = sum(entry.size for entry in manifest.files.values())
    made = f"{manifest.network.parameters:,} parameters, {counted(len(manifest.files), 'file')}"
    report(
        {
            "bundle": str(out),
            "bytes": size,
            "parameters": manifest.network.parameters,
            "program": bundle.default_program().name,
            "features": [feature.value for feature in manifest.fused],
            "weights": manifest.provenance.weights,
            "step": manifest.provenance.step,
            "engines": {
                name: key.model_dump(mode="json") for name, key in manifest.engines.items()
            },
            "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
        },
        as_json=json,
        sentence=f"{made} -> {out} ({size / 1e6:.1f} MB)",
    )
