"""AOTInductor packages: the step module as machine code, for hosts that have PyTorch anyway.

The driver of GPUs runs a package, on a GPU or on the CPU, whichever it was made for. On the CPU
the tests run whole programs. Of the part for a GPU they see the calls alone: that torch and the
driver share a stream and memory there, and that a captured run can be replayed, is only read from
torch's sources.
"""

import contextlib
import json
import platform
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from difftool.bundle import CONDITIONER, Bundle, package_name
from difftool.diffusion.features import Feature
from difftool.errors import (
    ArtefactError,
    DifftoolError,
    MissingDependencyError,
    UsageError,
    first_line,
)
from difftool.files import temporary_folder
from difftool.runtime.backends.code import INPUTS, KNOWN, OUTPUTS, import_torch, trusted_code
from difftool.runtime.backends.table import Asked
from difftool.runtime.cuda.backend import DeviceBackend
from difftool.runtime.cuda.cuda_device import open_device
from difftool.runtime.cuda.device import Bound, Buffer, Device, Launch
from difftool.runtime.cuda.host_device import HostBuffer, HostDevice
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.memory import cached_batch, library_error, no_memory, no_memory_for_model

_MODEL: Final = "model"  # what torch calls the only one in a package
FEATURES: Final = "difftool_cpu_features"  # the metadata that name them, as JSON
_MOST: Final = (1 << 31) - 1  # samples of a run; the sizes in a package are free
_BEST_ON_GPU: Final = 64
_AGAIN: Final = "export it again with `aot` on this machine"


class PackageEngine:
    """A loaded package on a device; `loader` is torch's, and `exact` refuses TF32.

    Every run makes new outputs, which are copied into the buffers. On a CPU `threads` take part in
    it, by default as many as torch would take.
    """

    def __init__(
        self,
        bundle: Bundle,
        loader: Any,
        device: Device,
        exact: bool,
        threads: int | None = None,
    ) -> None:
        self._bundle, self._loader, self._device = bundle, loader, device
        self._threads = threads
        self._torch = import_torch()
        self._on_host = isinstance(device, HostDevice)
        self._exact = exact and not self._on_host
        # What a run allocates must stay its own as long as a captured graph may write to it.
        self._pool = None if self._on_host else self._torch.cuda.MemPool()
        known = KNOWN if Feature.KNOWN in bundle.features else ()
        self._order = (*INPUTS, *known)
        empty = () if CONDITIONER in bundle.manifest.files else ("cond_table",)
        self.inputs = frozenset(self._order) - set(empty)

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the fewest and the most samples of a run."""
        return fewest_samples(self._bundle.spec.shape, self._bundle.features), _MOST

    @property
    def best(self) -> int:
        """Return how many samples run best together."""
        return cached_batch(self._bundle.spec.shape) if self._on_host else _BEST_ON_GPU

    def wider(self, size: int) -> str:
        """Say what else takes `size` samples: every package has the same sizes."""
        return f"run a batch of {size} on another backend"

    def bind(self, sides: Sequence[Mapping[str, Buffer]]) -> Bound:
        """Share the buffers of either side with torch; runs are on the thread that calls this."""
        if self._threads is not None:
            _limit_threads(self._torch, self._threads)
        return Bound([self._run(tensors) for tensors in sides], capturable=not self._on_host)

    def _run(self, buffers: Mapping[str, Buffer]) -> Launch:
        tensors = {name: self._shared(buffer) for name, buffer in buffers.items()}
        if "cond_table" not in tensors:  # no conditioner: the table has no columns
            tensors["cond_table"] = tensors["table"][:, :0]
        inputs = [tensors[name] for name in self._order]
        outputs = [tensors[name] for name in OUTPUTS]

        def run() -> None:
            with self._place():
                found = self._loader.run(inputs)
                if [tensor.shape for tensor in found] != [out.shape for out in outputs]:
                    raise ArtefactError("the package gave outputs of other sizes", _AGAIN)
                for out, tensor in zip(outputs, found, strict=True):
                    out.copy_(tensor)

        def checked() -> None:
            try:
                run()
            except RuntimeError as error:
                failure = ArtefactError(f"torch failed: {first_line(error)}", "verify the bundle")
                raise library_error(error, no_memory(len(inputs[0])), failure) from error

        return checked

    def _shared(self, buffer: Buffer) -> Any:
        """Return a tensor of the same memory."""
        if isinstance(buffer, HostBuffer):
            return self._torch.from_numpy(buffer.array)
        return self._torch.as_tensor(_OnGpu(buffer), device=f"cuda:{self._device.number}")

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """Have torch work on the device's stream, which is another one within a capture."""
        if self._pool is None:
            yield
            return
        cuda, cudnn = self._torch.cuda, self._torch.backends.cudnn
        exact: AbstractContextManager[Any] = (
            cudnn.flags(enabled=True, allow_tf32=False) if self._exact else contextlib.nullcontext()
        )
        stream = cuda.ExternalStream(self._device.stream)
        with exact, cuda.stream(stream), cuda.use_mem_pool(self._pool):
            yield


class _OnGpu:
    """A buffer, for libraries that read `__cuda_array_interface__`. It names no stream to wait for.

    https://numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
    """

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer  # whose memory is freed with it
        self.__cuda_array_interface__ = {
            "shape": buffer.shape,
            "typestr": buffer.dtype.str,
            "data": (buffer.address, False),
            "version": 2,
        }


def open_asked(bundle: Bundle, asked: Asked) -> DeviceBackend:
    """Open the backend of the table's row."""
    return open_package(
        bundle,
        asked.precision,
        number=asked.device,
        threads=asked.threads,
        trusted=asked.trusted,
    )


def open_package(
    bundle: Bundle,
    precision: str = "fp32",
    *,
    number: int = 0,
    threads: int | None = None,
    trusted: Collection[str] = (),
) -> DeviceBackend:
    """Open the package of a bundle on the device that it was made for: the CPU, or GPU `number`.

    Raises:
        UsageError: the package is for the CPU, and `number` is not 0.
        MissingDependencyError: there is no torch or no package, or it is for another machine.
        ArtefactError: the package is damaged, or is not trusted.
    """
    name = package_name(precision)
    data = trusted_code(bundle, name, trusted, kind="a package", option="`aot`")
    torch, path = import_torch(), bundle.path / name
    package = torch._C._aoti.AOTIModelPackageLoader
    try:
        # torch opens a path, and the bundle's own file may have changed since it was judged.
        with temporary_folder() as folder:
            copy = folder / "step.pt2"
            copy.write_bytes(data)
            metadata = package.load_metadata_from_package(str(copy), _MODEL)
            kind = _require_here(path, metadata, number)
            if kind == "cpu" and number:
                raise UsageError(
                    f"{path} is for the CPU, not for GPU {number}", "leave `device` out"
                )
            device: Device = HostDevice() if kind == "cpu" else open_device(number)
            # Single-threaded, since the driver takes turns, and a capture may not ask for events.
            loader = package(str(copy), _MODEL, True, 1, -1 if kind == "cpu" else number)
    except DifftoolError:
        raise
    except Exception as error:  # what torch raises on a bad archive has no base of its own
        refusal = ArtefactError(f"torch refuses {path}: {first_line(error)}", _AGAIN)
        raise library_error(error, no_memory_for_model(path), refusal) from error
    engine = PackageEngine(bundle, loader, device, exact=precision == "fp32", threads=threads)
    shown = "aot-inductor" if precision == "fp32" else f"aot-inductor:{precision}"
    graphs: Graphs = "off" if kind == "cpu" else "pairs"
    # The step graph is of the same module, so its sizes are the package's, too.
    return DeviceBackend(shown, bundle, device, engine, graphs, bundle.step("fp32"))


def fewest_samples(shape: Sequence[int], features: Collection[Feature]) -> int:
    """Return the fewest samples of shape S in a run; the driver pads what is below.

    torch.export cannot leave it open if a batch of points, or of samples that are guided, is one:
    a tensor of one row is contiguous where those of more rows are not.
    """
    return 2 if len(shape) == 1 or Feature.GUIDANCE in features else 1


def _limit_threads(torch: Any, threads: int) -> None:
    """Have torch compute with so many threads on the calling thread, and on no other.

    The number that torch is given is that of the thread, and that of all threads which ask for the
    first time from then on. The second is set back by a thread that is such a one.
    """
    with ThreadPoolExecutor(1) as other:
        before = other.submit(torch.get_num_threads).result()
        torch.get_num_threads()  # or else this thread would take the second later
        torch.set_num_threads(threads)
        other.submit(torch.set_num_threads, before).result()


def cpu_features() -> set[str]:
    """Return what torch knows that this machine's CPU can do, such as "avx2"."""
    return {name for name, has in import_torch().cpu.get_capabilities().items() if has is True}


def _require_here(path: Path, metadata: Mapping[str, str], number: int) -> str:
    """Return the kind of device that a package is for: "cpu" or "cuda".

    MissingDependencyError if it is for another machine, whose code would end the process, or if
    there is no such GPU.
    """
    kind = metadata["AOTI_DEVICE_KEY"]
    made = (metadata["AOTI_PLATFORM"], metadata["AOTI_MACHINE"])
    reason = ""
    if made != (sys.platform, platform.machine()):
        reason = " ".join(made)
    elif lacking := set(json.loads(metadata[FEATURES])) - cpu_features():
        reason = f"a CPU with {', '.join(sorted(lacking))}"
    elif kind != "cpu":
        cuda = import_torch().cuda
        if cuda.is_available() and number >= cuda.device_count():
            raise MissingDependencyError(
                f"there is no GPU {number}: torch sees {cuda.device_count()}, counted from 0",
                "choose one of them",
            )
        capability = cuda.is_available() and cuda.get_device_capability(number)
        wanted = metadata["AOTI_COMPUTE_CAPABILITY"]
        if not capability or str(capability[0] * 10 + capability[1]) != wanted:
            reason = f"{kind} {wanted}"
    if reason:
        raise MissingDependencyError(f"{path} was made for {reason}", _AGAIN)
    return kind
