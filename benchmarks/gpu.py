"""Measure a GPU in stages of minutes, which merge into one page; a network is not needed there.

A stage uses what is installed, and what is missing is a row that says so. `run` exits with 4 if
there is no GPU.

    python benchmarks/gpu.py pack --out pack --piece 45M      # wheels, models, source, unpack.sh
    python benchmarks/gpu.py run peers --out runs/gpu         # a stage, several, or all of them
    python benchmarks/gpu.py merge --work runs/gpu --out benchmarks/results
    python benchmarks/gpu.py run --dry-run --out runs/dry     # on the CPU, and no real times
"""

import sys

from gpu.main import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
