"""difftool distill: the configuration that flags make, and a student from import to samples."""

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difftool import load, samplers
from difftool.diffusion import SamplerCall
from difftool.train.config import parse_as
from difftool.train.distillation.config import DistillConfig
from difftool.train.presets import distill_preset
from tests.cli.conftest import Command, Refusal
from tests.fixtures import CLASSES_NETWORK, CLASSES_SPEC, save_model

QUICK = ("--batch", 2, "--set", "student.stages=2", "--set", "run.channels_last=false")


def configured(done_out: str) -> DistillConfig:
    return parse_as(DistillConfig, tomllib.loads(done_out))


def test_flags_say_what_toml_says(difftool: Command, tiny_checkpoint: Path) -> None:
    line = ("distill", tiny_checkpoint, "--data", "digits", "--method", "progressive")
    counts = ("--steps", 2, "--train-steps", 77, "--batch", 12, "--seed", 5)
    done = difftool(*line, *counts, "--set", "optimizer.lr=2e-5", "--print-config")
    assert (done.code, done.err) == (0, "")
    found = configured(done.out)
    assert (found.teacher, found.data.source) == (str(tiny_checkpoint), "digits")
    assert (found.student.method, found.student.steps) == ("progressive", 2)
    assert (found.run.steps, found.run.batch, found.run.seed) == (77, 12, 5)
    assert found.optimizer.lr == 2e-5


def test_a_printed_configuration_reads_back(
    difftool: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    preset = distill_preset("ddpm-mnist-fast")
    line = ("distill", preset.teacher, "--print-config")
    printed = difftool(*line, "--preset", "ddpm-mnist-fast").out
    assert configured(printed) == preset
    (tmp_path / "printed.toml").write_text(printed)
    assert difftool(*line, "--config", "printed.toml").out == printed
    other = difftool("distill", tiny_checkpoint, "--config", "printed.toml", "--print-config")
    assert configured(other.out) == preset.model_copy(update={"teacher": str(tiny_checkpoint)})
    as_json = difftool(*line, "--config", "printed.toml", "--json").out
    assert parse_as(DistillConfig, json.loads(as_json)) == preset


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--data", "moons"), "samples of shape (2,)"),
        ((), "does not say which data"),
        (("--data", "digits", "--steps", 21), "21 steps"),
        (("--data", "digits", "--steps", 0), "student.steps"),
        (("--data", "digits", "--guidance-scale", 2), "never learned the null label"),
        (
            ("--data", "digits", "--guidance-scale", 2, "--method", "consistency_tuning"),
            "guidance_scale with the method consistency_tuning",
        ),
        (("--data", "digits", "--method", "progressive", "--steps", 16), "1 stages"),
        (("--preset", "ddpm-mnist-fast", "--config", "x"), "both given"),
        (("--preset", "ddpm"), "unknown preset 'ddpm'"),
        (("--data", "digits", "--set", "student.speed=1"), "student.speed"),
        (("--data", "digits", "--train-steps", 0), "run.steps"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_wrong_line_is_refused_in_one_line(
    line: tuple[object, ...], message: str, difftool: Command, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    done = difftool("distill", tiny_checkpoint, "--out", "run", *line)
    error, hint = [said for said in done.err.splitlines() if not said.startswith("distilling ")]
    assert (done.code, error[:7], hint[:6]) == (2, "error: ", "hint: ")
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_distillation_is_resumed_by_its_folder_alone(
    difftool: Command, points_checkpoint: Path, tmp_path: Path
) -> None:
    line = ("distill", points_checkpoint, "--data", "gaussians", "--set", "student.stages=1")
    done = difftool(*line, "--train-steps", 2, "--batch", 4, "--out", "run", "--json")
    assert done.code == 0, done.err
    shutil.rmtree(tmp_path / "run/checkpoints")  # it ended before the first one
    assert difftool("distill", "--resume", "run", "--json").code == 0
    again = difftool("distill", "--resume", "run")
    assert again.out == "all 2 steps were done before -> run\n"
    difftool("train", "--resume", "run").refused(
        2, "run is a distillation", "difftool distill --resume run"
    )
    difftool("distill").refused(2, "CHECKPOINT is missing", "--resume")


def test_what_is_no_checkpoint_is_refused(refuses: Refusal, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in ("nowhere", "folder"):
        refuses(("distill", path, "--data", "digits"), 3, "not a checkpoint")


def test_a_golden_checkpoint_becomes_fast(shared: Path, difftool: Command, tmp_path: Path) -> None:
    """An NCSN, from the authors' own file to two steps."""
    (tmp_path / "images").mkdir()
    for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (4, 28, 28))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"images/{index}.png")
    golden = shared / "golden/ncsn_v1_mnist28"
    assert difftool("import", golden, "--out", "teacher", "--json").code == 0
    fast(difftool, "teacher", "images")


def test_a_diffusers_folder_becomes_fast(difftool: Command, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    from tests.oracles.diffusers_models import SMALL

    torch.manual_seed(0)
    sizes = {"sample_size": 8, "in_channels": 1, "out_channels": 1}
    unet = diffusers.UNet2DModel(**(SMALL | sizes))
    scheduler = diffusers.DDPMScheduler()
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    assert difftool("import", "pipeline", "--out", "teacher", "--json").code == 0
    fast(difftool, "teacher", "digits")


def fast(difftool: Command, teacher: str, data: object) -> None:
    """Distill a teacher for two steps, and take it all the way to samples."""
    line = ("distill", teacher, "--data", data, "--out", "run", *QUICK, "--json")
    made = difftool(*line, "--steps", 2, "--train-steps", 2)
    assert made.code == 0, made.err
    assert json.loads(made.out)["step"] == 2
    assert difftool("export", "run", "--out", "b", "--json").code == 0
    record = difftool("inspect", "b", "--json").json()
    assert record["distilled"]["method"] == "consistency"
    assert record["program"].startswith("consistency(steps=2")
    verified = difftool("verify", "b", "run", "-n", 1, "--json")
    assert verified.code == 0, verified.out
    sampled = difftool(
        *("sample", "b", "--sampler", "consistency", "--steps", 2, "-n", 2),
        *("--out", "x.npy", "--json"),
    )
    assert sampled.code == 0, sampled.err


def test_a_student_is_compared_with_its_teacher(
    difftool: Command, refuses: Refusal, tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    line = ("distill", tiny_checkpoint, "--data", "digits", "--out", "run", *QUICK, "--json")
    assert difftool(*line, "--steps", 2, "--train-steps", 1).code == 0
    assert difftool("export", "run", "--out", "b", "--json").code == 0
    compared = ("verify", "b", "run", "--backend", "onnxruntime-cpu", "--seed", 3)
    found = difftool(*compared, "-n", 2, "--teacher", tiny_bundle, "--json").json()
    student, teacher = load("b", backend="onnxruntime-cpu"), load(tiny_bundle)
    steps = min(100, len(teacher.spec.schedule))
    wanted = teacher.sample(
        samplers.ddim(teacher.spec, steps=steps, spacing="trailing"), n=2, seed=3
    )
    for count, psnr in found["teacher"]["psnr_db"].items():
        program = samplers.consistency(student.spec, steps=int(count))
        error = (student.sample(program, n=2, seed=3).astype(float) - wanted) / 2
        assert psnr == pytest.approx(-10 * np.log10((error**2).mean()), abs=0.01)
    assert list(found["teacher"]["psnr_db"]) == ["1", "2", "4"]
    refuses((*compared, "--teacher", "b"), 2, "was distilled from the weights")
    refuses(
        ("verify", tiny_bundle, "--teacher", tiny_bundle, "--against", "numpy"),
        2,
        "was not distilled",
    )


def test_a_guided_student_is_compared_with_its_guided_teacher(
    difftool: Command, refuses: Refusal, tmp_path: Path
) -> None:
    ten = replace(CLASSES_NETWORK, arguments={**CLASSES_NETWORK.arguments, "classes": 10})
    save_model(tmp_path / "teacher", replace(CLASSES_SPEC, classes=10), ten, SamplerCall("ddpm"))
    line = ("distill", "teacher", "--data", "digits", "--guidance-scale", 2, "--out", "run", *QUICK)
    assert difftool(*line, "--steps", 2, "--train-steps", 1, "--quiet").code == 0
    for made in (("run", "student"), ("teacher", "plain"), ("teacher", "guided")):
        features = ("--with", "guidance") if made[1] == "guided" else ()
        assert difftool("export", made[0], *features, "--out", made[1], "--quiet").code == 0
    compared = ("verify", "student", "run", "--backend", "onnxruntime-cpu", "-n", 2, "--teacher")
    refuses((*compared, "plain"), 2, "student was distilled with guidance, and plain has none")
    found = difftool(*compared, "guided", "--json").json()["teacher"]["psnr_db"]
    student, teacher = load("student", backend="onnxruntime-cpu"), load("guided")
    wanted, unguided = (
        teacher.sample(
            samplers.ddim(teacher.spec, steps=len(teacher.spec.schedule), spacing="trailing"),
            n=2,
            labels=[0, 1],
            guidance_scale=scale,
        )
        for scale in (2, 1)
    )
    drawn = student.sample(samplers.consistency(student.spec, steps=1), n=2, labels=[0, 1])
    errors = [((drawn.astype(float) - each) ** 2).mean() / 4 for each in (wanted, unguided)]
    assert found["1"] == pytest.approx(-10 * np.log10(errors[0]), abs=0.01)
    assert abs(errors[0] - errors[1]) > 0.01 * errors[0], "guidance shows"
