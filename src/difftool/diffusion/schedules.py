"""Noise schedules: level -> (alpha, sigma), so that x = alpha * x0 + sigma * noise. All float64."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, ParamSpec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.calls import require_known, require_types
from difftool.errors import UsageError

Array = NDArray[np.float64]
_P = ParamSpec("_P")

MAX_LEVELS: Final = 100_000

_WHOLE: Final = 1e-9  # an index as near as this to a level is that level, give or take rounding


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule:
    """The noise levels of a model, from least (index 0) to most noise.

    `alpha` and `sigma` are float64 [L]: signal scale and noise standard deviation. `kind` and
    `params` are the constructor and its arguments, by which a schedule is saved and printed.
    `dropped` counts the noisiest levels, which `up_to` has left out.
    """

    kind: str
    params: Mapping[str, Any]
    alpha: Array
    sigma: Array
    dropped: int = 0

    def __post_init__(self) -> None:
        if len(self.alpha) < 1 or self.alpha.shape != self.sigma.shape:
            raise UsageError("a noise schedule needs at least one level", "raise its steps")
        finite = np.isfinite(self.alpha).all() and np.isfinite(self.sigma).all()
        if not finite or (self.alpha <= 0).any() or (self.sigma <= 0).any():
            raise UsageError(
                f"schedule {self} has a level that is not positive", "check its numbers"
            )
        if (np.diff(self.half_log_snr) >= 0).any():
            raise UsageError(
                f"schedule {self} does not gain noise at every level", "check its numbers"
            )

    def __len__(self) -> int:
        return len(self.alpha)

    def __str__(self) -> str:
        values = (f"{k}={v:g}" if isinstance(v, int | float) else k for k, v in self.params.items())
        return f"{self.kind}({', '.join(values)})"

    def __repr__(self) -> str:
        # The arrays may have a thousand numbers; `kind` and `params` say the same.
        levels = f"{len(self)} levels, sigma {self.sigma[0]:.3g} to {self.sigma[-1]:.3g}"
        dropped = f", {self.dropped} dropped" if self.dropped else ""
        return f"<NoiseSchedule {self}: {levels}{dropped}>"

    @functools.cached_property
    def half_log_snr(self) -> Array:
        """Return log(alpha / sigma), float64 [L], falling."""
        return self._log_alpha - np.log(self.sigma)

    @functools.cached_property
    def _log_alpha(self) -> Array:
        return np.log(self.alpha)

    @property
    def alpha_bar(self) -> Array:
        """Return alpha^2, float64 [L]; the product of (1 - beta) in DDPM's notation."""
        return self.alpha**2

    @functools.cached_property
    def variance_preserving(self) -> bool:
        """Tell if alpha^2 + sigma^2 = 1 at every level."""
        return bool(np.abs(self.alpha**2 + self.sigma**2 - 1).max() < 1e-12)

    def at(self, index: ArrayLike) -> tuple[Array, Array]:
        """Return (alpha, sigma) at schedule indices, which may lie between levels; float64 each.

        A whole index gives its level to the bit. Between two levels half_log_snr is linear; alpha
        follows from it on a VP schedule, and stays 1 on a VE one.
        """
        position = np.asarray(index, np.float64)
        low = position.astype(np.int64)
        weight = position - low
        if not weight.any():
            return self.alpha[low], self.sigma[low]
        high = np.minimum(low + 1, len(self) - 1)

        def between(log: Array) -> Array:
            return np.asarray((1 - weight) * log[low] + weight * log[high])

        ratio = np.exp(-between(self.half_log_snr))
        vp = self.variance_preserving
        alpha = 1 / np.hypot(1, ratio) if vp else np.exp(between(self._log_alpha))
        whole = weight == 0
        return (
            np.where(whole, self.alpha[low], alpha),
            np.where(whole, self.sigma[low], alpha * ratio),
        )

    def find(self, half_log_snr: ArrayLike) -> Array:
        """Return the schedule indices, which may lie between levels, of half_log_snr; float64.

        A value beyond an end gives that end. A level's own value gives its whole index.
        """
        position = np.interp(
            -np.asarray(half_log_snr, np.float64), -self.half_log_snr, np.arange(len(self))
        )
        nearest = position.round()
        return np.where(np.abs(position - nearest) < _WHOLE, nearest, position)

    def up_to(self, levels: int) -> "NoiseSchedule":
        """Return the `levels` levels of least noise; UsageError if there are fewer."""
        if not 1 <= levels <= len(self):
            raise UsageError(f"{levels} of {len(self)} noise levels", f"keep 1 to {len(self)}")
        if levels == len(self):
            return self
        dropped = self.dropped + len(self) - levels
        return replace(self, alpha=self.alpha[:levels], sigma=self.sigma[:levels], dropped=dropped)

    def to_dict(self) -> dict[str, Any]:
        """Return the whole schedule for `schedule_from_dict`, also if `up_to` has cut it."""
        return {"kind": self.kind, **self.params}


def _schedule(make: Callable[_P, tuple[Array, Array]]) -> Callable[_P, NoiseSchedule]:
    """Decorate a function that returns (alpha, sigma), so that it returns a schedule.

    The function's name is the schedule's kind, and its arguments are the `params`. Whatever is
    wrong with the arguments raises UsageError.
    """
    signature = inspect.signature(make)

    @functools.wraps(make)
    def construct(*args: _P.args, **kwargs: _P.kwargs) -> NoiseSchedule:
        what = f"noise schedule {make.__name__}"
        try:
            bound = signature.bind(*args, **kwargs)
            require_types(what, make, bound.arguments)
            bound.apply_defaults()
            params = dict(bound.arguments)
            if "betas" in params:
                params["betas"] = np.asarray(params["betas"], np.float64).tolist()
            _require_levels(what, params)
            with np.errstate(all="ignore"):  # NoiseSchedule refuses what is not finite
                return NoiseSchedule(make.__name__, params, *make(*args, **kwargs))
        except (ArithmeticError, TypeError, ValueError) as error:
            raise UsageError(f"{what}: {error}", "check its arguments") from error

    return construct


def _require_levels(what: str, params: Mapping[str, Any]) -> None:
    # Checked before anything is computed, since a file's number may be a slip, or malice.
    count = len(params["betas"]) if "betas" in params else params.get("levels", params.get("steps"))
    if not 0 <= count <= MAX_LEVELS:
        raise UsageError(f"{what} of {count} levels", f"use at most {MAX_LEVELS} levels")


@_schedule
def from_betas(betas: Sequence[float] | Array) -> tuple[Array, Array]:
    """VP schedule of given betas (Ho et al. 2020, eq. 4)."""
    return _variance_preserving(np.asarray(betas, np.float64))


@_schedule
def linear(
    *, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02
) -> tuple[Array, Array]:
    """Betas evenly spaced (Ho et al. 2020, section 4)."""
    return _variance_preserving(np.linspace(beta_start, beta_end, steps))


@_schedule
def scaled_linear(
    *, steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> tuple[Array, Array]:
    """Square roots of the betas evenly spaced (Rombach et al. 2022, released configurations)."""
    return _variance_preserving(np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2)


@_schedule
def cosine(*, steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> tuple[Array, Array]:
    """alpha_bar = cos^2 of a shifted time (Nichol and Dhariwal 2021, eq. 17)."""
    time = np.linspace(0, 1, steps + 1)
    return _from_alpha_bar(np.cos((time + s) / (1 + s) * np.pi / 2) ** 2, max_beta)


@_schedule
def sigmoid(
    *, steps: int = 1000, start: float = -3, end: float = 3, tau: float = 1, max_beta: float = 0.999
) -> tuple[Array, Array]:
    """alpha_bar a falling sigmoid of time, scaled to start at 1 (Jabri et al. 2022, appendix)."""
    time = np.linspace(0, 1, steps + 1)
    value = 1 / (1 + np.exp(-(time * (end - start) + start) / tau))
    return _from_alpha_bar((value[-1] - value) / (value[-1] - value[0]), max_beta)


@_schedule
def geometric(*, levels: int, sigma_min: float, sigma_max: float) -> tuple[Array, Array]:
    """VE: sigmas in geometric progression (Song and Ermon 2019, section 4.2)."""
    _require(0 < sigma_min <= sigma_max, "0 < sigma_min <= sigma_max")
    sigma = np.geomspace(sigma_min, sigma_max, levels)
    return np.ones_like(sigma), sigma


@_schedule
def karras(
    *, levels: int, sigma_min: float, sigma_max: float, rho: float = 7
) -> tuple[Array, Array]:
    """VE: sigma^(1/rho) evenly spaced (Karras et al. 2022, eq. 5)."""
    _require(0 < sigma_min <= sigma_max and rho > 0, "0 < sigma_min <= sigma_max, rho > 0")
    sigma = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), levels) ** rho
    return np.ones_like(sigma), sigma


@_schedule
def vp_sde(
    *, levels: int, beta_min: float = 0.1, beta_max: float = 20, time_min: float = 1e-3
) -> tuple[Array, Array]:
    """VP SDE at times evenly spaced from `time_min` to 1 (Song et al. 2021b, eq. 29)."""
    log_alpha = _log_alpha(levels, beta_min, beta_max, time_min)
    return np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))


@_schedule
def sub_vp_sde(
    *, levels: int, beta_min: float = 0.1, beta_max: float = 20, time_min: float = 1e-3
) -> tuple[Array, Array]:
    """Sub-VP SDE, whose sigma is 1 - alpha^2, at the same times (Song et al. 2021b, eq. 29)."""
    log_alpha = _log_alpha(levels, beta_min, beta_max, time_min)
    return np.exp(log_alpha), -np.expm1(2 * log_alpha)


_ALL: Final[tuple[Callable[..., NoiseSchedule], ...]] = (
    linear, scaled_linear, cosine, sigmoid, from_betas, geometric, karras, vp_sde, sub_vp_sde
)  # fmt: skip
KINDS: Final = {make.__name__: make for make in _ALL}


def schedule_from_dict(value: Mapping[str, Any]) -> NoiseSchedule:
    """Read what `NoiseSchedule.to_dict` gave; UsageError if kind or argument is unknown."""
    arguments = dict(value)
    kind = arguments.pop("kind", None)
    require_known("noise schedule", kind, KINDS)
    return KINDS[kind](**arguments)


def _from_alpha_bar(alpha_bar: Array, max_beta: float) -> tuple[Array, Array]:
    # The cap keeps the last alpha above zero, so that epsilon and score keep a meaning.
    return _variance_preserving(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def _variance_preserving(betas: Array) -> tuple[Array, Array]:
    _require(betas.ndim == 1 and bool(((betas > 0) & (betas < 1)).all()), "0 < beta < 1")
    alpha_bar = np.cumprod(1 - betas)
    return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)


def _log_alpha(levels: int, beta_min: float, beta_max: float, time_min: float) -> Array:
    """Return -1/2 of the integral of beta(t), which rises linearly, from 0 to each time."""
    _require(0 < time_min < 1, "0 < time_min < 1")
    _require(0 < beta_min <= beta_max, "0 < beta_min <= beta_max")
    time = np.linspace(time_min, 1, levels)
    return np.asarray(-(time**2) * (beta_max - beta_min) / 4 - time * beta_min / 2)


def _require(condition: bool, rule: str) -> None:
    if not condition:
        raise ValueError(f"it needs {rule}")
