"""From a configuration to samples in ten lines: train, export, verify, sample, evaluate.

python examples/train_export_sample.py FOLDER
"""

import sys
from pathlib import Path

import difftool


def main(folder: Path) -> difftool.evaluate.Evaluation:
    """Learn the score of points in the plane, and draw new ones without PyTorch."""
    config = difftool.train.apply_overrides(difftool.train.preset("toy"), ["run.steps=300"])
    run = difftool.train.train(config, folder / "run")
    bundle = difftool.export.export(run.checkpoint, folder / "toy.bundle")
    report = difftool.verify.verify(bundle, run.checkpoint)
    assert report.passed, report.to_dict()
    model = difftool.load(bundle.path)
    points = model.sample(n=500, seed=0)  # float32 [500, 2]
    return difftool.evaluate.evaluate(points, against=config.data.source)


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if len(sys.argv) > 1 else "toy")))
