"""The spec of a model, all that a sampler must know of it: shape, noise schedule, output."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.calls import fits, require_known
from difftool.diffusion.parameterization import PARAMETERIZATIONS, Coefficients, coefficients
from difftool.diffusion.schedules import NoiseSchedule, schedule_from_dict
from difftool.errors import UsageError, quoted

CONDS = ("timestep", "level", "quarter_log_sigma")
MAX_ELEMENTS: Final = (1 << 31) - 1  # of one sample
MAX_CLASSES: Final = 1_000_000
MAX_NAMES: Final = 1 << 16  # characters of all class names, so that a manifest stays small

_LEAST, _MOST = 1e-30, 1e30  # bounds of a scale: float32 holds it, its inverse and its products


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A trained model, as samplers and backends see it.

    - `shape`: one sample's shape [*S]; (1, 28, 28) for an image, (2,) for a point
    - `schedule`, `parameterization`: see those modules
    - `cond`: the conditioner's input at schedule index i. "timestep" is i * `timestep_scale` +
      `timestep_start`, "level" is L - 1 - i (NCSN counts from the most noise), and
      "quarter_log_sigma" is log(sigma) / 4 (EDM)
    - `classes`: the number of labels, 0 .. `classes` - 1, which the conditioner takes with cond; 0
      for a model without labels. With `null_label` it also takes the label `classes`, "no class"
    - `class_names`: the name of each class, or () if they have none; see `usable_names`
    - `data_range`: (low, high) of the data, or None if it is unbounded
    - `learned_variance`: True if half of the network's channels interpolate the log variance
    - `sigma_data`: the data's std, for the edm parameterization
    """

    shape: tuple[int, ...]
    schedule: NoiseSchedule
    parameterization: str
    cond: str
    timestep_scale: float = 1.0
    timestep_start: float = 0.0
    data_range: tuple[float, float] | None = None
    learned_variance: bool = False
    sigma_data: float = 0.5
    classes: int = 0
    null_label: bool = False
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or any(size < 1 for size in self.shape):
            raise UsageError(f"sample shape {self.shape} has no elements", "give sizes from 1 on")
        if math.prod(self.shape) > MAX_ELEMENTS:
            raise UsageError(
                f"sample shape {self.shape} is too large", f"at most {MAX_ELEMENTS} elements"
            )
        require_known("parameterization", self.parameterization, PARAMETERIZATIONS)
        require_known("cond", self.cond, CONDS)
        if not 0 <= self.classes <= MAX_CLASSES:
            raise UsageError(f"{quoted(self.classes)} classes", f"a model has 0 to {MAX_CLASSES}")
        if self.null_label and not self.classes:
            raise UsageError("a null label without classes", "give classes, or no null_label")
        if self.class_names and not (
            len(self.class_names) == self.classes and usable_names(self.class_names)
        ):
            raise UsageError(
                f"the names of {self.classes} classes are {quoted(self.class_names)}",
                "give each a name of its own, which can be printed",
            )
        if not _LEAST <= self.sigma_data <= _MOST:
            raise UsageError(
                f"sigma_data is {self.sigma_data}", "give a standard deviation, such as 0.5"
            )
        if not (_is_scale(self.timestep_scale) and abs(self.timestep_start) <= _MOST):
            raise UsageError(
                f"timesteps start at {self.timestep_start} and go on by {self.timestep_scale}",
                "the usual numbers are 0 and 1",
            )
        if self.data_range is not None:
            low, high = self.data_range
            if not (max(abs(low), abs(high)) <= _MOST and low < high and _is_scale(high - low)):
                raise UsageError(
                    f"data_range is {low} to {high}", "the second must be larger than the first"
                )

    def conds(self, levels: ArrayLike) -> NDArray[np.float64]:
        """Return the conditioner's inputs at schedule indices `levels` [R]; float64 [R].

        Between two levels they are interpolated. UsageError if the network is an NCSN of labelled
        levels ("level" and "score"): it has one embedding for each level and none between.
        """
        index = np.asarray(levels, np.float64)
        if self.cond == "timestep":
            return np.asarray(index * self.timestep_scale + self.timestep_start, np.float64)
        if self.cond == "level":
            if self.parameterization == "score" and (index % 1).any():
                raise UsageError(
                    f"this network knows its {len(self.schedule)} noise levels and none between",
                    "use spacing linspace, leading, trailing or quadratic, and no churn",
                )
            # A schedule that `up_to` has cut keeps the labels of the whole one.
            most = self.schedule.dropped + len(self.schedule) - 1
            return np.asarray(most - index, np.float64)
        return np.asarray(np.log(self.schedule.at(index)[1]) / 4, np.float64)

    def coefficients(self, levels: ArrayLike) -> Coefficients:
        """Return c_in, c_skip and c_out at schedule indices `levels` [R]; float64 [R] each."""
        alpha, sigma = self.schedule.at(levels)
        return coefficients(self.parameterization, alpha, sigma, self.sigma_data)

    def up_to(self, strength: float) -> "ModelSpec":
        """Return the model on the share `strength` of its levels that has the least noise.

        At least one level stays. Its programs start from data with that level's noise (Meng et al.
        2022, SDEdit).
        """
        if not 0 < strength <= 1:
            raise UsageError(
                f"strength {strength} is not in 0 .. 1", "1 keeps nothing of the start"
            )
        levels = max(1, round(strength * len(self.schedule)))
        return replace(self, schedule=self.schedule.up_to(levels))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, which `from_dict` reads.

        Class names are left out if there are none, so that earlier versions read all other specs.
        """
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        value["class_names"] = list(self.class_names)
        if not self.class_names:
            del value["class_names"]
        value["shape"] = list(self.shape)
        value["schedule"] = self.schedule.to_dict()
        value["data_range"] = list(self.data_range) if self.data_range else None
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ModelSpec":
        """Read what `to_dict` gave; UsageError if a key is missing, unknown or mistyped."""
        kinds = {**get_type_hints(cls), "schedule": Mapping}
        if unknown := value.keys() - kinds.keys():
            raise UsageError(
                f"unknown key {quoted(min(unknown))} in a model spec", "check its source"
            )
        try:
            for name, given in value.items():
                if not fits(given, kinds[name]):
                    raise TypeError(f"{name}: {quoted(given)}")
            arguments = dict(value)
            arguments["shape"] = tuple(value["shape"])
            arguments["class_names"] = tuple(value.get("class_names", ()))
            arguments["schedule"] = schedule_from_dict(value["schedule"])
            if value.get("data_range") is not None:
                arguments["data_range"] = tuple(map(float, value["data_range"]))
            return cls(**arguments)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(
                f"a model spec lacks or mistypes {error}", "check its source"
            ) from error


def usable_names(names: Sequence[str]) -> bool:
    """Tell if names can be those of classes: distinct, printable and short enough for a file."""
    return (
        len({*names}) == len(names)
        and all(name.strip() and name.isprintable() for name in names)
        and sum(map(len, names)) <= MAX_NAMES
    )


def _is_scale(value: float) -> bool:
    return _LEAST <= abs(value) <= _MOST
