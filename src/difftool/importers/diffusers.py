"""Models of the diffusers library: a UNet2DModel with its scheduler."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError
from difftool.importers import diffusers_scheduler as scheduler
from difftool.importers import diffusers_unet as unet
from difftool.importers import diffusers_ve as ve
from difftool.importers.diffusers_ncsnpp import is_ncsnpp, ncsnpp_arguments, take_ncsnpp
from difftool.importers.format import Format, Imported
from difftool.importers.layout import CLASS, PIPELINE, PIPELINE_FILE, SCHEDULER, UNET
from difftool.importers.settings import Chosen, Setting, Settings
from difftool.importers.source import Source
from difftool.importers.tensors import Weights, as_weights, outline, take_unet
from difftool.networks.unet import UNet

SIZE: Final = Setting(
    "sample_size", int, usual="such as 32", also=("unet.sample_size", "unet.image_size")
)
Model = tuple[Chosen, ModelSpec, SamplerCall]  # the settings, the spec and the default program

_SIGNS: Final = {"conv_in.weight", "time_embedding.linear_1.weight"}
_BLOCKS: Final = ("down_blocks.0.", "downsample_blocks.0.")
_NO_PART: Final = (None, [None, None])  # the entries of an index for a part that is not there
_NO_SCHEDULER: Final = "no scheduler_config.json: the scheduler's settings are its defaults"
_LARGEST: Final = 10_000  # pixels of a side


def _recognizes(source: Source) -> bool:
    state = as_weights(source.content)
    if state is None or not state.keys() >= _SIGNS:
        return False
    return any(name.startswith(_BLOCKS) for name in state)


def _read(source: Source, settings: Settings) -> Imported:
    if UNET not in source.beside:
        raise ArtefactError(
            f"the folder of {source.file} has no config.json of diffusers", "copy the whole folder"
        )
    _check_pipeline(source.beside.get(PIPELINE, {}))
    saved, rules = source.beside[UNET], source.beside.get(SCHEDULER, {})
    config = unet.options(saved)
    kind, arguments = _network(config)
    notes = [] if rules else [_NO_SCHEDULER]
    if rules.get(CLASS) == ve.CLASS:
        chosen, spec, sampler = _ve_model(config, rules, settings)
    else:
        chosen, spec, sampler = _vp_model(config, rules, settings, arguments)
        notes += scheduler.differences(chosen)
    step = saved.get(unet.STEP)
    is_ema = type(step) is int and step >= 0
    if not is_ema:
        notes.append("the files do not tell whether the weights are a moving average")
    state = unet.present_names(as_weights(source.content) or {})
    return Imported(
        spec=spec,
        network=NetworkCall(kind, arguments),
        tensors=_tensors(kind, arguments, state),
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


def _network(config: unet.Config) -> tuple[str, dict[str, Any]]:
    """Return the kind of our network, and its constructor arguments."""
    if is_ncsnpp(config):
        return "ncsnpp", ncsnpp_arguments(config)
    return "unet", unet.network_arguments(config)


def _tensors(kind: str, arguments: dict[str, Any], state: Weights) -> Weights:
    if kind == "ncsnpp":
        return take_ncsnpp(state, arguments)
    network = outline(NetworkCall(kind, arguments))
    assert isinstance(network, UNet)
    return take_unet(state, network, unet.namer(arguments["blocks"]), apart=True)


def _vp_model(
    config: unet.Config, rules: Mapping[str, Any], settings: Settings, arguments: Mapping[str, Any]
) -> Model:
    """Read a model that has DDPMScheduler or DDIMScheduler."""
    # Before `check`, so that an unknown class of scheduler is reported as such.
    wanted = [*_open_size(config), *scheduler.known_settings(settings)]
    scheduler.check(rules)
    chosen = settings.choose(*wanted)
    learned = scheduler.learns_variance(chosen)
    channels = config["in_channels"]
    if config["time_embedding_type"] != "positional":
        raise unet.refusal(
            config, "time_embedding_type", f"{chosen[scheduler.SCHEDULER]} counts timesteps"
        )
    if config["out_channels"] != channels * (1 + learned):
        raise unet.refusal(
            config,
            "out_channels",
            "it must be as in_channels; twice as many with DDPMScheduler and its variance_type "
            "learned_range",
        )
    spec = ModelSpec(
        shape=(channels, *_sizes(config, chosen)),
        schedule=scheduler.make_schedule(rules, chosen),
        parameterization=scheduler.parameterization(chosen),
        cond="timestep",
        data_range=(-1.0, 1.0),
        learned_variance=learned,
        classes=arguments.get("classes", 0),
    )
    return chosen, spec, scheduler.make_sampler(chosen)


def _ve_model(config: unet.Config, rules: Mapping[str, Any], settings: Settings) -> Model:
    """Read a model that has ScoreSdeVeScheduler."""
    if config["time_embedding_type"] != "fourier":
        raise unet.refusal(config, "time_embedding_type", f"{ve.CLASS} imports with fourier")
    ve.check(rules)
    chosen = settings.choose(*_open_size(config), *ve.SETTINGS)
    spec = ve.make_spec(chosen, (config["in_channels"], *_sizes(config, chosen)))
    return chosen, spec, ve.make_sampler(chosen)


def _open_size(config: unet.Config) -> list[Setting]:
    """Return the size as a setting, unless the configuration has height and width."""
    return [] if isinstance(config["sample_size"], list | tuple) else [SIZE]


def _sizes(config: unet.Config, chosen: Chosen) -> Sequence[int]:
    """Return height and width; ArtefactError if they are not sizes."""
    sizes = [chosen[SIZE]] * 2 if SIZE.name in chosen.values else config["sample_size"]
    if len(sizes) != 2 or not all(type(n) is int and 0 < n <= _LARGEST for n in sizes):
        hint = f"it must be one size, or height and width, of 1 to {_LARGEST}"
        raise unet.refusal({SIZE.name: sizes}, SIZE.name, hint)
    return sizes


FORMAT: Final = Format(
    title="huggingface/diffusers",
    sign="tensors named conv_in, time_embedding.linear_1 and down_blocks",
    recognizes=_recognizes,
    read=_read,
)
