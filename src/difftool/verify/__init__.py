"""A way to run a bundle against another: row by row, over a whole run, and down to a node."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.verify.bisect import Culprit
    from difftool.verify.compared import verify, verify_sides
    from difftool.verify.eager import Eager
    from difftool.verify.frechet import Frechet
    from difftool.verify.report import Report
    from difftool.verify.sides import EXACT, TORCH, Side, device_beside, load_origin, open_sides
    from difftool.verify.taught import Taught

__all__ = [
    "EXACT",
    "TORCH",
    "Culprit",
    "Eager",
    "Frechet",
    "Report",
    "Side",
    "Taught",
    "device_beside",
    "load_origin",
    "open_sides",
    "verify",
    "verify_sides",
]

_HOMES = {
    "EXACT": "difftool.verify.sides",
    "TORCH": "difftool.verify.sides",
    "Culprit": "difftool.verify.bisect",
    "Eager": "difftool.verify.eager",
    "Frechet": "difftool.verify.frechet",
    "Report": "difftool.verify.report",
    "Side": "difftool.verify.sides",
    "Taught": "difftool.verify.taught",
    "device_beside": "difftool.verify.sides",
    "load_origin": "difftool.verify.sides",
    "open_sides": "difftool.verify.sides",
    "verify": "difftool.verify.compared",
    "verify_sides": "difftool.verify.compared",
}

__getattr__ = lazily(__name__, _HOMES)
