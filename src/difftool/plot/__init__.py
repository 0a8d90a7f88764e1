"""Pictures of models, programs and trainings. matplotlib is imported when one is drawn."""

from difftool.plot import plane, style, trajectory
from difftool.plot.field import score
from difftool.plot.program import draw_program
from difftool.plot.schedule import draw_schedule
from difftool.plot.scores import draw_scores
from difftool.plot.style import FORMATS, encode
from difftool.plot.training import draw_training
from difftool.plot.trajectory import draw_trajectory
from difftool.plot.verification import draw_verification

__all__ = [
    "FORMATS",
    "draw_program",
    "draw_schedule",
    "draw_scores",
    "draw_training",
    "draw_trajectory",
    "draw_verification",
    "encode",
    "plane",
    "score",
    "style",
    "trajectory",
]
