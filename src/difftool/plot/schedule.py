"""Draw a noise schedule."""

from typing import TYPE_CHECKING

from difftool.diffusion.schedules import NoiseSchedule
from difftool.plot.style import COLOURS, blank, grid, marks, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_schedule(schedule: NoiseSchedule) -> "Figure":
    """Draw alpha and sigma over the levels, and half_log_snr, log(alpha / sigma), on the right.

    Alpha and sigma are logarithmic unless the process is variance preserving.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    mark = marks(len(schedule))
    with blank(8.0, 3.3) as figure:
        left, right = figure.subplots(1, 2)
        figure.suptitle(titled(str(schedule)), fontsize=9)
        left.plot(schedule.alpha, label="alpha", color=COLOURS[0], **mark)
        left.plot(schedule.sigma, label="sigma", color=COLOURS[1], **mark)
        scale = "linear" if schedule.variance_preserving else "log"
        left.set(title="x = alpha * x0 + sigma * noise", xlabel="level", yscale=scale)
        left.legend()
        right.plot(schedule.half_log_snr, color=COLOURS[4], **mark)
        right.set(title="half_log_snr", xlabel="level")
        grid(left, right)
        return figure
