"""DPM-Solver++, multistep: extrapolate D along half_log_snr from the D of earlier rows."""

import math

from difftool.diffusion.builder import ProgramBuilder, sampler
from difftool.diffusion.program import Program
from difftool.diffusion.samplers.transfer import KEEP_DENOISED, Level, fresh_noise, gap, transfer
from difftool.diffusion.spacing import LINSPACE, steps_or, transitions, visited
from difftool.diffusion.spec import ModelSpec
from difftool.errors import UsageError


@sampler
def dpmpp_2m(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2). The first and last rows are first order.

    `difftool.diffusion.spacing.visited` lists the values of `spacing`; `clip` keeps D in the data
    range.
    """
    return _second_order_program(spec, steps, 0.0, spacing, clip)


@sampler
def dpmpp_2m_sde(
    spec: ModelSpec,
    *,
    steps: int | None = None,
    eta: float = 1.0,
    spacing: str = LINSPACE,
    clip: bool = True,
) -> Program:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, eq. 19); eta=1 is the paper's, eta=0 is `dpmpp_2m`.

    `eta` scales the diffusion of the reverse SDE: over a gap h of half_log_snr a row keeps
    exp(-eta * h) of the noise that the ODE would leave, and draws the rest.
    """
    if not 0 <= eta <= 1:
        raise UsageError(f"eta {eta} is not in 0 .. 1", "0 is deterministic, 1 is the paper's SDE")
    return _second_order_program(spec, steps, eta, spacing, clip)


@sampler
def dpmpp_3m(
    spec: ModelSpec, *, steps: int | None = None, spacing: str = LINSPACE, clip: bool = True
) -> Program:
    """DPM-Solver++(3M), as released (Lu et al. 2022, eq. 12 with n=3, and the authors' code).

    It is `dpmpp_2m` with a curvature from the D of three rows. The paper gives no algorithm. The
    authors' code takes half the curvature, so the order stays two, with a smaller error; `unipc`
    has order three. The first and last rows are first order, and the second row is as in
    `dpmpp_2m`.
    """
    steps = steps_or(steps, 20, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    earlier: list[Level] = []  # newest first
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        current, following = builder.level(level), builder.level(target)
        a, b = transfer(current, following)
        c: tuple[float, ...] = ()
        if target is not None and len(earlier) > 1:
            b, c = _third_order(following[0], b, [following, current, *earlier[:2]])
        elif target is not None and earlier:
            b, c = _second_order(b, [following, current, *earlier])
        builder.row(level, target, a=a, b=b, c=c, push=KEEP_DENOISED)
        earlier.insert(0, current)
    return builder.build({"steps": steps})


def _second_order_program(
    spec: ModelSpec, steps: int | None, eta: float, spacing: str, clip: bool
) -> Program:
    steps = steps_or(steps, 20, spec.schedule)
    builder = ProgramBuilder(spec, clip=clip)
    earlier: Level | None = None
    for level, target in transitions(visited(spec.schedule, steps, spacing)):
        current, following = builder.level(level), builder.level(target)
        fresh = fresh_noise(current, following, eta)
        a, b = transfer(current, following, fresh)
        c: tuple[float, ...] = ()
        if earlier is not None and target is not None:
            b, c = _second_order(b, [following, current, earlier])
        builder.row(level, target, a=a, b=b, c=c, d=fresh, push=KEEP_DENOISED)
        earlier = current
    return builder.build({"steps": steps})


def _second_order(b: float, levels: list[Level]) -> tuple[float, tuple[float]]:
    """Return the weights on D and on the last row's D that extrapolate to the step's middle.

    They sum to b. `levels` are the row's target, its own level, and the last row's.
    """
    following, current, earlier = levels
    half = b / 2 * gap(current, following) / gap(earlier, current)
    return b + half, (-half,)


def _third_order(alpha: float, b: float, levels: list[Level]) -> tuple[float, tuple[float, float]]:
    """Return the weights on D and on the last two rows' D, by divided differences.

    `levels` are the row's target, its own level, and the last two rows'; `alpha` is the target's.
    """
    following, current, earlier, earliest = levels
    h = gap(current, following)
    r0, r1 = gap(earlier, current) / h, gap(earliest, earlier) / h
    phi_2 = math.expm1(-h) / h + 1
    phi_3 = phi_2 / h - 0.5
    # With first differences u = (D0 - D1) / r0 and w = (D1 - D2) / r1, the slope at the current
    # level is u + r0 / (r0 + r1) * (u - w), and half the curvature (u - w) / (r0 + r1).
    curved = alpha * (phi_2 * r0 - phi_3) / (r0 + r1)
    newer, older = (alpha * phi_2 + curved) / r0, -curved / r1
    return b + newer, (older - newer, -older)
