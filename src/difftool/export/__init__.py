"""From a checkpoint to a bundle: the step module, ONNX and TorchScript."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.export.bundle import export
    from difftool.export.extractor import export_extractor

__all__ = ["export", "export_extractor"]

_HOMES = {
    "export": "difftool.export.bundle",
    "export_extractor": "difftool.export.extractor",
}

__getattr__ = lazily(__name__, _HOMES)
