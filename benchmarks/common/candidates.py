"""The candidates of a comparison of sampling steps: their names, and one that is open."""

from collections.abc import Callable
from dataclasses import dataclass

from difftool import DifftoolError
from difftool.runtime import Batch

# On a CPU; the three of PyTorch take part on a GPU, too.
OURS = "difftool fp32"
BF16 = "difftool bf16"
INT8 = ("difftool int8", "difftool int8, openvino")
PIPELINE, EAGER, COMPILE = "diffusers pipeline", "torch eager", "torch.compile"
PLAIN = ("onnxruntime, plain", "openvino f32, plain", "openvino bf16, plain")
NAMES = (OURS, BF16, *INT8, PIPELINE, EAGER, COMPILE, *PLAIN)
FP32_PEERS = (EAGER, COMPILE, *PLAIN[:2])


class Unavailable(DifftoolError):
    """A candidate cannot be measured here; the message says why."""


@dataclass(frozen=True)
class Runner:
    """A candidate that is open, at one batch.

    - `batch`: what single rows are compared through
    - `steps`: takes the next n; on a GPU it may only enqueue them, and `wait` waits until they are
      done
    - `begin`: goes to the first row
    - `enter`: called before this one is used after another one, since torch's TF32 is global
    - `least`, `most`: steps of a round; `most` are the rows of the program
    - `burst`: steps of one launch, of which the host's time is taken; 0 if `steps` waits
    - `graphs`: "pairs" or "loop" if this runtime launches a graph of two rows, or of all
    - `free`: whether a whole run can be compared, since its noise is this runtime's
    """

    batch: Batch
    steps: Callable[[int], object]
    begin: Callable[[], object] = lambda: None
    wait: Callable[[], object] = lambda: None
    enter: Callable[[], object] = lambda: None
    most: int = 1000
    least: int = 2
    burst: int = 2
    graphs: Callable[[], str] = lambda: "off"
    free: bool = False

    def start(self, count: int = 0) -> None:
        """Enter, go to the first row, and take so many steps."""
        self.enter()
        self.begin()
        if count:
            self.steps(count)
