"""Noise schedules: level -> (alpha, sigma), so that x = alpha * x0 + sigma * noise. All float64."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, ParamSpec

import numpy as np
from numpy.typing import ArrayLike, NDArray

from difftool.diffusion.calls import require_types
from difftool.errors import UsageError, quoted

Array = NDArray[np.float64]
_P = ParamSpec("_P")

MAX_LEVELS: Final = 100_000

_WHOLE: Final = 1e-9  # an index nearer to a level than this is that level, but for rounding


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """The noise levels of a model, from least (index 0) to most noise.

    `alpha` and `sigma` are float64 [L]: signal scale and noise standard deviation. `kind` and
    `params` are the constructor and its arguments, with which a schedule is saved and printed.
    `dropped` counts levels of more noise that `up_to` has left out.
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

    @functools.cached_property
    def half_log_snr(self) -> Array:
        """log(alpha / sigma), float64 [L], falling."""
        return self._log_alpha - np.log(self.sigma)

    @functools.cached_property
    def _log_alpha(self) -> Array:
        return np.log(self.alpha)

    @property
    def alpha_bar(self) -> Array:
        """alpha^2, float64 [L]; the product of (1 - beta) in DDPM's notation."""
        return self.alpha**2

    @functools.cached_property
    def variance_preserving(self) -> bool:
        """Whether alpha^2 + sigma^2 = 1 at every level."""
        return bool(np.abs(self.alpha**2 + self.sigma**2 - 1).max() < 1e-12)

    def at(self, index: ArrayLike) -> tuple[Array, Array]:
        """(alpha, sigma) at schedule indices, which may lie between levels; float64 each.

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

    def index_of(self, half_log_snr: ArrayLike) -> Array:
        """The schedule index, between levels if need be, of a half_log_snr; float64.

        What lies beyond either end gives that end. A level's own value gives its whole index.
        """
        position = np.interp(
            -np.asarray(half_log_snr, np.float64), -self.half_log_snr, np.arange(len(self))
        )
        nearest = position.round()
        return np.where(np.abs(position - nearest) < _WHOLE, nearest, position)

    def up_to(self, levels: int) -> "NoiseSchedule":
        """The `levels` levels of least noise; UsageError if there are not so many."""
        if not 1 <= levels <= len(self):
            raise UsageError(f"{levels} of {len(self)} noise levels", f"keep 1 to {len(self)}")
        dropped = self.dropped + len(self) - levels
        return replace(self, alpha=self.alpha[:levels], sigma=self.sigma[:levels], dropped=dropped)

    def to_dict(self) -> dict[str, Any]:
        """What `schedule_from_dict` reads: the whole schedule, also if `up_to` has cut it."""
        return {"kind": self.kind, **self.params}


def _constructor(make: Callable[_P, NoiseSchedule]) -> Callable[_P, NoiseSchedule]:
    """A schedule's constructor that raises UsageError for whatever makes none, and nothing else."""

    @functools.wraps(make)
    def construct(*args: _P.args, **kwargs: _P.kwargs) -> NoiseSchedule:
        what = f"noise schedule {make.__name__}"
        try:
            arguments = inspect.signature(make).bind(*args, **kwargs).arguments
            require_types(what, make, arguments)
            _require_levels(what, arguments)
            with np.errstate(all="ignore"):  # what comes of numbers that cannot be is refused
                return make(*args, **kwargs)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise UsageError(f"{what}: {error}", "check its arguments") from error

    return construct


def _require_levels(what: str, arguments: Mapping[str, Any]) -> None:
    """Before any is computed: of a file's numbers one may be a slip, or malice."""
    betas = arguments.get("betas", ())
    for count in (
        *(arguments[name] for name in ("levels", "steps") if name in arguments),
        len(betas),
    ):
        if isinstance(count, int) and not 0 <= count <= MAX_LEVELS:
            raise UsageError(f"{what} of {count} levels", f"at most {MAX_LEVELS} levels")


@_constructor
def from_betas(betas: Sequence[float] | Array) -> NoiseSchedule:
    """VP schedule of given betas (Ho et al. 2020, eq. 4)."""
    values = np.asarray(betas, np.float64)
    return _variance_preserving("from_betas", {"betas": values.tolist()}, values)


@_constructor
def linear(*, steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """Betas evenly spaced (Ho et al. 2020, section 4)."""
    params = {"steps": steps, "beta_start": beta_start, "beta_end": beta_end}
    return _variance_preserving("linear", params, np.linspace(beta_start, beta_end, steps))


@_constructor
def scaled_linear(
    *, steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012
) -> NoiseSchedule:
    """Square roots of the betas evenly spaced (Rombach et al. 2022, released configurations)."""
    params = {"steps": steps, "beta_start": beta_start, "beta_end": beta_end}
    betas = np.linspace(beta_start**0.5, beta_end**0.5, steps) ** 2
    return _variance_preserving("scaled_linear", params, betas)


@_constructor
def cosine(*, steps: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """alpha_bar = cos^2 of a shifted time (Nichol and Dhariwal 2021, eq. 17)."""
    time = np.linspace(0, 1, steps + 1)
    alpha_bar = np.cos((time + s) / (1 + s) * np.pi / 2) ** 2
    params = {"steps": steps, "s": s, "max_beta": max_beta}
    return _variance_preserving("cosine", params, _betas_of(alpha_bar, max_beta))


@_constructor
def sigmoid(
    *, steps: int = 1000, start: float = -3, end: float = 3, tau: float = 1, max_beta: float = 0.999
) -> NoiseSchedule:
    """alpha_bar a falling sigmoid of time, scaled to start at 1 (Jabri et al. 2022, appendix)."""
    time = np.linspace(0, 1, steps + 1)
    value = 1 / (1 + np.exp(-(time * (end - start) + start) / tau))
    alpha_bar = (value[-1] - value) / (value[-1] - value[0])
    params = {"steps": steps, "start": start, "end": end, "tau": tau, "max_beta": max_beta}
    return _variance_preserving("sigmoid", params, _betas_of(alpha_bar, max_beta))


@_constructor
def geometric(*, levels: int, sigma_min: float, sigma_max: float) -> NoiseSchedule:
    """VE: sigmas in geometric progression (Song and Ermon 2019, section 4.2)."""
    params = {"levels": levels, "sigma_min": sigma_min, "sigma_max": sigma_max}
    _require(0 < sigma_min <= sigma_max, "geometric", "0 < sigma_min <= sigma_max")
    return _variance_exploding("geometric", params, np.geomspace(sigma_min, sigma_max, levels))


@_constructor
def karras(*, levels: int, sigma_min: float, sigma_max: float, rho: float = 7) -> NoiseSchedule:
    """VE: sigma^(1/rho) evenly spaced (Karras et al. 2022, eq. 5)."""
    params = {"levels": levels, "sigma_min": sigma_min, "sigma_max": sigma_max, "rho": rho}
    _require(
        0 < sigma_min <= sigma_max and rho > 0, "karras", "0 < sigma_min <= sigma_max, rho > 0"
    )
    ramp = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), levels)
    return _variance_exploding("karras", params, ramp**rho)


@_constructor
def vp_sde(
    *, levels: int, beta_min: float = 0.1, beta_max: float = 20, time_min: float = 1e-3
) -> NoiseSchedule:
    """VP SDE at times evenly spaced from `time_min` to 1 (Song et al. 2021b, eq. 29)."""
    params = _sde_params(levels, beta_min, beta_max, time_min)
    log_alpha = _log_alpha("vp_sde", **params)
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))
    return NoiseSchedule("vp_sde", params, alpha, sigma)


@_constructor
def sub_vp_sde(
    *, levels: int, beta_min: float = 0.1, beta_max: float = 20, time_min: float = 1e-3
) -> NoiseSchedule:
    """Sub-VP SDE, whose sigma is 1 - alpha^2, at the same times (Song et al. 2021b, eq. 29)."""
    params = _sde_params(levels, beta_min, beta_max, time_min)
    log_alpha = _log_alpha("sub_vp_sde", **params)
    return NoiseSchedule("sub_vp_sde", params, np.exp(log_alpha), -np.expm1(2 * log_alpha))


_CONSTRUCTORS: Mapping[str, Callable[..., NoiseSchedule]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "from_betas": from_betas,
    "geometric": geometric,
    "karras": karras,
    "vp_sde": vp_sde,
    "sub_vp_sde": sub_vp_sde,
}


def schedule_from_dict(value: Mapping[str, Any]) -> NoiseSchedule:
    """The schedule that `to_dict` describes; UsageError if kind or argument is unknown."""
    arguments = dict(value)
    kind = arguments.pop("kind", None)
    if not isinstance(kind, str) or kind not in _CONSTRUCTORS:
        raise UsageError(
            f"unknown noise schedule {quoted(kind)}", f"one of: {', '.join(_CONSTRUCTORS)}"
        )
    return _CONSTRUCTORS[kind](**arguments)


def _betas_of(alpha_bar: Array, max_beta: float) -> Array:
    # The cap keeps the last alpha above zero, so that epsilon and score keep a meaning.
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta)


def _variance_preserving(kind: str, params: dict[str, Any], betas: Array) -> NoiseSchedule:
    _require(betas.ndim == 1 and bool(((betas > 0) & (betas < 1)).all()), kind, "0 < beta < 1")
    alpha_bar = np.cumprod(1 - betas)
    return NoiseSchedule(kind, params, np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))


def _variance_exploding(kind: str, params: dict[str, Any], sigmas: Array) -> NoiseSchedule:
    return NoiseSchedule(kind, params, np.ones_like(sigmas), sigmas)


def _sde_params(levels: int, beta_min: float, beta_max: float, time_min: float) -> dict[str, Any]:
    return {"levels": levels, "beta_min": beta_min, "beta_max": beta_max, "time_min": time_min}


def _log_alpha(
    kind: str, *, levels: int, beta_min: float, beta_max: float, time_min: float
) -> Array:
    """-1/2 of the integral of beta(t), which rises linearly, from 0 to each time."""
    _require(0 < time_min < 1, kind, "0 < time_min < 1")
    _require(0 < beta_min <= beta_max, kind, "0 < beta_min <= beta_max")
    time = np.linspace(time_min, 1, levels)
    return np.asarray(-(time**2) * (beta_max - beta_min) / 4 - time * beta_min / 2)


def _require(condition: bool, kind: str, rule: str) -> None:
    if not condition:
        raise UsageError(f"noise schedule {kind} needs {rule}", "check its arguments")
