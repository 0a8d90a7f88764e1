"""All that benchmarks use of the trainer's inside; it needs all libraries of `difftool[train]`."""

# ruff: noqa: F401
from difftool.networks.classifier import FEATURES, Classifier
from difftool.train.data import Data
from difftool.train.extractor import fit
from difftool.train.state import TrainState
from difftool.train.trainer import Window
