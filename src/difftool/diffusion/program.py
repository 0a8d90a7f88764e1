"""The step program: a sampler compiled, in float64, to a table that every backend runs row by row.

One row is one network evaluation, with x = alpha * x0 + sigma * noise throughout:

    F  = network(c_in * x, cond)
    D  = clip(c_skip * x + c_out * F, clip_low, clip_high)
    x' = a * x + b * D + g * F + sum_k c[k] * H[k] + d * s * z        z ~ N(0, I)
    H' = [e * x + f * D, H[0], H[1], ...]

s is 1, except for a network with learned variance. Half of that network's channels are v, and
s = exp((frac * logvar_max + (1 - frac) * logvar_min) / 2) with frac = (v + 1) / 2.

A row can use three features, if the step graph was exported with them:

- "norms": if snr or batch_snr is not 0, the row is a step of adaptive size. With the drift
  u = a * x + b * D + g * F + sum_k c[k] * H[k] - x and the noise w = d * s * z it is
  x' = x + r^2 * u + r * w. Here r is snr * |w| / |u| with the norms of each sample, or
  batch_snr * mean |w| / mean |u| with their means over the batch.
- "guidance": F = F_null + guidance * (F - F_null), and F_null is the network under null_cond
  (Ho and Salimans 2021, eq. 6, with guidance = 1 + w). v is not guided.
- "known": before x' is computed, given values replace D in all elements with a mask of 1.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.columns import Column
from difftool.diffusion.printing import program_text
from difftool.diffusion.start import Start, parse_start
from difftool.errors import ArtefactError, UsageError
from difftool.files import read_json, write_json

Array = NDArray[np.float64]

FORMAT: Final = 1
MAX_ROWS: Final = 100_000
_PROGRAM_LIMIT: Final = 256 << 20  # bytes of a program file
_COLUMNS: Final = [column.name.lower() for column in Column if column < Column.HISTORY]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Program:
    """A compiled sampler: plain data to print, compare, save and run.

    - `call`: the sampler and arguments that the table was compiled from
    - `table`: float64 [R, Column.HISTORY + K], one row a network evaluation; K >= 1 history slots
    - `conds`: float64 [U], the conditioner's distinct inputs; column COND points into it
    - `draws`: int64 [R], the draw of each row; the start noise is draw 0
    - `targets`: float64 [R + 1, 2], the (alpha, sigma) of x before each row and after the last
    - `start`: the distribution of x before the first row
    - `exact_noise`: True if sigma must meet `targets` as well, given a perfect denoiser. Langevin
      dynamics and DDPM's large variance do not meet it, by construction.
    """

    call: SamplerCall
    table: Array
    conds: Array
    draws: NDArray[np.int64]
    targets: Array
    start: Start
    exact_noise: bool = True

    def __post_init__(self) -> None:
        rows, columns = self.table.shape if self.table.ndim == 2 else (0, 0)
        if not 1 <= rows <= MAX_ROWS:
            raise UsageError(f"a program of {rows} rows", f"a program has 1 to {MAX_ROWS} rows")
        if columns <= Column.HISTORY:
            raise UsageError(
                f"a program table of {columns} columns", f"give at least {Column.HISTORY + 1}"
            )
        if self.draws.shape != (rows,) or self.targets.shape != (rows + 1, 2):
            raise UsageError(
                "draws or targets do not fit the table",
                "give one draw for each row, and one target more than rows",
            )
        cond = self.table[:, [Column.COND, Column.NULL_COND]]
        if (cond < 0).any() or (cond >= len(self.conds)).any() or (cond % 1 != 0).any():
            raise UsageError(
                "column COND or NULL_COND points outside `conds`", "compile the program again"
            )
        largest = np.finfo(np.float32).max  # step graphs compute in float32
        # Not "any larger": that would let NaN pass, which is neither larger nor smaller.
        if not all((np.abs(numbers) <= largest).all() for numbers in (self.table, self.conds)):
            raise UsageError(
                "a program holds a number that float32 cannot", "give its sampler smaller ones"
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def adaptive(self) -> bool:
        """Tell if a row's step size adapts to norms; the step graph must then compute them."""
        return bool(self.table[:, [Column.SNR, Column.BATCH_SNR]].any())

    @property
    def coupled(self) -> bool:
        """Tell if a batch shares a row's step size, so that samples depend on each other."""
        return bool(self.table[:, Column.BATCH_SNR].any())

    @property
    def nfe(self) -> int:
        """Return the number of network evaluations, one for each row."""
        return len(self.table)

    @property
    def history(self) -> int:
        """Return the number of history slots K."""
        return int(self.table.shape[1]) - Column.HISTORY

    @property
    def name(self) -> str:
        """Return the call that compiles this program, e.g. `ddim(steps=50, eta=0.0)`."""
        return str(self.call)

    def __repr__(self) -> str:
        return f"<Program {self.name}: {self.nfe} evaluations from {self.start}>"

    def __str__(self) -> str:
        title = f"{self.name}: {self.nfe} evaluations from {self.start}"
        return program_text(title, self.table, self.conds, self.targets)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with every bit kept; `save` writes it."""
        return {
            "format": FORMAT,
            **self.call.to_dict(),
            "columns": _COLUMNS,
            "start": str(self.start),
            "exact_noise": self.exact_noise,
            "conds": self.conds.tolist(),
            "draws": self.draws.tolist(),
            "targets": self.targets.tolist(),
            "table": self.table.tolist(),
        }

    def save(self, path: Path | str) -> None:
        """Write the program as JSON."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> "Program":
        """Read a program that `save` wrote; ArtefactError if the file is anything else."""
        value = read_json(path, limit=_PROGRAM_LIMIT)
        if not isinstance(value, dict) or not isinstance(value.get("format"), int):
            raise ArtefactError(
                f"{path} is not a difftool program", "write one with: difftool program"
            )
        if value["format"] > FORMAT:
            raise ArtefactError(f"{path} has program format {value['format']}", "upgrade difftool")
        if value.get("columns") != _COLUMNS:
            raise ArtefactError(f"{path} has other columns than this difftool", "compile it again")
        try:
            return cls(
                call=SamplerCall.from_dict(value),
                table=np.array(value["table"], np.float64),
                conds=np.array(value["conds"], np.float64),
                draws=np.array(value["draws"], np.int64),
                targets=np.array(value["targets"], np.float64),
                start=parse_start(str(value["start"])),
                exact_noise=bool(value["exact_noise"]),
            )
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise ArtefactError(
                f"{path} is not a whole program: {error}", "compile it again"
            ) from error
