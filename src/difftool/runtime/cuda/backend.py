"""The backend that every engine on a GPU is run by."""

from difftool.bundle import Bundle
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.preflight import OnnxFile
from difftool.runtime.backends.prepare import Preparation
from difftool.runtime.cuda.device import Device, StepEngine
from difftool.runtime.cuda.driver import DeviceBatch, Driver
from difftool.runtime.cuda.room import Graphs


class DeviceBackend:
    """A bundle's step engine on a device; `name` is that of the kind of engine.

    `step` is the graph that it runs, if that is a file of the bundle.
    """

    def __init__(
        self,
        name: str,
        bundle: Bundle,
        device: Device,
        engine: StepEngine,
        graphs: Graphs = "pairs",
        step: OnnxFile | None = None,
    ) -> None:
        self.name = name
        self.device, self.engine = device, engine
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._driver = Driver(device, engine, graphs)

    @property
    def best_batch(self) -> int:
        """How many samples run best together."""
        return self.engine.best

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> DeviceBatch:
        """Room for `size` samples of a program."""
        begin = self._prepare(program, size, labels)
        return self._driver.batch(program, begin.rows, begin.cond_table, begin.shape)
