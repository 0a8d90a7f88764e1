"""Models of the diffusers library: a UNet2DModel with its scheduler."""

from collections.abc import Mapping
from typing import Any, Final

from difftool.errors import ArtefactError
from difftool.importers import diffusers_unet as unet
from difftool.importers import diffusers_ve as ve
from difftool.importers.diffusers_ncsnpp import is_ncsnpp, ncsnpp_network
from difftool.importers.diffusers_scheduler import differences, read_counting
from difftool.importers.format import Format, Imported
from difftool.importers.layout import CLASS, PIPELINE, PIPELINE_FILE, SCHEDULER, UNET
from difftool.importers.settings import Settings
from difftool.importers.source import Source
from difftool.importers.tensors import as_weights, take

_SIGNS: Final = {"conv_in.weight", "time_embedding.linear_1.weight"}
_BLOCKS: Final = ("down_blocks.0.", "downsample_blocks.0.")
_NO_PART: Final = (None, [None, None])  # the entries of an index for a part that is not there
_NO_SCHEDULER: Final = "no scheduler_config.json: the scheduler's settings are its defaults"


def _recognizes(source: Source) -> bool:
    state = as_weights(source.content)
    return state.keys() >= _SIGNS and any(name.startswith(_BLOCKS) for name in state)


def _read(source: Source, settings: Settings) -> Imported:
    if UNET not in source.beside:
        raise ArtefactError(
            f"the folder of {source.file} has no config.json of diffusers", "copy the whole folder"
        )
    _check_pipeline(source.beside.get(PIPELINE, {}))
    saved, rules = source.beside[UNET], source.beside.get(SCHEDULER, {})
    config = unet.options(saved)
    network, name = ncsnpp_network(config) if is_ncsnpp(config) else unet.unet_network(config)
    notes = [] if rules else [_NO_SCHEDULER]
    if rules.get(CLASS) == ve.CLASS:
        chosen, spec, sampler = ve.read_ve(config, rules, settings)
    else:
        classes = network.arguments.get("classes", 0)
        chosen, spec, sampler = read_counting(config, rules, settings, classes)
        notes += differences(chosen)
    step = saved.get(unet.STEP)
    is_ema = type(step) is int and step >= 0
    if not is_ema:
        notes.append("the files do not tell whether the weights are a moving average")
    state = unet.present_names(as_weights(source.content))
    return Imported(
        spec=spec,
        network=network,
        tensors=take(state, network, name, apart=True),
        sampler=sampler,
        weights="ema" if is_ema else "raw",
        chosen=chosen,
        files=source.files,
        step=step if is_ema else 0,
        notes=tuple(notes),
    )


def _check_pipeline(index: Mapping[str, Any]) -> None:
    """Raise ArtefactError if a pipeline has more parts than a U-Net and its scheduler."""
    parts = {name for name, kind in index.items() if name[:1] != "_" and kind not in _NO_PART}
    if others := sorted(parts - {UNET, SCHEDULER}):
        raise ArtefactError(
            f"{PIPELINE_FILE} has {', '.join(others)} beside a U-Net and a scheduler",
            "import a model that has only these two",
        )


FORMAT: Final = Format(
    title="huggingface/diffusers",
    sign="tensors named conv_in, time_embedding.linear_1 and down_blocks",
    recognizes=_recognizes,
    read=_read,
)
