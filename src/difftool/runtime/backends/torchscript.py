"""PyTorch in the runtime: the step module as TorchScript, for hosts that have PyTorch anyway.

No other file of the runtime opens a `step.ts`. It is code; see `difftool.runtime.backends.code`.
"""

import io
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import TORCHSCRIPT, Bundle
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError, first_line
from difftool.runtime.backends.code import INPUTS, KNOWN, OUTPUTS, import_torch, trusted_code
from difftool.runtime.backends.host import Arrays, HostBatch
from difftool.runtime.backends.host_slots import HostSlots
from difftool.runtime.backends.prepare import Preparation, Prepared
from difftool.runtime.backends.table import Asked
from difftool.runtime.memory import library_error, no_memory, no_memory_for_model
from difftool.runtime.protocols import Known

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float32]
Step = Callable[..., Any]  # a step module, or one that was compiled


class TorchScript:
    """A bundle's `step.ts`, on a GPU if torch has one."""

    name = "torchscript"

    def __init__(
        self, bundle: Bundle, *, threads: int | None = None, trusted: Collection[str] = ()
    ) -> None:
        path = bundle.path / TORCHSCRIPT
        data = trusted_code(
            bundle, TORCHSCRIPT, trusted, kind="TorchScript", option="`torchscript`"
        )
        torch = import_torch()
        if threads is not None:
            torch.set_num_threads(threads)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            step = torch.jit.load(io.BytesIO(data), map_location=self._device).eval()
        except RuntimeError as error:
            refusal = ArtefactError(f"torch refuses {path}: {first_line(error)}", "export it again")
            raise library_error(error, no_memory_for_model(path), refusal) from error
        self._step: Step = _without_tf32(step) if self._device == "cuda" else step
        self._prepare = Preparation(bundle, None)
        self.features = self._prepare.features

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> "TorchBatch":
        """Make room for `size` samples of a program."""
        begin = self._prepare(program, size, labels)
        return TorchBatch(
            self._step, begin, self._device, takes_known=Feature.KNOWN in self.features
        )

    def slots(self, count: int, most: int) -> HostSlots:
        """Make room for samples of any programs, of which `most` run together."""
        known = KNOWN if Feature.KNOWN in self.features else ()
        taken, bind = (*INPUTS, *known), partial(_bind, self._step, self._device)
        return HostSlots(self._prepare, lambda begin, _: HostBatch(bind, taken, begin), count, most)


def open_asked(bundle: Bundle, asked: Asked) -> TorchScript:
    """Open the backend of the table's row."""
    return TorchScript(bundle, threads=asked.threads, trusted=asked.trusted)


class TorchBatch:
    """Samples on their way through a program, as torch tensors on a device.

    With `takes_known` the step must be given known values, even if nothing is known.
    """

    def __init__(
        self, step: Step, begin: Prepared, device: str = "cpu", *, takes_known: bool = False
    ) -> None:
        self._torch, self._device = import_torch(), device
        self._step = step
        rows, shape = begin.rows, begin.shape
        self._table = self._put(rows.table.astype(np.float32))
        self._cond_table = self._put(begin.cond_table)
        self._first = self._put(rows.first)
        self._empty = np.zeros((begin.slots, *shape), np.float32)
        self._zero = self._put(np.zeros(shape, np.float32))
        self._nothing = (self._zero, self._zero) if takes_known else ()
        self.start(np.zeros(shape, np.float32))

    def start(
        self,
        x: Floats,
        *,
        row: int = 0,
        history: Floats | None = None,
        denoised: Floats | None = None,
        known: Known | None = None,
    ) -> None:
        """Begin at a row; see `difftool.runtime.protocols.Batch`."""
        self._x = self._put(x)
        self._history = self._put(self._empty if history is None else history)
        self._row = self._first + row
        self._denoised = self._zero if denoised is None else self._put(denoised)
        self._known = self._nothing if known is None else tuple(self._put(part) for part in known)

    def step(self, noise: Floats | None) -> None:
        """Run the next row."""
        drawn = self._zero if noise is None else self._put(noise)
        before = self._x, self._history, self._row
        tables = self._table, self._cond_table
        after = _run(self._step, *before, drawn, *tables, *self._known)
        self._x, self._history, self._row, self._denoised = after

    @property
    def x(self) -> Floats:
        """Return the state [N, *S] after the last row."""
        return self._get(self._x)

    @property
    def history(self) -> Floats:
        """Return the history [K, N, *S] after the last row."""
        return self._get(self._history)

    @property
    def denoised(self) -> Floats:
        """Return D [N, *S] of the last row."""
        return self._get(self._denoised)

    def _put(self, array: NDArray[Any]) -> "Tensor":
        """Copy an array to the device; as float32 if it holds no integers."""
        kind = np.float32 if array.dtype.kind == "f" else array.dtype
        tensor: Tensor = self._torch.from_numpy(np.array(array, kind)).to(self._device)
        return tensor

    def _get(self, tensor: "Tensor") -> Floats:
        array: Floats = tensor.cpu().numpy()
        return array


def _run(step: Step, x: "Tensor", history: "Tensor", row: "Tensor", *more: "Tensor") -> Any:
    """Run a step module; its errors, and outputs of other sizes, become ours."""
    try:
        with import_torch().inference_mode():
            after = step(x, history, row, *more)
    except RuntimeError as error:
        failure = ArtefactError(f"torch failed: {first_line(error)}", "verify the bundle")
        raise library_error(error, no_memory(len(row)), failure) from error
    if [tuple(a.shape) for a in after] != [tuple(b.shape) for b in (x, history, row, x)]:
        raise ArtefactError("torch gave outputs of other sizes", "export the bundle again")
    return after


def _bind(step: Step, device: str, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
    # On a CPU these tensors share the arrays' memory.
    reads = [
        import_torch().from_numpy(inputs[name]) for name in (*INPUTS, *KNOWN) if name in inputs
    ]
    writes = [import_torch().from_numpy(outputs[name]) for name in OUTPUTS]

    def run() -> None:
        after = _run(step, *(tensor.to(device) for tensor in reads))
        for tensor, found in zip(writes, after, strict=True):
            tensor.copy_(found)

    return run


def _without_tf32(step: Step) -> Step:
    """Keep cuDNN from rounding the inputs of float32 convolutions to 10 bits, its default."""
    cudnn = import_torch().backends.cudnn

    def exact(*tensors: Any) -> Any:
        with cudnn.flags(enabled=True, allow_tf32=False):
            return step(*tensors)

    return exact
