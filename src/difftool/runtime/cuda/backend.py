"""The backend that every engine on a GPU is run by."""

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels, rows_of
from difftool.diffusion.program import Program
from difftool.runtime.backends import require_fused
from difftool.runtime.backends.conditioner import Conditioner
from difftool.runtime.cuda.device import Device, StepEngine
from difftool.runtime.cuda.driver import DeviceBatch, Driver
from difftool.runtime.cuda.room import Graphs


class DeviceBackend:
    """A bundle's step engine on a device; `name` is that of the kind of engine."""

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        device: Device,
        engine: StepEngine,
        graphs: Graphs = "pairs",
    ) -> None:
        self.name = name
        self.fused = frozenset[str](bundle.manifest.fused)
        self.device, self.engine = device, engine
        self._spec = bundle.spec
        self._conditioner = Conditioner(bundle)
        self._driver = Driver(device, engine, graphs)

    @property
    def best_batch(self) -> int:
        """How many samples run best together."""
        return self.engine.best

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> DeviceBatch:
        """Room for `size` samples of a program."""
        require_fused(self.fused, program, labels)
        rows = rows_of(program, self._spec, size, labels)
        shape = (size, *self._spec.shape)
        return self._driver.batch(program, rows, self._conditioner.table(rows), shape)
