"""Read a model of diffusers with DDPMScheduler or DDIMScheduler, which count timesteps."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.program import MAX_ROWS
from difftool.diffusion.schedules import NoiseSchedule, cosine, from_betas, linear, scaled_linear
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError, quoted
from difftool.importers.diffusers_unet import Config, open_size, refusal, sizes
from difftool.importers.settings import Chosen, Setting, Settings, Value

Model = tuple[Chosen, ModelSpec, SamplerCall]  # the settings, the spec and the default program

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
_PARAMETERIZATIONS: Final = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
_VARIANCES: Final = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}


def read_counting(
    config: Config, rules: Mapping[str, Any], settings: Settings, classes: int
) -> Model:
    """Read a model; `config` has the options of its network, and `rules` its scheduler's."""
    # The class first, so that an unknown one is reported as such. DDIM's has no variance.
    is_ddim = settings.peek(SCHEDULER) == _DDIM
    check_options(rules, _SETTINGS, _FIXED, (_BETAS, *_WITHOUT_EFFECT))
    chosen = settings.choose(*open_size(config), *(_SETTINGS[:-1] if is_ddim else _SETTINGS))
    variance = "" if is_ddim else _VARIANCES[chosen[VARIANCE]]
    learned = variance == "learned"
    channels = config["in_channels"]
    if config["time_embedding_type"] != "positional":
        raise refusal(config, "time_embedding_type", f"{chosen[SCHEDULER]} counts timesteps")
    if config["out_channels"] != channels * (1 + learned):
        raise refusal(
            config,
            "out_channels",
            "it must be as in_channels; twice as many with DDPMScheduler and its variance_type "
            "learned_range",
        )
    spec = ModelSpec(
        shape=(channels, *sizes(config, chosen)),
        schedule=_schedule(rules.get(_BETAS), chosen),
        parameterization=_PARAMETERIZATIONS[chosen[PREDICTION]],
        cond="timestep",
        data_range=(-1.0, 1.0),
        learned_variance=learned,
        classes=classes,
    )
    # As the library's pipelines run by default.
    arguments = {"clip": chosen[CLIP], "spacing": chosen[SPACING]}
    if is_ddim:
        steps = min(_STEPS, chosen[STEPS])
        return chosen, spec, SamplerCall("ddim", {"steps": steps, "raw_epsilon": True, **arguments})
    return chosen, spec, SamplerCall("ddpm", {"variance": variance, **arguments})


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
    """Make the noise schedule; ArtefactError if its numbers make none."""
    steps, kind = chosen[STEPS], chosen[BETA_SCHEDULE]
    first, last = chosen[BETA_START], chosen[BETA_END]
    check_levels(steps)
    names = _BETAS if betas is not None else f"{BETA_START.name} or {BETA_END.name}"
    try:
        if betas is not None:
            return from_betas(_trained(betas, steps))
        if kind == "squaredcos_cap_v2":
            return cosine(steps=steps)
        if kind == "sigmoid":
            return from_betas(first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, steps))))
        make = linear if kind == "linear" else scaled_linear
        return make(steps=steps, beta_start=first, beta_end=last)
    except UsageError as error:
        raise ArtefactError(f"{names}: {error.message}", error.hint) from error


def _trained(betas: Any, steps: int) -> list[float]:
    if not isinstance(betas, list) or not all(type(b) in (int, float) for b in betas):
        raise ArtefactError(f"{_BETAS} is not a list of numbers", "copy the file again")
    if len(betas) != steps:
        raise ArtefactError(
            f"{_BETAS} has {len(betas)} numbers for num_train_timesteps={steps}",
            "they must be as many",
        )
    return betas
