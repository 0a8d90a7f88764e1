"""Measure a sampling step on a GPU, here and in all else that runs the same network there.

First every backend must land where PyTorch lands in float32; then all take turns. A library that is
missing, and what there was no time for, is a row that says so. Exits 4 if there is no GPU.

    python benchmarks/gpu.py --out benchmarks/results
    python benchmarks/gpu.py --only cifar10 --batch 1 --minutes 4
    python benchmarks/gpu.py --dry-run      # the same on the CPU: a tiny model, and no real times
"""

import sys

from gpu.main import main

if __name__ == "__main__":
    sys.exit(main(__doc__))
