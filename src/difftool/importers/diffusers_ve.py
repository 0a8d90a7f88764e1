"""Read a model of diffusers with ScoreSdeVeScheduler, whose networks take log sigma."""

from collections.abc import Mapping
from typing import Any, Final

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.schedules import geometric
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.importers.diffusers_scheduler import Model, check_levels, check_options, setting
from difftool.importers.diffusers_unet import Config, open_size, refusal, sizes
from difftool.importers.settings import Settings

CLASS: Final = "ScoreSdeVeScheduler"
STEPS: Final = setting("num_train_timesteps", 2000)
SNR: Final = setting("snr", 0.15)
SIGMA_MIN: Final = setting("sigma_min", 0.01)
SIGMA_MAX: Final = setting("sigma_max", 1348.0)
CORRECTIONS: Final = setting("correct_steps", 1)
_SETTINGS: Final = (STEPS, SNR, SIGMA_MIN, SIGMA_MAX, CORRECTIONS)
_FIXED: Final = {"sampling_eps": 1e-5}
_WITHOUT_EFFECT: Final = ("tensor_format",)  # from early versions


def read_ve(config: Config, rules: Mapping[str, Any], settings: Settings) -> Model:
    """Read a model; `config` has the options of its network, and `rules` its scheduler's."""
    if config["time_embedding_type"] != "fourier":
        raise refusal(config, "time_embedding_type", f"{CLASS} imports with fourier")
    check_options(rules, _SETTINGS, _FIXED, _WITHOUT_EFFECT)
    chosen = settings.choose(*open_size(config), *_SETTINGS)
    check_levels(chosen[STEPS])
    low, high, snr = chosen[SIGMA_MIN], chosen[SIGMA_MAX], chosen[SNR]
    try:
        schedule = geometric(levels=chosen[STEPS], sigma_min=low, sigma_max=high)
    except UsageError as error:
        raise ArtefactError(
            f"sigma_min is {low} and sigma_max is {high}: {error.message}", error.hint
        ) from error
    if snr <= 0:
        raise ArtefactError(f"snr is {snr}", "it must be more than 0")
    spec = ModelSpec(
        shape=(config["in_channels"], *sizes(config, chosen)),
        schedule=schedule,
        parameterization="scaled_score",  # ScoreSdeVePipeline divides the output by sigma
        cond="quarter_log_sigma",
        data_range=(0.0, 1.0),
    )
    arguments = {
        "corrections": chosen[CORRECTIONS],
        "snr": snr,
        "corrector": "reference",
        "clip": False,
    }
    return chosen, spec, SamplerCall("predictor_corrector", arguments)
