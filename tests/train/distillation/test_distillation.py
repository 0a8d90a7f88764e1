"""A distillation is a run: it resumes to the bit, and its bundle says what it came from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from difftool import checkpoint as ckpt
from difftool.diffusion.calls import SamplerCall
from difftool.errors import ArtefactError, UsageError
from difftool.export import export
from difftool.networks.trained import load_checkpoint
from difftool.train.config import apply_overrides
from difftool.train.data import load_data
from difftool.train.distillation.config import DistillConfig
from difftool.train.distillation.distillation import Distillation, load_teacher
from difftool.train.distillation.recipe import distill_config
from difftool.train.state import TrainState
from difftool.train.trainer import distill
from tests.fixtures import CLASSES_NETWORK, CLASSES_SPEC, IMAGE_NETWORK, IMAGE_SPEC, save_model
from tests.train.conftest import digests, records

SHORT = ["run.batch=8", "run.log_every=1", "run.checkpoint_every=2", "run.keep=9"]


class Crash(Exception):
    """Ends a run between two steps."""


def asked(teacher: Path, method: str, *overrides: str, **options: Any) -> DistillConfig:
    """Return six steps of two stages, for two evaluations."""
    data = options.pop("data", "digits")
    chosen = distill_config(teacher, data=data, method=method, steps=2, **options)
    return apply_overrides(chosen, [*SHORT, "run.steps=6", "student.stages=2", *overrides])


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], None]:
    """Set the step before which a run ends; None is never."""
    advance, at = TrainState.advance, {"step": None}

    def advancing(state: TrainState) -> tuple[torch.Tensor, torch.Tensor]:
        if state.step == at["step"]:
            raise Crash
        return advance(state)

    monkeypatch.setattr(TrainState, "advance", advancing)
    return lambda step: at.update(step=step)


@pytest.mark.parametrize("method", ["consistency", "progressive"])
def test_stopped_anywhere_and_resumed_is_bit_identical(
    method: str,
    points_checkpoint: Path,
    tmp_path: Path,
    crash_at: Callable[[int | None], None],
) -> None:
    config = asked(points_checkpoint, method, "student.steps=1", data="gaussians")
    often = apply_overrides(config, ["run.checkpoint_every=1"])
    distill(config, tmp_path / "whole")
    for stop in (3, 5):  # the second stage begins with step 3
        crash_at(stop)
        with pytest.raises(Crash):
            distill(often, tmp_path / f"{stop}")
        crash_at(None)
        distill(config, tmp_path / f"{stop}")
        assert digests(tmp_path / f"{stop}") == digests(tmp_path / "whole")
        assert records(tmp_path / f"{stop}") == records(tmp_path / "whole")


def test_a_stage_learns_from_the_student_of_the_one_before(
    points_checkpoint: Path, tmp_path: Path
) -> None:
    every = ("student.steps=1", "run.checkpoint_every=1")
    distill(asked(points_checkpoint, "progressive", *every, data="gaussians"), tmp_path)
    files = {path.name[-1]: path for path in ckpt.list_checkpoints(tmp_path)}

    def teacher(step: str) -> dict[str, torch.Tensor]:
        held = load_file(files[step] / ckpt.OPTIMIZER)
        return {name[8:]: value for name, value in held.items() if name.startswith("teacher.")}

    first = load_checkpoint(points_checkpoint).network.state_dict()
    average = load_file(files["3"] / ckpt.EMA)
    for step, wanted in {"1": first, "3": first, "4": average, "6": average}.items():
        assert teacher(step).keys() == wanted.keys()
        assert all(torch.equal(teacher(step)[name], value) for name, value in wanted.items())


def test_a_bundle_says_what_it_was_distilled_from(tiny_checkpoint: Path, tmp_path: Path) -> None:
    distill(asked(tiny_checkpoint, "consistency"), tmp_path / "run")
    bundle = export(tmp_path / "run", tmp_path / "bundle")
    found = bundle.manifest.distilled
    teacher = ckpt.read_config(ckpt.find_checkpoint(tiny_checkpoint))["files"][ckpt.EMA]
    assert found is not None
    assert found.teacher_sha256 == teacher["sha256"]
    assert (found.method, found.steps, found.levels) == ("consistency", 2, [19, 9])
    call = bundle.default_program().call
    assert (call.name, call.arguments["steps"]) == ("consistency", 2)


def test_other_bundles_keep_their_keys(tiny_bundle: Path) -> None:
    """An earlier version refuses keys that it does not know."""
    assert "distilled" not in json.loads((tiny_bundle / "bundle.json").read_text())


def test_a_student_starts_as_its_teacher(points_checkpoint: Path, tmp_path: Path) -> None:
    """At a learning rate of almost 0 nothing else happens."""
    config = asked(points_checkpoint, "consistency", "optimizer.lr=1e-30", data="gaussians")
    distill(config, tmp_path)
    before, after = (
        load_checkpoint(path).network.state_dict() for path in (points_checkpoint, tmp_path)
    )
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_guidance_is_baked_in(tmp_path: Path) -> None:
    """The student's first target is the guided teacher, in one evaluation of the student."""
    save_model(tmp_path / "teacher", CLASSES_SPEC, CLASSES_NETWORK, SamplerCall("ddpm"))
    teacher = load_checkpoint(tmp_path / "teacher")
    network = teacher.network
    x, level = torch.randn(2, 1, 8, 8, generator=torch.manual_seed(0)), 9
    alpha, sigma = (float(value) for value in CLASSES_SPEC.schedule.at(level))

    def denoised(label: int) -> torch.Tensor:
        cond = torch.full((2,), float(level))
        epsilon = network(x, network.condition(cond, torch.full((2,), label)))
        return (x - sigma * epsilon) / alpha

    for scale in (1.0, 3.0):
        config = asked(tmp_path / "teacher", "consistency", guidance_scale=scale)
        distillation = Distillation(config, teacher, torch.device("cpu"))
        found = distillation.taught(torch.tensor([1, 1]))(
            x, distillation.level(torch.tensor([level, level]), 4)
        )
        wanted = denoised(3) + scale * (denoised(1) - denoised(3))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_labels_of_a_student_are_its_teachers(tmp_path: Path) -> None:
    """A run with ten labels, of which some are withheld."""
    ten = {**CLASSES_NETWORK.arguments, "classes": 10}
    save_model(
        tmp_path / "teacher",
        replace(CLASSES_SPEC, classes=10),
        replace(CLASSES_NETWORK, arguments=ten),
        SamplerCall("ddpm"),
    )
    config = asked(tmp_path / "teacher", "consistency", guidance_scale=2.0)
    assert (config.data.labels, config.student.label_dropout) == ("label", 0.1)
    made = distill(config, tmp_path / "run")
    assert load_checkpoint(made.path).spec.classes == 10


def test_a_learned_variance_is_left_alone(tmp_path: Path) -> None:
    wide = {**IMAGE_NETWORK.arguments, "out_channels": 2}
    spec = replace(IMAGE_SPEC, learned_variance=True)
    network = replace(IMAGE_NETWORK, arguments=wide)
    save_model(tmp_path / "teacher", spec, network, SamplerCall("ddpm", {"variance": "learned"}))
    made = distill(asked(tmp_path / "teacher", "consistency"), tmp_path / "run")
    assert load_checkpoint(made.path).spec.learned_variance


def test_another_teacher_or_setting_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "other", IMAGE_SPEC, IMAGE_NETWORK, SamplerCall("ddpm"), seed=5)
    config = asked(tiny_checkpoint, "consistency")
    distill(config, tmp_path / "run")
    before = digests(tmp_path / "run")
    for override, message in (
        (f"teacher={tmp_path / 'other'}", "distilled from another teacher"),
        (
            "student.method=consistency_tuning",
            r"student\.method consistency, not consistency_tuning",
        ),
        ("run.steps=12", r"run\.steps \d+, not 12"),
    ):
        with pytest.raises(UsageError, match=message):
            distill(apply_overrides(config, [override]), tmp_path / "run")
    with pytest.raises(UsageError, match="already holds a run"):
        distill(config, tmp_path / "run", resume=False)
    assert digests(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=moons"], r"samples of shape \(2,\)"),
        (["data.labels=label"], "10 classes, the teacher 0"),
        (["student.guidance_scale=2"], "never learned the null label"),
        (["student.label_dropout=0.5"], "never learned the null label"),
        (["student.parameterization=w"], "unknown parameterization 'w'"),
        (["student.steps=21"], "21 steps on a schedule of 20"),
        (["student.method=progressive", "student.stages=4"], "4 stages that end with 2 steps"),
        (["optimizer.accumulate=3"], "does not split"),
        (["teacher=nowhere"], "not a checkpoint"),
        (["run.sample_every=0"], "greater than or equal to 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused_before_a_step(
    overrides: list[str], message: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises((UsageError, ArtefactError), match=message):
        distill(apply_overrides(asked(tiny_checkpoint, "consistency"), overrides), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_is_the_same_for_any_split(tiny_checkpoint: Path) -> None:
    """Each slot's loss depends on its slot alone, so processes may share a batch."""
    config = asked(tiny_checkpoint, "consistency", "run.batch=4")
    data = load_data(config.data, 0)
    state = TrainState(config, data, load_teacher(config, data))
    x0, labels = data.batch(state.spec, 0, 3, 4, np.arange(4))
    whole = state.objective(state.model, x0, labels, 3, np.arange(4))
    parts = [state.objective(state.model, x0[k:][:1], None, 3, np.array([k])) for k in range(4)]
    torch.testing.assert_close(torch.cat(parts), whole)
