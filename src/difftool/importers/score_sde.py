"""Read yang-song/score_sde_pytorch: NCSN++ and DDPM++ of Song et al. 2021."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from torch import Tensor

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import geometric, linear, sub_vp_sde, vp_sde
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, quoted
from difftool.importers.format import Format, Imported
from difftool.importers.score_sde_tensors import PREFIX, averaged, network_arguments, take_listed
from difftool.importers.settings import Chosen, Setting, Settings, fixed
from difftool.importers.source import Source
from difftool.importers.tensors import Weights, as_step, as_weights, check_sigmas, with_sigmas

IMAGE_SIZE: Final = Setting(
    "data.image_size", int, usual="32 for CIFAR-10, 256 for LSUN and faces, 1024 for FFHQ"
)
SDE: Final = Setting(
    "training.sde",
    str,
    usual="vpsde or subvpsde, by the file's folder; vesde for NCSN++ without continuous times",
    choices=("vesde", "vpsde", "subvpsde"),
)
CONTINUOUS: Final = Setting(
    "training.continuous", bool, usual="true if the file's folder says continuous"
)
CENTERED: Final = Setting("data.centered", bool)
FIR: Final = Setting("model.fir", bool, usual="true for NCSN++, false for DDPM++")
RESCALE: Final = Setting("model.skip_rescale", bool, default=True)
BY_SIGMA: Final = Setting("model.scale_by_sigma", bool)
SIGMA_MIN: Final = Setting("model.sigma_min", float, default=0.01)
SIGMA_MAX: Final = Setting(
    "model.sigma_max",
    float,
    usual="50 for CIFAR-10, 348 for faces and 378 for LSUN at 256 pixels, 1348 for FFHQ at 1024",
)
LEVELS: Final = Setting("model.num_scales", int, default=1000)
BETA_MIN: Final = Setting("model.beta_min", float, default=0.1)
BETA_MAX: Final = Setting("model.beta_max", float, default=20.0)
PREDICTOR: Final = Setting(
    "sampling.predictor",
    str,
    default="reverse_diffusion",
    choices=("reverse_diffusion", "euler_maruyama", "ancestral_sampling"),
)
CORRECTOR: Final = Setting("sampling.corrector", str, choices=("langevin", "ald", "none"))
SNR: Final = Setting("sampling.snr", float, default=0.16)
STEPS_EACH: Final = Setting("sampling.n_steps_each", int, default=1)
FLOW: Final = Setting("sampling.probability_flow", bool, default=False)
# Options of the published code for which our network and samplers have one value.
FIXED: Final = (
    fixed("model.name", "ncsnpp"),
    fixed("model.conditional", True),
    fixed("model.normalization", "GroupNorm"),
    fixed("model.nonlinearity", "swish"),
    fixed("model.resamp_with_conv", True),
)

_LAST_LABEL: Final = 999  # the input of a VP network at time 1, for any number of steps
_TIME_MIN: Final = 1e-3  # the last time of the authors' VP samplers


def _state(source: Source) -> Weights:
    return as_weights(source.content.get("model")) if isinstance(source.content, Mapping) else {}


def _shadow(content: Mapping[str, Any]) -> list[Tensor]:
    """Return the moving averages, which have no names."""
    ema = content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    listed = shadow if isinstance(shadow, list | tuple) else []
    return [*as_weights({str(n): value for n, value in enumerate(listed)}).values()]


def _recognizes(source: Source) -> bool:
    return any(name.startswith(f"{PREFIX}0.") for name in _state(source))


def _read(source: Source, settings: Settings) -> Imported:
    state = _state(source)
    sigmas = state.pop("sigmas", None)
    arguments = network_arguments(state)
    chosen = _choose(settings, arguments, sigmas)
    arguments |= {"fir": chosen[FIR], "rescale": chosen[RESCALE], "centered": chosen[CENTERED]}
    _check_config(source.beside, arguments, chosen)
    spec = _spec(chosen, arguments)
    if sigmas is not None and spec.parameterization != "epsilon":
        check_sigmas(sigmas, spec.schedule)
    shadow = _shadow(source.content)
    network = NetworkCall("ncsnpp", arguments)
    return Imported(
        spec=spec,
        network=network,
        tensors=take_listed(averaged(state, shadow) if shadow else state, network),
        sampler=_sampler(chosen),
        weights="ema" if shadow else "raw",
        chosen=chosen,
        files=source.files,
        step=as_step(source.content.get("step")),
    )


def _choose(settings: Settings, arguments: dict[str, Any], sigmas: Tensor | None) -> Chosen:
    """Choose the settings; the tensors and other settings give defaults to some of them."""
    fourier = arguments["embedding"] == "fourier"
    sde = replace(SDE, default="vesde", choices=("vesde",)) if fourier else SDE
    kind = settings.peek(sde)
    exploding = kind == "vesde"
    continuous, by_sigma = CONTINUOUS, replace(BY_SIGMA, default=exploding)
    if kind in ("vesde", "subvpsde"):
        # A VE network is continuous if it has Fourier features, and sub-VP always is.
        known = fourier or not exploding
        continuous = replace(CONTINUOUS, default=known, choices=(known,))
    if not exploding:
        by_sigma = replace(by_sigma, choices=(False,))
    fir = FIR
    if "fir" in arguments:
        fir = replace(FIR, default=arguments["fir"], choices=(arguments["fir"],))
    # It changes nothing for other SDEs, so the user may leave it out there.
    most = SIGMA_MAX if exploding else replace(SIGMA_MAX, default=50.0)
    levels, most, least = with_sigmas(sigmas, LEVELS, most, SIGMA_MIN)
    return settings.choose(
        IMAGE_SIZE,
        sde,
        continuous,
        replace(CENTERED, default=not exploding),
        fir,
        RESCALE,
        by_sigma,
        least,
        most,
        levels,
        BETA_MIN,
        BETA_MAX,
        PREDICTOR,
        replace(CORRECTOR, default="langevin" if exploding else "none"),
        SNR,
        STEPS_EACH,
        FLOW,
        *FIXED,
    )


def _spec(chosen: Chosen, arguments: Mapping[str, Any]) -> ModelSpec:
    size, levels = chosen[IMAGE_SIZE], chosen[LEVELS]
    common: dict[str, Any] = {
        "shape": (arguments["in_channels"], size, size),
        "data_range": (-1.0, 1.0) if chosen[CENTERED] else (0.0, 1.0),
    }
    if chosen[SDE] == "vesde":
        return ModelSpec(
            **common,
            schedule=geometric(
                levels=levels, sigma_min=chosen[SIGMA_MIN], sigma_max=chosen[SIGMA_MAX]
            ),
            parameterization="scaled_score" if chosen[BY_SIGMA] else "score",
            cond="quarter_log_sigma" if chosen[CONTINUOUS] else "level",
        )
    least, most = chosen[BETA_MIN], chosen[BETA_MAX]
    common |= {"parameterization": "epsilon", "cond": "timestep"}
    if not chosen[CONTINUOUS]:
        betas = {"beta_start": least / levels, "beta_end": most / levels}
        return ModelSpec(**common, schedule=linear(steps=levels, **betas))
    sde = vp_sde if chosen[SDE] == "vpsde" else sub_vp_sde
    return ModelSpec(
        **common,
        schedule=sde(levels=levels, beta_min=least, beta_max=most, time_min=_TIME_MIN),
        timestep_scale=_LAST_LABEL * (1 - _TIME_MIN) / max(levels - 1, 1),
        timestep_start=_LAST_LABEL * _TIME_MIN,
    )


def _sampler(chosen: Chosen) -> SamplerCall:
    """Return the authors' sampler, on all levels and without clipping."""
    corrector = chosen[CORRECTOR]
    ancestral = chosen[PREDICTOR] == "ancestral_sampling"
    arguments: dict[str, Any] = {"clip": False}
    if corrector != "none":
        arguments |= {
            "corrections": chosen[STEPS_EACH],
            "snr": chosen[SNR],
            "predictor": "ancestral" if ancestral else "reverse_diffusion",
            "corrector": "reference" if corrector == "langevin" else "fixed",
        }
        return SamplerCall("predictor_corrector", arguments)
    if ancestral:
        variance = "small" if chosen[SDE] == "vesde" else "large"
        return SamplerCall("ddpm", {"variance": variance, **arguments})
    return SamplerCall("probability_flow" if chosen[FLOW] else "reverse_diffusion", arguments)


def _check_config(beside: Mapping[str, Any], arguments: Mapping[str, Any], chosen: Chosen) -> None:
    """Raise ArtefactError if a configuration describes another network than the tensors do."""
    model = beside.get("model")
    model = model if isinstance(model, Mapping) else {}
    size = chosen[IMAGE_SIZE]
    sizes = [size // 2**level for level in range(len(arguments["multipliers"]))]
    found = {
        "nf": arguments["channels"],
        "ch_mult": arguments["multipliers"],
        "num_res_blocks": arguments["blocks"],
        "attn_resolutions": [sizes[level] for level in arguments["attention"]],
        "resblock_type": "biggan" if arguments["resample"] == "block" else "ddpm",
        "progressive": arguments["output_pyramid"],
        "progressive_input": arguments["input_pyramid"],
        "embedding_type": arguments["embedding"],
        "fir_kernel": [1, 3, 3, 1],
    }
    if arguments["input_pyramid"] == "input_skip":
        found["progressive_combine"] = arguments["combine"]
    wrong = [
        f"model.{name} is {quoted(model[name])}, and the tensors' {value}"
        for name, value in found.items()
        if model.get(name) is not None and _plain(model[name], sizes, name) != value
    ]
    if wrong:
        raise ArtefactError(
            f"the configuration is of another network than the tensors; {'; '.join(wrong)}",
            "remove it, or replace it with the right one",
        )


def _plain(value: Any, sizes: list[int], name: str) -> Any:
    """Return a configuration's value as we write it, without resolutions that the network lacks."""
    if isinstance(value, str):
        return value.lower()
    if isinstance(value, list | tuple):
        return [size for size in sizes if size in value] if name == "attn_resolutions" else [*value]
    return value


FORMAT: Final = Format(
    title="yang-song/score_sde_pytorch",
    sign="a dictionary of model and ema, with tensors named all_modules.0",
    recognizes=_recognizes,
    read=_read,
)
