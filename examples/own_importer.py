"""An importer of your own: a file of your training code becomes a checkpoint, and then a bundle.

python examples/own_importer.py FOLDER

A format says how its files are recognized and read. Nothing in a file is run, the tensors must fit
the network, and one batch goes through it before anything is written. If many people have such
files, add the format to difftool: CONTRIBUTING.md says how.
"""

import sys
from pathlib import Path

import torch
from torch import nn

import difftool
from difftool.diffusion import ModelSpec, NetworkCall, SamplerCall, schedules
from difftool.importers import Format, Imported, Setting, Settings, Source

LEVELS = Setting("noise_levels", int, default=10)


def recognizes(source: Source) -> bool:
    """Look at the structure alone: a mapping with the key that this training code writes."""
    return isinstance(source.content, dict) and "score_net" in source.content


def read(source: Source, settings: Settings) -> Imported:
    """Say which model the tensors are of, and call them as difftool's network does."""
    chosen = settings.choose(LEVELS)
    weights = source.content["score_net"]
    hidden, dimensions = weights["0.weight"].shape
    names = {"0": "hidden.0", "2": "hidden.1", "4": "out"}
    return Imported(
        spec=ModelSpec(
            shape=(dimensions,),
            schedule=schedules.geometric(levels=chosen[LEVELS], sigma_max=1.0, sigma_min=0.01),
            parameterization="score",
            cond="level",
        ),
        network=NetworkCall("mlp", {"dimensions": dimensions, "hidden": hidden}),
        tensors={f"{names[key[0]]}{key[1:]}": value for key, value in weights.items()},
        sampler=SamplerCall("annealed_langevin", {"steps": 20}),
        weights="raw",
        chosen=chosen,
        files=source.files,
    )


OURS = Format("our own training code", "a mapping with score_net", recognizes, read)


def main(folder: Path) -> difftool.Bundle:
    """Write a file as that code would, import it, and export the checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "weights.pt"
    network = nn.Sequential(
        nn.Linear(2, 32), nn.Softplus(), nn.Linear(32, 32), nn.Softplus(), nn.Linear(32, 2)
    )
    torch.save({"score_net": network.state_dict()}, file)
    made = difftool.importers.import_checkpoint(file, folder / "checkpoint", format=OURS)
    print(f"{made.parameters} parameters, of {made.source['from']}")
    return difftool.export.export(folder / "checkpoint", folder / "own.bundle")


if __name__ == "__main__":
    bundle = main(Path(sys.argv[1] if len(sys.argv) > 1 else "own"))
    print(difftool.load(bundle.path).sample(n=4, seed=0))
