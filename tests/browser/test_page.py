"""In Chromium, the page of difftool web draws the pictures of difftool sample."""

import base64
import functools
import io
import json
import os
import subprocess
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.bundle import read_bundle
from difftool.compile import web
from difftool.diffusion.samplers import ddim, dpmpp_2m
from difftool.runtime.images import grid
from difftool.runtime.model import Model
from difftool.runtime.shipped import find_bundle

DRIVER = Path(__file__).with_name("draw.mjs")
Draw = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def site(modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str | Path], Path]:
    """Write the page of a model, once for all tests, and return its folder."""

    @functools.cache
    def write(model: str | Path) -> Path:
        folder = tmp_path_factory.mktemp("page") / "site"
        web(read_bundle(find_bundle(model)), folder, runtime=modules, title=Path(model).name)
        return folder

    return write


@pytest.fixture
def draw(
    node: str, chromium: str, modules: Path, site: Callable[..., Path], tmp_path: Path
) -> Draw:
    """Open the page of a model and draw; returns what the driver found."""

    def run(model: str | Path, *, stop: bool = False, **fields: Any) -> dict[str, Any]:
        handler = functools.partial(SimpleHTTPRequestHandler, directory=site(model))
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{server.server_port}/"
            task = {
                "modules": str(modules),
                "chromium": chromium,
                "url": url,
                "fields": {"live": True, **fields},
                "stop": stop,
                "screenshot": str(tmp_path / "page.png"),
            }
            command = [node, str(DRIVER), json.dumps(task)]
            done = subprocess.run(command, capture_output=True, text=True)
            server.shutdown()
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert found["faults"] == []
        own = (url, f"blob:{url}")  # the page asks only its own server, so it works offline
        assert [asked for asked in found["requests"] if not asked.startswith(own)] == []
        return found

    return run


def assert_drawn(found: dict[str, Any], model: Model, samples: np.ndarray) -> None:
    """Check that the saved picture is difftool's grid of these samples, to one grey level."""
    wanted = grid(difftool.to_uint8(samples, model.spec))
    with Image.open(io.BytesIO(base64.b64decode(found["picture"]))) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    assert pixels.shape[:2] == wanted.shape[:2]
    assert np.abs(pixels - wanted).max() <= 1


@pytest.mark.parametrize("live", [True, False], ids=["live", "one-call"])
def test_a_seed_gives_difftool_sample_s_picture(draw: Draw, tmp_path: Path, live: bool) -> None:
    found = draw("ddpm-mnist", seed="3", count="16", sampler="dpmpp_2m", steps="20", live=live)
    model = difftool.load("ddpm-mnist", backend="onnxruntime-cpu")
    program = dpmpp_2m(model.spec, steps=20)
    assert_drawn(found, model, model.sample(program, n=16, seed=3))
    assert found["name"] == "ddpm-mnist-3.png"
    assert found["samplers"][0] == "ddpm"
    looks = [text for text in found["seen"] if " of 20 steps" in text]
    assert looks[-1].startswith("20 of 20 steps")
    assert len(looks) > 1 if live else len(looks) == 1
    with Image.open(tmp_path / "page.png") as screenshot:
        assert screenshot.width == 1000
        if kept := os.environ.get("KEEP_SCREENSHOT"):  # how docs/images/browser.png is made
            screenshot.save(kept)


def test_the_largest_seed_and_the_second_model(draw: Draw) -> None:
    seed = 2**64 - 1
    found = draw("ncsn-mnist", seed=str(seed), count="3", sampler="dpmpp_2m", steps="10")
    model = difftool.load("ncsn-mnist", backend="onnxruntime-cpu")
    program = dpmpp_2m(model.spec, steps=10)
    assert_drawn(found, model, model.sample(program, n=3, seed=seed))


def test_labels_and_guidance(draw: Draw, classes_bundle: Path) -> None:
    choice = {"sampler": "ddim", "steps": "10", "label": "2", "guidance": "2.5"}
    found = draw(classes_bundle, seed="5", count="4", **choice)
    model = difftool.load(classes_bundle, backend="onnxruntime-cpu")
    program = ddim(model.spec, steps=10)
    samples = model.sample(program, n=4, seed=5, labels=2, guidance_scale=2.5)
    assert_drawn(found, model, samples)


def test_points_are_dots(draw: Draw, points_bundle: Path) -> None:
    rows = difftool.load(points_bundle).default_program().nfe
    choice = {"sampler": "annealed_langevin", "steps": str(rows)}
    found = draw(points_bundle, seed="1", count="64", **choice)
    with Image.open(io.BytesIO(base64.b64decode(found["picture"]))) as picture:
        pixels = np.asarray(picture.convert("RGB"), int)
    assert pixels.shape == (512, 512, 3)
    dots = (pixels != 255).any(axis=-1).sum()
    assert 12 < dots < 64 * 25  # a dot has at most 25 pixels, and dots overlap


def test_a_run_can_be_stopped(draw: Draw) -> None:
    found = draw("ddpm-mnist", stop=True, seed="0", count="16", sampler="ddpm", steps="1000")
    assert found["seen"][-1].startswith("Stopped after ")
    assert found["seen"][-1].endswith(" of 1000 steps.")
