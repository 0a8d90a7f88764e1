"""From a checkpoint to a bundle: the step module, ONNX and TorchScript."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.export.bundle import export

__all__ = ["export"]

_HOMES = {"export": "difftool.export.bundle"}

__getattr__ = lazily(__name__, _HOMES)
