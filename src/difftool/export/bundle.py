"""Export a checkpoint as a bundle."""

import importlib.metadata
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from difftool.bundle import (
    FORMAT,
    SAMPLER,
    TORCHSCRIPT,
    Bundle,
    Manifest,
    file_entries,
    listed_files,
    package_name,
    read_bundle,
    write_manifest,
)
from difftool.checkpoint import CONFIG, EMA, MODEL
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.errors import ArtefactError, ResourceError, UsageError
from difftool.export.aot import aot_package, require_aot
from difftool.export.onnx import export_graphs
from difftool.export.step import StepModule, known_features
from difftool.export.torchscript import torchscript as trace
from difftool.files import atomic_directory, destination, file_sha256, write_atomic
from difftool.log import logger
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.engine_cache import EngineCache

if TYPE_CHECKING:
    from difftool.compile.engine.build import Progress
    from difftool.compile.engine.compile import EngineRequest

_log = logger(__name__)

_VERSIONS = ("difftool", "torch", "onnx", "onnxscript")


def export(
    checkpoint: Path | str,
    out: Path | str,
    *,
    features: Collection[Feature | str] = (),
    sampler: SamplerCall | None = None,
    ema: bool = True,
    torchscript: bool = False,
    aot: str | None = None,
    portable: bool = False,
    engine: "EngineRequest | None" = None,
    on_build: "Progress | None" = None,
    force: bool = False,
) -> Bundle:
    """Export a checkpoint as the bundle `out`, which appears whole or not at all.

    Args:
        checkpoint: a checkpoint, or a run, whose newest checkpoint is taken. For other people's
            files see `difftool.importers`.
        out: the folder to make.
        features: computations that the step graph adds to the plain row: "known", "guidance",
            "norms". If the default program needs norms, they are added anyway.
        sampler: the call that makes the default program; by default the checkpoint's own. A call
            without a name changes arguments of that one.
        ema: True exports the moving average of the weights, False the last weights.
        torchscript: add `step.ts`, the step graph as TorchScript.
        aot: add an AOTInductor package in this precision, "fp32", "fp16" or "bf16": the step as
            machine code for this GPU or CPU and torch, in `step.pt2` or such as `step.fp16.pt2`.
        portable: add `sampler.onnx`, which runs the default program on any ONNX Runtime.
        engine: add a TensorRT engine, and the step graph in its precision; see
            `difftool.compile.EngineRequest`.
        on_build: called with the phase, the step and the number of steps of TensorRT's build.
        force: replace `out`, which must itself be a bundle and hold nothing else.

    Raises:
        UsageError: `out` exists, or the sampler or a feature does not suit the model. Guidance
            needs a model that was trained both with and without labels.
        ArtefactError: the checkpoint is damaged.

    Examples:
        >>> bundle = difftool.export.export("runs/digits", "portable.bundle", portable=True)
        >>> bundle.default_program().nfe, sorted(bundle.manifest.files)[:2]
        (20, ['conditioner.onnx', 'sampler.onnx'])
    """
    replace = listed_files if force else None
    chosen = known_features(features)
    if aot is not None:
        require_aot(aot)
    folder = destination(out, replace=replace)
    loaded = load_checkpoint(checkpoint, ema=ema)
    program = compile_program(loaded.spec, loaded.sampler.changed_by(sampler or SamplerCall()))
    if program.adaptive:
        chosen |= {Feature.NORMS}
    if Feature.GUIDANCE in chosen and not loaded.spec.null_label:
        raise UsageError(
            "guidance needs a model that was trained both with and without labels",
            "train one with data.labels and loss.label_dropout, or leave guidance out",
        )
    module = StepModule(loaded.network, loaded.spec, chosen)
    with atomic_directory(folder, replace=replace) as new:
        export_graphs(module, new)
        if torchscript:
            write_atomic(new / TORCHSCRIPT, trace(module))
            _remember(new / TORCHSCRIPT)
        if aot is not None:
            package = new / package_name(aot)
            aot_package(module, package, aot)
            _remember(package)
        manifest = _manifest(loaded, program, chosen)
        write_manifest(new, {**manifest, "files": file_entries(new)})
        if portable:
            from difftool.compile.sampler_onnx.graph import portable_sampler

            write_atomic(new / SAMPLER, portable_sampler(read_bundle(new), program))
            write_manifest(new, {**manifest, "files": file_entries(new)})
        if engine is not None:
            from difftool.compile.engine.compile import add_engine

            add_engine(new, engine, model=folder.name, on_progress=on_build)
    return read_bundle(folder)


def _remember(code: Path) -> None:
    """Let the runtime run this file for this user; warn if the cache cannot be written."""
    sha256 = file_sha256(code)
    try:
        EngineCache().remember(sha256)
    except ResourceError as error:
        _log.warning("%s; to run %s here, trust its sha256 %s", error.message, code.name, sha256)


def _manifest(
    loaded: Checkpoint, program: Program, features: Collection[Feature]
) -> dict[str, Any]:
    """Return the manifest as JSON data, with no files yet."""
    weights = loaded.path / (EMA if loaded.weights == "ema" else MODEL)
    value = {
        "format": FORMAT,
        "spec": loaded.spec.to_dict(),
        "program": program.call.to_dict(),
        "network": {
            **loaded.call.to_dict(),
            "parameters": sum(weight.numel() for weight in loaded.network.parameters()),
        },
        "provenance": {
            "step": loaded.step,
            "weights": loaded.weights,
            "weights_sha256": file_sha256(weights),
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        },
        "files": {},
        "fused": [feature for feature in Feature if feature in features],
        "distilled": loaded.config.get("distilled"),
    }
    try:
        return Manifest.model_validate(value).model_dump(mode="json")
    except ValidationError as error:  # all else is from our own objects
        raise ArtefactError(
            f"{loaded.path / CONFIG} mistypes distilled", "if it was edited, undo that"
        ) from error
