"""Files that an earlier difftool wrote still open, and give the samples that they gave then.

They are in tests/kept, of November 2026: a model of points in the plane with two classes, whose
step graph has all features; its program of another sampler, and four samples of that.
"""

from pathlib import Path

import numpy as np

import difftool
from difftool import Program
from difftool.networks.trained import load_checkpoint
from difftool.verify import verify

KEPT = Path(__file__).parent / "kept"


def test_a_bundle_and_a_program_give_their_samples() -> None:
    model = difftool.load(KEPT / "bundle", threads=1)
    program = Program.load(KEPT / "program.json")
    assert program.name == difftool.samplers.heun(model.spec, steps=7).name
    samples = model.sample(program, n=4, seed=5, labels=np.arange(4) % model.spec.classes)
    np.testing.assert_allclose(samples, np.load(KEPT / "samples.npy"), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_is_that_of_its_bundle() -> None:
    checkpoint = load_checkpoint(KEPT / "checkpoint")
    bundle = difftool.load(KEPT / "bundle").bundle
    assert checkpoint.spec.to_dict() == bundle.spec.to_dict()
    assert (checkpoint.weights, checkpoint.step) == ("ema", 20)
    program = difftool.samplers.ddim(bundle.spec, steps=5)
    assert verify(KEPT / "bundle", KEPT / "checkpoint", program=program).passed


def test_what_is_written_today_has_the_same_keys(tmp_path: Path) -> None:
    program = Program.load(KEPT / "program.json")
    program.save(tmp_path / "program.json")
    assert (tmp_path / "program.json").read_bytes() == (KEPT / "program.json").read_bytes()
