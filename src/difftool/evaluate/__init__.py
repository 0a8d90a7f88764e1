"""Judge samples by distances between sets of them, without PyTorch."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.evaluate.comparison import ImageFigures, PointFigures
    from difftool.evaluate.evaluation import Evaluation, Evaluator, evaluate
    from difftool.evaluate.extractor import open_extractor, shipped_extractors
    from difftool.evaluate.measuring import candidates, keep_measured, measure
    from difftool.evaluate.sets import Samples, read_data
    from difftool.evaluate.views import Extractor, View

__all__ = [
    "Evaluation",
    "Evaluator",
    "Extractor",
    "ImageFigures",
    "PointFigures",
    "Samples",
    "View",
    "candidates",
    "evaluate",
    "keep_measured",
    "measure",
    "open_extractor",
    "read_data",
    "shipped_extractors",
]

_HOMES = {
    "Evaluation": "difftool.evaluate.evaluation",
    "Evaluator": "difftool.evaluate.evaluation",
    "Extractor": "difftool.evaluate.views",
    "ImageFigures": "difftool.evaluate.comparison",
    "PointFigures": "difftool.evaluate.comparison",
    "Samples": "difftool.evaluate.sets",
    "candidates": "difftool.evaluate.measuring",
    "View": "difftool.evaluate.views",
    "evaluate": "difftool.evaluate.evaluation",
    "keep_measured": "difftool.evaluate.measuring",
    "measure": "difftool.evaluate.measuring",
    "open_extractor": "difftool.evaluate.extractor",
    "read_data": "difftool.evaluate.sets",
    "shipped_extractors": "difftool.evaluate.extractor",
}

__getattr__ = lazily(__name__, _HOMES)
