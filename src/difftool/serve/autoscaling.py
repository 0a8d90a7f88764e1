"""How many replicas Ray Serve runs: more if requests wait, fewer if the others could carry it.

Ray copies this module into its controller, so it imports nothing of difftool.
"""

import math
from typing import Any, Final

_MOST: Final = 2.0  # times as many replicas, at a time


class QueueWait:
    """A policy of Ray Serve's autoscaling, which calls it every few seconds.

    Each replica reports `wait`, the longest that one of its requests has waited to begin, and
    `busy`, the part of a batch that its samples fill. Ray takes their means over its
    `look_back_period_s`, and applies its delays and bounds to what is returned here.

    - `wait`: seconds. If replicas report more in the mean, there are more of them, in proportion
      but at most twice as many at a time.
    - `busy`: else there are only as many as all samples on their way would fill to this part.
    """

    def __init__(self, wait: float = 1.0, busy: float = 0.7) -> None:
        self.wait, self.busy = wait, busy

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas, and no state; `context` is an AutoscalingContext."""
        reports = context.aggregated_metrics or {}
        waits, busy = (list(reports.get(name, {}).values()) for name in ("wait", "busy"))
        if not waits or not busy:
            return context.target_num_replicas, {}
        wait = sum(waits) / len(waits)
        if wait > self.wait:
            return math.ceil(context.current_num_replicas * min(wait / self.wait, _MOST)), {}
        # A replica that has not reported yet is taken for as busy as the others.
        full = context.current_num_replicas * sum(busy) / len(busy)
        return min(context.target_num_replicas, max(1, math.ceil(full / self.busy))), {}
