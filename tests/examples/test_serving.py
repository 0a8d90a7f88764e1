"""The examples of serving: clients of a server as it is started, and an application that draws."""

import asyncio
import io
import json
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import difftool
from difftool.diffusion.samplers import ddim
from difftool.runtime import Model
from tests.serve.conftest import Client, Gate, run, wait_at
from tests.serve.test_cancels import Leaver
from tests.test_docs import serving

pytest.importorskip("openai")
pytest.importorskip("fastapi")

from examples.serving import application, load, openai_client

SERVE = ["difftool", "serve", "ddpm-mnist", "--threads", "1", "--max-batch", "2", "--queue", "2"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(SERVE) as found:
        yield found


def test_openai_s_client(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    openai_client.main(url, tmp_path / "pictures")
    files = {file.name: file.read_bytes() for file in (tmp_path / "pictures").iterdir()}
    assert set(files) == {"0.png", "1.png", "latest.png"}
    assert files["latest.png"] == files["0.png"] != files["1.png"]
    assert capsys.readouterr().out.split()[-1] == "image_generation.completed"


def test_curl(url: str, tmp_path: Path) -> None:
    script, picture = "examples/serving/stream.sh", tmp_path / "digit.png"
    done = subprocess.run(["sh", script, url, picture], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "image_generation.completed"
    with Image.open(picture) as image:
        assert image.size == (28, 28)
    done = subprocess.run(["sh", script, url + "/none", picture], capture_output=True)
    assert done.returncode == 1


def test_a_load(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [url, "--rate", "1000", "--requests", "20", "--steps", "2,9"]
    found = load.main(words)
    assert json.loads(capsys.readouterr().out) == found
    assert found["counts_agree"]
    assert found["ok"] + found["refused"] == 20
    assert found["ok"] > 0
    assert set(found["seconds"]) == {"2", "9"}


@pytest.mark.skipif(find_spec("difftool.serve.kserve") is None, reason="no v2 protocol yet")
def test_triton_s_client(url: str, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.http")
    from examples.serving import triton_client

    triton_client.main(url.removeprefix("http://"), str(tmp_path / "samples.npy"))
    model = difftool.load("ddpm-mnist", max_batch=1, threads=1)
    expected = model.sample(ddim(model.spec, steps=20), n=4, seed=7)
    assert np.load(tmp_path / "samples.npy").tobytes() == expected.tobytes()


@pytest.fixture
def gated(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Gate, Model]]:
    gate = Gate(difftool.load("ddpm-mnist", threads=1).backend)
    model = Model(application.model.bundle, gate, max_batch=2)
    monkeypatch.setattr(application, "model", model)
    yield gate, model
    gate.open()


def test_an_application_that_draws(gated: tuple[Gate, Model]) -> None:
    gate, model = gated
    gate.open()
    client = Client(application.app)
    answer = client("GET", "/digit.png?seed=3&steps=4")
    assert answer.headers["content-type"] == "image/png"
    alone = Model(model.bundle, gate.backend, max_batch=1)
    expected = alone.sample(ddim(model.spec, steps=4), n=1, seed=3)
    pixels: Any = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (pixels == difftool.to_uint8(expected, model.spec)[0, ..., 0]).all()
    assert client("GET", "/digit.png?steps=0").status_code == 400


def test_a_client_of_it_that_leaves(gated: tuple[Gate, Model]) -> None:
    gate, model = gated

    async def leave() -> None:
        leaver = Leaver(application.app, "/digit.png", method="GET")
        await wait_at(gate)
        leaver.leaving.set()
        await leaver.over
        await asyncio.to_thread(int)  # a future tells the one that it wraps of its end
        gate.open()

    run(leave())
    assert model.scheduler().close()
    counts = model.scheduler().counts
    assert (counts.accepted, counts.cancelled) == (1, 1)
