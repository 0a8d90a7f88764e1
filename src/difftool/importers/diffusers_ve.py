"""Read ScoreSdeVeScheduler of diffusers, whose networks take log sigma."""

import math
from collections.abc import Mapping
from typing import Any, Final

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.schedules import geometric
from difftool.diffusion.spec import ModelSpec
from difftool.errors import ArtefactError, UsageError
from difftool.importers.diffusers_scheduler import check_levels, check_options, setting
from difftool.importers.settings import Chosen

CLASS: Final = "ScoreSdeVeScheduler"
STEPS: Final = setting("num_train_timesteps", 2000)
SNR: Final = setting("snr", 0.15)
SIGMA_MIN: Final = setting("sigma_min", 0.01)
SIGMA_MAX: Final = setting("sigma_max", 1348.0)
CORRECTIONS: Final = setting("correct_steps", 1)
SETTINGS: Final = (STEPS, SNR, SIGMA_MIN, SIGMA_MAX, CORRECTIONS)
_FIXED: Final = {"sampling_eps": 1e-5}
_WITHOUT_EFFECT: Final = ("tensor_format",)  # from early versions


def check(config: Mapping[str, Any]) -> None:
    """Raise ArtefactError for options that this class lacks or that are not imported."""
    check_options(config, SETTINGS, _FIXED, _WITHOUT_EFFECT)


def make_spec(chosen: Chosen, shape: tuple[int, ...]) -> ModelSpec:
    """Return the spec of a model; ScoreSdeVePipeline divides the network's output by sigma."""
    check_levels(chosen[STEPS])
    low, high = chosen[SIGMA_MIN], chosen[SIGMA_MAX]
    try:
        schedule = geometric(levels=chosen[STEPS], sigma_min=low, sigma_max=high)
    except UsageError as error:
        raise ArtefactError(
            f"sigma_min is {low} and sigma_max is {high}: {error.message}", error.hint
        ) from error
    return ModelSpec(
        shape=shape,
        schedule=schedule,
        parameterization="scaled_score",
        cond="quarter_log_sigma",
        data_range=(0.0, 1.0),
    )


def make_sampler(chosen: Chosen) -> SamplerCall:
    """Return the pipeline's sampler, on all levels."""
    snr = chosen[SNR]
    if not 0 < snr < math.inf:
        raise ArtefactError(f"snr is {snr}", "it must be more than 0")
    arguments = {
        "corrections": chosen[CORRECTIONS],
        "snr": snr,
        "corrector": "reference",
        "clip": False,
    }
    return SamplerCall("predictor_corrector", arguments)
