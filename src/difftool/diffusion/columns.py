"""The layout of a program's table."""

from enum import IntEnum
from typing import Final

import numpy as np

UNBOUNDED: Final = float(np.finfo(np.float32).max)  # a clip bound that never binds


class Column(IntEnum):
    """The column of each of a row's numbers; the history weights c[k] follow from `HISTORY` on.

    COND and NULL_COND point into the distinct `conds`, and so into the conditioner's output.
    """

    COND = 0
    C_IN = 1
    C_SKIP = 2
    C_OUT = 3
    CLIP_LOW = 4
    CLIP_HIGH = 5
    A = 6
    B = 7
    G = 8
    D = 9
    E = 10
    F = 11
    LOGVAR_MIN = 12
    LOGVAR_MAX = 13
    SNR = 14
    BATCH_SNR = 15
    NULL_COND = 16
    GUIDANCE = 17
    HISTORY = 18
