"""From a checkpoint to a bundle."""

import importlib.metadata
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difftool.bundle import (
    CONDITIONER,
    FORMAT,
    SAMPLER,
    STEP,
    TORCHSCRIPT,
    Manifest,
    NetworkEntry,
    ProgramEntry,
    Provenance,
    file_entries,
    listed_files,
    read_bundle,
    write_manifest,
)
from difftool.checkpoint import EMA, MODEL
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.errors import ResourceError, UsageError
from difftool.export.onnx import conditioner_width, export_conditioner, export_step, step_module
from difftool.export.torchscript import torchscript as trace
from difftool.files import atomic_directory, destination, sha256_of, write_atomic
from difftool.log import logger
from difftool.networks.trained import Checkpoint, load_checkpoint
from difftool.runtime.engine_cache import EngineCache

if TYPE_CHECKING:
    from difftool.compile.engine.build import Progress
    from difftool.compile.engine.compile import Request

_log = logger(__name__)

_VERSIONS = ("difftool", "torch", "onnx", "onnxscript")


def export_bundle(
    checkpoint: Path | str,
    out: Path | str,
    *,
    ema: bool = True,
    torchscript: bool = False,
    portable: bool = False,
    features: Collection[Feature] = (),
    sampler: SamplerCall | None = None,
    engine: "Request | None" = None,
    on_build: "Progress | None" = None,
    force: bool = False,
) -> Path:
    """Export a checkpoint or the newest of a run as the bundle `out`; its folder, links followed.

    `sampler` makes the default program; the checkpoint's own does if it is not given, with the
    arguments that are changed if it is given without a name.
    `features` are what the step graph computes beyond the plain row, see `StepModule`; the
    norms that the default program needs are always in it.
    `portable` adds `sampler.onnx`, which runs that program anywhere.
    `engine` asks for a TensorRT engine, which goes into the bundle with the step graph in its
    precision; `on_build` is told of the build's progress. `force` replaces what stands at `out`,
    which must itself be a bundle and hold nothing else.
    """
    replace = listed_files if force else None
    folder = destination(out, replace=replace)
    loaded = load_checkpoint(checkpoint, ema=ema)
    asked = sampler or SamplerCall()
    program = compile_program(loaded.spec, loaded.sampler.changed_by(asked))
    if program.adaptive:
        features = {*features, Feature.NORMS}
    if Feature.GUIDANCE in features and not loaded.spec.null_label:
        raise UsageError(
            "guidance needs a model that was trained with labels and without",
            "train one with data.labels and loss.label_dropout, or leave guidance out",
        )
    width = conditioner_width(loaded.network, loaded.spec)
    module = step_module(loaded.network, loaded.spec, features)
    with atomic_directory(folder, replace=replace) as new:
        export_step(module, loaded.spec, width, new / STEP)
        if width:
            export_conditioner(loaded.network, loaded.spec, new / CONDITIONER)
        if torchscript:
            write_atomic(new / TORCHSCRIPT, trace(module, loaded.spec, width))
            _remember(sha256_of(new / TORCHSCRIPT))
        manifest = _manifest(loaded, program, features, file_entries(new))
        write_manifest(new, manifest.model_dump(mode="json"))
        if portable:
            _add_sampler(new)
        if engine is not None:
            from difftool.compile.engine.compile import add_engine

            add_engine(new, engine, model=folder.name, on_progress=on_build)
    return folder


def _remember(sha256: str) -> None:
    """Let the runtime run this TorchScript for this user, unless the cache cannot be written."""
    try:
        EngineCache().remember(sha256)
    except ResourceError as error:
        _log.warning("%s; to run %s here say --trust %s", error.message, TORCHSCRIPT, sha256)


def _add_sampler(folder: Path) -> None:
    from difftool.compile.sampler_onnx.graph import portable_sampler

    bundle = read_bundle(folder)
    graph = portable_sampler(bundle, bundle.default_program())
    write_atomic(folder / SAMPLER, graph)
    value = {**bundle.manifest.model_dump(mode="json"), "files": file_entries(folder)}
    write_manifest(folder, value)


def _manifest(
    loaded: Checkpoint,
    program: Program,
    features: Collection[Feature],
    files: dict[str, dict[str, Any]],
) -> Manifest:
    weights = loaded.path / (EMA if loaded.weights == "ema" else MODEL)
    return Manifest.model_validate(
        {
            "format": FORMAT,
            "spec": loaded.spec.to_dict(),
            "program": ProgramEntry(**program.call.to_dict()),
            "network": NetworkEntry(
                **loaded.call.to_dict(),
                parameters=sum(weight.numel() for weight in loaded.network.parameters()),
            ),
            "provenance": Provenance(
                step=loaded.step,
                weights="ema" if loaded.weights == "ema" else "raw",
                weights_sha256=sha256_of(weights),
                versions={name: importlib.metadata.version(name) for name in _VERSIONS},
            ),
            "files": files,
            "fused": [feature for feature in Feature if feature in features],
        }
    )
