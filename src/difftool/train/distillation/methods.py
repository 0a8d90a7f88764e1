"""The methods of distillation: for each a loss, the levels that it compares, and a sampler."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.schedules import NoiseSchedule
from difftool.diffusion.spacing import visited
from difftool.errors import UsageError
from difftool.train.distillation import losses

Name = Literal["consistency", "consistency_tuning", "progressive"]
CLEAN: Final = -1  # the index of the clean sample, as in `losses.Level`
SPACING: Final = "trailing"  # of the levels that a student is sampled at

_SHRINK, _SLOPE, _SMOOTH = 2.0, 8.0, 1.0  # q, k and b of Geng et al. 2024
_CONSISTENCY_STAGES: Final = 8  # as there
_PROGRESSIVE_STAGES: Final = 5  # from 16 times as many steps, or as the schedule has


@dataclass(frozen=True)
class Stage:
    """The levels of a part of a distillation.

    - `paths`: schedule indices int64 [P, K], from most to least noise, of the K levels that a loss
      compares; -1 is the clean sample
    - `weights`: how often each path is drawn, float64 [P]
    """

    paths: NDArray[np.int64]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A method: its loss, its stages of a schedule, and the sampler of its student.

    `stages` takes a schedule, the student's steps, and the number of stages or None for the
    method's own. If `renews` the student of each stage is the teacher of the next.
    """

    loss: Callable[[losses.Denoisers, Tensor, Tensor, Sequence[losses.Level], float], Tensor]
    stages: Callable[[NoiseSchedule, int, int | None], list[Stage]]
    sampler: str
    renews: bool = False

    def call(self, steps: int) -> SamplerCall:
        """Return the call of the student's default program."""
        return SamplerCall(self.sampler, {"steps": steps, "spacing": SPACING})


def consistency_stages(schedule: NoiseSchedule, steps: int, stages: int | None) -> list[Stage]:
    """Return pairs (t, r) of levels, of which r comes nearer to t from stage to stage.

    With t = sigma / alpha stage s has r = t * (1 - n(t) / q^(s + 1)), where n(t) = 1 + k *
    sigmoid(-b t), q = 2, k = 8 and b = 1 (Geng et al. 2024, the mapping function of sec. 3). r is
    the nearest level below that, or the clean sample. So the first stage is close to the training
    of a diffusion model. t is drawn evenly in half_log_snr.
    """
    count = _CONSISTENCY_STAGES if stages is None else stages
    ratios = np.exp(-schedule.half_log_snr)
    adjusted = 1 + _SLOPE / (1 + np.exp(np.minimum(_SMOOTH * ratios, 500)))
    index = np.arange(len(schedule))
    widths = np.abs(np.gradient(schedule.half_log_snr)) if len(schedule) > 1 else np.ones(1)
    found = []
    for stage in range(count):
        wanted = ratios * (1 - adjusted / _SHRINK ** (stage + 1))
        below = np.searchsorted(ratios, wanted, side="right") - 1
        # Rounding must not let a pair fall together. Without a level below, `below` is -1, CLEAN.
        found.append(Stage(np.stack([index, np.minimum(below, index - 1)], 1), widths))
    return found


def progressive_stages(schedule: NoiseSchedule, steps: int, stages: int | None) -> list[Stage]:
    """Return triples (t, m, s) of levels: two steps of a teacher for one of its student.

    The last stage's student takes `steps` steps, and each earlier one twice as many as the next
    (Salimans and Ho 2022, algorithm 2). All levels of a stage are drawn equally often.
    """
    most = int(math.log2(len(schedule) / steps)) if len(schedule) >= steps else 0
    if most < (stages or 1):
        raise UsageError(
            f"{stages or 1} stages that end with {steps} steps, on {len(schedule)} levels",
            "take fewer stages or steps: each stage has twice as many levels as the next",
        )
    found = []
    for stage in reversed(range(min(_PROGRESSIVE_STAGES, most) if stages is None else stages)):
        levels = [*visited(schedule, 2 * steps * 2**stage, SPACING), CLEAN]
        whole = np.array(levels).astype(np.int64)
        found.append(
            Stage(np.stack([whole[:-1:2], whole[1::2], whole[2::2]], 1), np.ones(len(whole) // 2))
        )
    return found


METHODS: Final[dict[str, Method]] = {
    "consistency": Method(losses.consistency, consistency_stages, "consistency"),
    "consistency_tuning": Method(losses.consistency_tuning, consistency_stages, "consistency"),
    "progressive": Method(losses.progressive, progressive_stages, "ddim", renews=True),
}
