"""difftool sample: what the files hold, and that they repeat and appear whole or not at all."""

import hashlib
import json
import os
import pty
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from difftool.cli.options import Format
from difftool.cli.output import choose_scale
from difftool.errors import UsageError
from difftool.files import file_sha256
from difftool.runtime import load, open_bundle, to_uint8
from difftool.runtime.backends.table import BACKENDS
from difftool.runtime.cuda import cuda_device
from difftool.runtime.images import grid
from tests.cli.conftest import Command, command
from tests.runtime.test_backends_gpu import cuda_runtime, half_bundle  # noqa: F401


def enlarged(pixels: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Draw each pixel as a square."""
    return np.kron(pixels, np.ones((scale, scale, 1), np.uint8))


def test_png_is_the_grid_of_samples(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    done = difftool("sample", tiny_bundle, "-n", 5, "--seed", 3, "--out", "grid.png")
    assert (done.code, done.err) == (0, "")
    model = load(tiny_bundle)
    pixels = to_uint8(model.sample(n=5, seed=3), model.spec)  # 8 x 8
    expected = grid(np.stack([enlarged(each, 14) for each in pixels]), padding=8)
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), expected[..., 0])


@pytest.mark.parametrize("format", ["png", "webp"])
def test_scale_1_leaves_pixels_as_they_are(
    format: str, difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("sample", tiny_bundle, "-n", 2, "--scale", 1, "--out", f"grid.{format}")
    done = difftool(*line)
    assert done.out.endswith(f"-> grid.{format} (22 x 12 pixels, scale 1)\n")
    model = load(tiny_bundle)
    expected = grid(to_uint8(model.sample(n=2), model.spec))
    with Image.open(tmp_path / f"grid.{format}") as picture:
        np.testing.assert_array_equal(np.asarray(picture.convert("L")), expected[..., 0])


def test_many_samples_are_enlarged_less() -> None:
    spec = replace(open_bundle("ddpm-mnist").spec, shape=(3, 32, 32))
    assert [choose_scale(None, Format.PNG, n, spec) for n in (1, 64, 400, 10_000)] == [4, 4, 3, 1]
    assert choose_scale(7, Format.PNG, 64, spec) == 7
    assert choose_scale(None, Format.PNG, 1, spec, each=True) == 1
    assert choose_scale(None, Format.NPY, 1, spec) == 1
    with pytest.raises(UsageError, match="17992 x 17992 pixels"):
        choose_scale(70, Format.PNG, 64, spec)
    with pytest.raises(UsageError, match="npz has no pixels"):
        choose_scale(2, Format.NPZ, 1, spec)


def test_a_sentence_says_what_was_done(difftool: Command, tiny_bundle: Path) -> None:
    line = ("sample", tiny_bundle, "-n", 1, "--out")
    done = difftool(*line, "a.npy")
    assert re.fullmatch(r"1 sample, 20 steps of ddpm, \d+\.\d s -> a\.npy\n", done.out)
    long = difftool(*line, "b.npy", "--verbose").out.splitlines()
    assert long[-1].endswith("s -> b.npy")
    assert {"sha256", "program", "backend"} <= {each.split()[0] for each in long}
    quiet = difftool(*line, "c.npy", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


def test_a_poor_program_is_said_and_drawn(difftool: Command, tiny_bundle: Path) -> None:
    line = ("sample", tiny_bundle, "--sampler", "ddim", "--steps", 2, "--force")
    done = difftool(*line, "--out", "a.npy")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: with so few steps, 2, each divides the noise by ")
    (said,) = difftool(*line, "--out", "a.npy", "--json").json()["warnings"]
    assert done.err == f"warning: {said}\n"
    assert difftool(*line, "--out", "a.npy", "--quiet").err == ""
    difftool(*line, "--out", "a.npy", "--labels", 1).refused(2, "no class labels")  # and no warning


def test_stdout(spawn: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("sample", tiny_bundle, "-n", 2, "--out")
    assert spawn(*line, "a.npy").code == 0
    done = subprocess.run(
        command([*line, "-", "--format", "npy", "--verbose"]), cwd=tmp_path, capture_output=True
    )
    assert (done.returncode, done.stdout) == (0, (tmp_path / "a.npy").read_bytes())
    assert b"-> stdout" in done.stderr
    assert b"sha256" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["a.npy"]


def test_stdout_holds_one_thing(difftool: Command, tiny_bundle: Path) -> None:
    line = ("sample", tiny_bundle, "--out", "-")
    done = difftool(*line, "--json")
    assert done.code == 2
    assert json.loads(done.out)["error"] == "--json and --out - both write to stdout"
    ours, theirs = pty.openpty()
    ended = subprocess.run(command(line), stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    os.close(ours)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: stdout is a terminal\nhint: ")


@pytest.mark.parametrize("format", ["png", "gif", "npy"])
def test_a_file_for_each_sample(
    format: str, difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("sample", tiny_bundle, "-n", 3, "--max-batch", 2, "--format", format)
    (tmp_path / "new").mkdir()  # one that is empty is used
    assert difftool(*line, "--out", "new/").out.endswith("-> new/\n")
    model = load(tiny_bundle)
    samples = model.sample(n=3)
    pixels = to_uint8(samples, model.spec)[..., 0]
    lines = (tmp_path / "new/metadata.jsonl").read_text().splitlines()
    index = [json.loads(each) for each in lines]
    assert [each["index"] for each in index] == [0, 1, 2]
    for number, each in enumerate(index):
        file = tmp_path / "new" / each["file_name"]
        assert each == {"file_name": file.name, "index": number, "sha256": file_sha256(file)}
        if format == "npy":
            np.testing.assert_allclose(np.load(file)[0], samples[number], atol=1e-5)
            continue
        with Image.open(file) as picture:
            assert getattr(picture, "n_frames", 1) == (20 if format == "gif" else 1)
            picture.seek(getattr(picture, "n_frames", 1) - 1)
            difference = np.asarray(picture.convert("L")).astype(int) - pixels[number]
            assert abs(difference).max() <= 1  # rounding, in batches of another size
    assert len(list((tmp_path / "new").iterdir())) == 4


def test_a_folder_of_samples_is_replaced_by_another(
    difftool: Command, tiny_bundle: Path, tmp_path: Path
) -> None:
    line = ("sample", tiny_bundle, "--out", "new/")
    assert difftool(*line, "-n", 3).code == 0
    difftool(*line, "-n", 1).refused(2, "new exists", "or --force")
    assert difftool(*line, "-n", 1, "--force").code == 0
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "00000.png",
        "metadata.jsonl",
    ]
    (tmp_path / "new" / "mine.txt").write_text("dear")
    difftool(*line, "-n", 1, "--force").refused(2, "new also holds mine.txt")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "file").write_text("dear")
    line = ("sample", tiny_bundle, "--out", "theirs/", "--force")
    difftool(*line).refused(2, "theirs is no folder of samples")
    (tmp_path / "theirs" / "metadata.jsonl").write_text("[1]\n")
    difftool(*line).refused(2, "is no index of samples")
    assert len(list((tmp_path / "theirs").iterdir())) == 2


def test_parquet_is_a_shard(difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    line = ("sample", points_bundle, "-n", 4, "--out")
    assert difftool(*line, "points.parquet").code == 0
    table = parquet.read_table(tmp_path / "points.parquet").to_pydict()
    samples = load(points_bundle).sample(n=4)
    np.testing.assert_array_equal(np.array(table["sample"], np.float32), samples)
    assert table["index"] == [0, 1, 2, 3]
    assert table["sha256"] == [hashlib.sha256(each.tobytes()).hexdigest() for each in samples]
    difftool(*line, "new/", "--format", "parquet").refused(2, "a Parquet file holds all samples")


def test_npz_of_images(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    difftool("sample", tiny_bundle, "-n", 3, "--steps", 10, "--out", "new/samples.npz")
    with np.load(tmp_path / "new/samples.npz") as file:
        samples, images = file["samples"], file["images"]
        assert sorted(file) == ["images", "samples"]
    assert (samples.dtype, samples.shape) == (np.float32, (3, 1, 8, 8))
    assert (images.dtype, images.shape) == (np.uint8, (3, 8, 8, 1))
    np.testing.assert_array_equal(images, to_uint8(samples, load(tiny_bundle).spec))


def test_npz_and_npy_of_points(difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    assert difftool("sample", points_bundle, "-n", 7).code == 0  # writes samples.npz
    difftool("sample", points_bundle, "-n", 7, "--format", "npy", "--out", "points.dat")
    with np.load(tmp_path / "samples.npz") as file:
        assert list(file) == ["samples"]
        samples = file["samples"]
    assert (samples.dtype, samples.shape) == (np.float32, (7, 2))
    np.testing.assert_array_equal(np.load(tmp_path / "points.dat"), samples)


def test_gif_ends_in_the_samples(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("sample", tiny_bundle, "-n", 5, "--max-batch", 2, "--out")
    difftool(*line, "film.gif")
    difftool(*line, "grid.png")
    with Image.open(tmp_path / "film.gif") as film, Image.open(tmp_path / "grid.png") as picture:
        durations = []
        for frame in range(film.n_frames):
            film.seek(frame)
            durations.append(film.info["duration"])
        assert film.n_frames == 20  # the program's steps; at most 50
        assert durations[-1] > 10 * durations[0]
        np.testing.assert_array_equal(np.asarray(film.convert("L")), np.asarray(picture))


def test_gif_has_at_most_50_frames(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    walk = ("--sampler", "langevin", "--steps", 120, "--arg", "step_size=0.02")
    assert difftool("sample", tiny_bundle, "-n", 2, *walk, "--out", "film.gif").code == 0
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 50


@pytest.mark.parametrize("format", ["png", "npy", "npz", "gif"])
def test_a_line_repeats(format: str, difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("sample", tiny_bundle, "--steps", 20, "-n", 16, "--seed", 0)
    assert difftool(*line, "--out", f"a.{format}").code == 0
    assert difftool(*line, "--out", f"b.{format}").code == 0
    assert difftool(*line, "--out", f"c.{format}", "--seed", 1).code == 0
    a, b, c = (file_sha256(tmp_path / f"{name}.{format}") for name in "abc")
    assert a == b != c


def test_equal_samples_of_any_number(difftool: Command, tiny_bundle: Path) -> None:
    for n in (4, 16):
        line = ("sample", tiny_bundle, "-n", n, "--deterministic", "--max-batch", 8)
        assert difftool(*line, "--out", f"{n}.npy").code == 0
    assert np.load("4.npy").tobytes() == np.load("16.npy")[:4].tobytes()


def test_force_replaces_a_file(difftool: Command, points_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text("mine")
    assert difftool("sample", points_bundle, "--out", "a.npy", "--force").code == 0
    assert np.load(tmp_path / "a.npy").shape == (16, 2)


def test_json_is_alone_on_stdout(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ("--sampler", "ddim", "--steps", 4, "--eta", 0.5, "--arg", "clip=false")
    value = difftool("sample", tiny_bundle, *line, "--max-batch", 5, "--json").json()
    assert value["program"] == "ddim(steps=4, eta=0.5, clip=False, raw_epsilon=False)"
    assert value["out"] == "samples.png"
    assert value["sha256"] == file_sha256(tmp_path / "samples.png")
    assert value["steps_per_second"] * value["seconds"] == pytest.approx(4 * 4)  # 16 = 3 * 5 + 1


@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_a_terminal_sees_progress(
    json_option: tuple[str, ...], points_bundle: Path, tmp_path: Path
) -> None:
    line = ["sample", points_bundle, "--max-batch", 4, "-n", 10, "--out", "a.npy", *json_option]
    ours, theirs = pty.openpty()
    done = subprocess.run(
        command(line), cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    if json_option:
        assert shown == b""
    else:
        assert b"153/153" in shown  # 3 batches of 51 steps
        assert b"steps/s" in shown


def test_the_default_model_is_shipped(difftool: Command, tmp_path: Path) -> None:
    done = difftool("sample", "--steps", 5, "-n", 2, "--seed", 0, "--out", "grid.png")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size == (4 * (2 * 30 + 2), 4 * (30 + 2))


@pytest.mark.parametrize("name", [row.name for row in BACKENDS if row.gpu or row.untried])
def test_a_backend_that_cannot_run(
    difftool: Command, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    monkeypatch.setenv("DIFFTOOL_CACHE", str(tmp_path / "cache"))
    done = difftool("sample", tiny_bundle, "--backend", name, "--out", "x.npz")
    done.refused(4, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("cuda_runtime")
@pytest.mark.parametrize("backend", [(), ("--backend", "onnxruntime-cuda")])
def test_16_bits_run_on_the_gpu(
    difftool: Command,
    half_bundle: Path,  # noqa: F811
    backend: tuple[str, ...],
) -> None:
    line = ("sample", half_bundle, "--precision", "fp16", *backend, "--device", 1)
    value = json.loads(difftool(*line, "--json").out)
    assert (value["backend"], value["precision"]) == ("onnxruntime-cuda", "fp16")
    assert value["device"] == "a fake GPU"
    assert value["cuda_graphs"]
    assert " s on a fake GPU -> x.png (" in difftool(*line, "--out", "x.png").out


def test_16_bits_without_a_gpu(
    difftool: Command,
    half_bundle: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_device, "has_driver", lambda: False)
    line = ("sample", half_bundle, "--precision", "fp16", "-n", 1)
    difftool(*line).refused(
        4,
        "error: no GPU runs fp16: there is no NVIDIA GPU here, or no driver for it",
        "for the CPU name --backend onnxruntime-cpu",
    )
    value = difftool(*line, "--backend", "onnxruntime-cpu:fp16", "--json").json()
    assert (value["backend"], value["precision"]) == ("onnxruntime-cpu", "fp16")
    assert not {"device", "cuda_graphs"} & value.keys()
