"""The processes of one training: they begin together, agree to stop, and notice if one is lost."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Final

import torch
from accelerate import Accelerator

from difftool.errors import ResourceError, UsageError

SECONDS_A_VOTE: Final = 1.0

# Where torchrun and the launchers of MPI say how many processes they started.
_SIZES: Final = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def join(precision: str) -> Accelerator:
    """Return the accelerator of this process, joined with all others that were launched with it.

    `precision` is the configuration's `run.precision`.

    Raises:
        UsageError: the launcher was asked for another number of processes or another precision, or
            the precision needs a GPU.
    """
    sizes = [int(os.environ[name]) for name in _SIZES if name in os.environ]
    launched = sizes[0] if sizes else 1
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION")  # only `accelerate launch` sets it
    # Without several GPUs it starts one process, however many it was asked for. If it was asked
    # for more, it has set an address for them to meet at.
    if asked is not None and not sizes and "MASTER_ADDR" in os.environ:
        raise UsageError(
            "accelerate launch was asked for several processes, and started one",
            "start them on CPUs with: torchrun --nproc-per-node 2 -m difftool train ...; "
            "or on GPUs with: accelerate launch --multi_gpu",
        )
    if asked not in (None, "no", precision):
        raise UsageError(
            f"accelerate launch asks for {asked}, and the configuration for "
            f"run.precision {precision}",
            "leave --mixed_precision out, and set run.precision",
        )
    # accelerate joins processes on CPUs only if it is told to use no GPU.
    cpu = launched > 1 and not torch.accelerator.is_available()
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")  # `Conditioned` casts by itself
    require_device(precision, accelerator.device)
    if accelerator.num_processes < launched:
        raise UsageError(
            f"{launched} processes were started, and each would train alone",
            "start one; or set ACCELERATE_USE_CPU=true, and they train together on the CPU",
        )
    return accelerator


def require_device(precision: str, device: torch.device) -> None:
    """Raise UsageError if networks cannot be trained in a precision on a device."""
    if precision == "fp16" and device.type == "cpu":
        raise UsageError(
            "run.precision fp16 needs a GPU, and there is none",
            "set run.precision to no; or to bf16, if this CPU has instructions for it",
        )


def require_same_step(accelerator: Accelerator, step: int) -> None:
    """Raise UsageError, in all processes, if they do not begin at the same step."""
    steps = accelerator.gather(torch.tensor([step], device=accelerator.device)).tolist()
    if len(set(steps)) > 1:
        raise UsageError(
            f"the processes would go on from different steps: {', '.join(map(str, steps))}",
            "give all machines the same run folder, on a disk that they share",
        )


class Vote:
    """The agreement of all processes to stop, for which they ask each other about once a second.

    To ask is to wait for the device and for the slowest process, so they do not ask at every step.
    All of them learn the time that a step takes the slowest, and so choose the same step for the
    next vote. If steps take longer than a second, each step has a vote.
    """

    def __init__(self, accelerator: Accelerator, step: int) -> None:
        self._accelerator = accelerator
        self._last, self._next, self._since = step, step + 1, time.perf_counter()

    def stops(self, step: int, requested: bool) -> bool:
        """Tell, after a step, if any process was requested to stop; `requested` is of this one."""
        if self._accelerator.num_processes == 1:
            return requested
        if step < self._next:
            return False
        seconds = (time.perf_counter() - self._since) / (step - self._last)
        ballot = torch.tensor([[float(requested), seconds]], device=self._accelerator.device)
        requests, slowest = self._accelerator.gather(ballot).amax(0).tolist()
        self._last, self._since = step, time.perf_counter()
        self._next = step + max(1, int(SECONDS_A_VOTE / slowest))
        return bool(requests > 0)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Raise ResourceError if this process lost the others: one was killed, failed or lost its net.

    NCCL's errors have a class for that; those of gloo begin with the place in its source.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or "/gloo/" in str(error)):
            raise
        raise ResourceError(
            "another process of this training has ended, or cannot be reached",
            "resume: the same command goes on from the last checkpoint",
        ) from error
