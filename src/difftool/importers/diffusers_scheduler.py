"""Read DDPMScheduler and DDIMScheduler of diffusers, which count timesteps."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.program import MAX_ROWS
from difftool.diffusion.schedules import NoiseSchedule, cosine, from_betas, linear, scaled_linear
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.importers.settings import Chosen, Setting, Settings, Value

_DDIM: Final = "DDIMScheduler"
CLASSES: Final = ("DDPMScheduler", _DDIM, "GaussianDDPMScheduler")  # the last is an old name
_STEPS: Final = 50  # the default of the library's DDIMPipeline


def setting(name: str, default: Value, *choices: Value, old: str = "") -> Setting:
    """Make a setting that the scheduler's configuration has under the same name or an old one."""
    also = tuple(f"scheduler.{key}" for key in (name, old) if key)
    return Setting(name, type(default), default, choices=choices, also=also)


SCHEDULER: Final = Setting(
    "scheduler", str, CLASSES[0], choices=CLASSES, also=("scheduler._class_name",)
)
STEPS: Final = setting("num_train_timesteps", 1000, old="timesteps")
BETA_START: Final = setting("beta_start", 1e-4)
BETA_END: Final = setting("beta_end", 0.02)
BETA_SCHEDULE: Final = setting(
    "beta_schedule", "linear", "linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"
)
VARIANCE: Final = setting(
    "variance_type", "fixed_small", "fixed_small", "fixed_small_log", "fixed_large", "learned_range"
)
PREDICTION: Final = setting("prediction_type", "epsilon", "epsilon", "sample", "v_prediction")
CLIP: Final = setting("clip_sample", True, old="clip_predicted_image")
SPACING: Final = setting("timestep_spacing", "leading", "leading", "linspace", "trailing")
_SETTINGS: Final = (
    SCHEDULER,
    STEPS,
    BETA_START,
    BETA_END,
    BETA_SCHEDULE,
    PREDICTION,
    CLIP,
    SPACING,
    VARIANCE,
)
# Options for which only one value is imported; the last is from early versions.
_FIXED: Final[Mapping[str, Value]] = {
    "clip_sample_range": 1.0,
    "thresholding": False,
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "set_alpha_to_one": True,
    "predict_epsilon": True,
}
_BETAS: Final = "trained_betas"
# Without thresholding the first two have no effect; the last is from early versions.
_WITHOUT_EFFECT: Final = ("dynamic_thresholding_ratio", "sample_max_value", "tensor_format")
_SCHEDULES: Final[Mapping[str, Callable[..., NoiseSchedule]]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
}
_PARAMETERIZATIONS: Final = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
_VARIANCES: Final = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}


def check(config: Mapping[str, Any]) -> None:
    """Raise ArtefactError for options that these classes lack or that are not imported."""
    check_options(config, _SETTINGS, _FIXED, (_BETAS, *_WITHOUT_EFFECT))


def check_options(
    config: Mapping[str, Any],
    settings: Iterable[Setting],
    fixed: Mapping[str, Value],
    others: Iterable[str],
) -> None:
    """Raise ArtefactError for an unknown option, or a fixed one that has another value."""
    known = {name.removeprefix("scheduler.") for setting in settings for name in setting.also}
    known |= {*fixed, *others}
    given = {n: value for n, value in config.items() if value is not None and n[:1] != "_"}
    if unknown := sorted(given.keys() - known):
        raise ArtefactError(
            f"the scheduler's configuration has {', '.join(unknown)}, which difftool does not know",
            "remove them if they do not change the sampling",
        )
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise ArtefactError(
                f"{name} is {quoted(given[name])}, which difftool does not import",
                f"it imports {json.dumps(value)}",
            )


def check_levels(steps: int) -> None:
    """Raise ArtefactError if there are more levels than a program could visit."""
    if steps > MAX_ROWS:
        raise ArtefactError(f"num_train_timesteps is {steps}", f"it must be at most {MAX_ROWS}")


def known_settings(settings: Settings) -> tuple[Setting, ...]:
    """Return the settings of the scheduler's class; DDIM's has no variance."""
    return _SETTINGS[:-1] if settings.peek(SCHEDULER) == _DDIM else _SETTINGS


def make_schedule(config: Mapping[str, Any], chosen: Chosen) -> NoiseSchedule:
    """Make the noise schedule; ArtefactError if its numbers make none."""
    check_levels(chosen[STEPS])
    betas = config.get(_BETAS)
    try:
        return _schedule(betas, chosen)
    except UsageError as error:
        names = (BETA_START.name, BETA_END.name) if betas is None else (_BETAS,)
        raise ArtefactError(f"{' or '.join(names)}: {error.message}", error.hint) from error


def parameterization(chosen: Chosen) -> str:
    """Return the parameterization of the network."""
    return _PARAMETERIZATIONS[chosen[PREDICTION]]


def learns_variance(chosen: Chosen) -> bool:
    """Tell if half of the network's channels are for the log variance."""
    return chosen.values.get(VARIANCE.name) == "learned_range"


def make_sampler(chosen: Chosen) -> SamplerCall:
    """Return the sampler of the scheduler's class, as the library's pipelines run it by default."""
    arguments = {"clip": chosen[CLIP], "spacing": chosen[SPACING]}
    if chosen[SCHEDULER] == _DDIM:
        steps = min(_STEPS, chosen[STEPS])
        return SamplerCall("ddim", {"steps": steps, "raw_epsilon": True, **arguments})
    variance = _VARIANCES[chosen[VARIANCE]]
    return SamplerCall("ddpm", {"variance": variance, **arguments})


def differences(chosen: Chosen) -> tuple[str, ...]:
    """Return notes on the sampler's differences from the library with fewer steps than levels."""
    spacing, variance = chosen[SPACING], chosen.values.get(VARIANCE.name)
    if chosen[SCHEDULER] == _DDIM and spacing != "leading":
        return (
            "each step of ddim leads to the next timestep that it visits; the library's leads "
            "floor(num_train_timesteps / steps) timesteps lower, which may be another",
        )
    if spacing == "trailing" and variance in ("fixed_large", "learned_range"):
        return (
            f"with fewer steps than {chosen[STEPS]}, DDPMScheduler with "
            f"timestep_spacing=trailing and variance_type={variance} also adds noise in its last "
            "step; ddpm does not",
        )
    return ()


def _schedule(betas: Any, chosen: Chosen) -> NoiseSchedule:
    steps, kind = chosen[STEPS], chosen[BETA_SCHEDULE]
    first, last = chosen[BETA_START], chosen[BETA_END]
    if betas is not None:
        if not isinstance(betas, list) or not all(type(b) in (int, float) for b in betas):
            raise ArtefactError(f"{_BETAS} is not a list of numbers", "copy the file again")
        if len(betas) != steps:
            raise ArtefactError(
                f"{_BETAS} has {len(betas)} numbers for num_train_timesteps={steps}",
                "they must be as many",
            )
        return from_betas(betas)
    if kind == "squaredcos_cap_v2":
        return cosine(steps=steps)
    if kind == "sigmoid":
        return from_betas(first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, steps))))
    return _SCHEDULES[kind](steps=steps, beta_start=first, beta_end=last)
