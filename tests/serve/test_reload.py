"""A bundle that was replaced on disk is loaded again, and no request notices."""

import asyncio
import gc
import json
import os
import shutil
import signal
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import difftool
from difftool.diffusion.samplers import ddim
from difftool.errors import ArtefactError
from difftool.runtime import Model
from difftool.serve.server import reload_models
from tests.serve.conftest import Gate, client_of, run, wait_at

SAMPLES = "/v1/samples"
SHORT = {"sampler": "ddim", "num_inference_steps": 3, "seed": 5}


def array_of(answer: Any) -> bytes:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["samples"], np.float32).tobytes()


def alone(model: Model) -> bytes:
    program = ddim(model.spec, steps=3)
    return Model(model.bundle, model.backend, max_batch=1).sample(program, n=1, seed=5).tobytes()


def test_a_request_ends_on_the_model_that_it_began_on(gate: Gate, digits: Model) -> None:
    old, new = Model(digits.bundle, gate, max_batch=4), difftool.load("ncsn-mnist", threads=1)
    client = client_of(digits=old)
    service, gone = client.application.service, weakref.ref(old)

    async def swap() -> None:
        running = asyncio.create_task(client.ask("POST", SAMPLES, json=SHORT))
        await wait_at(gate)
        await reload_models(service, lambda _: new)
        after = await client.ask("POST", SAMPLES, json=SHORT)
        assert after.json()["bundle"] == new.bundle.manifest.digest
        assert array_of(after) == alone(new)
        assert not running.done()
        gate.open()
        before = await running
        assert before.json()["bundle"] == digits.bundle.manifest.digest
        assert array_of(before) == alone(digits)

    run(swap())
    del old
    gc.collect()
    assert gone() is None


def test_a_model_that_cannot_be_loaded_stays(
    digits: Model, caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(name: str) -> Model:
        raise ArtefactError("the bundle is damaged", "export it again")

    client = client_of(digits=digits)
    run(reload_models(client.application.service, damaged))
    assert array_of(client.post(SAMPLES, **SHORT)) == alone(digits)
    (record,) = caplog.records
    assert record.getMessage() == "digits is served as it was"
    run(reload_models(client.application.service, lambda _: None))
    assert client.application.service.models["digits"] is digits


def test_sighup(tmp_path: Path) -> None:
    from tests.serve.served import serving

    folder, damaged = tmp_path / "model", tmp_path / "damaged"
    bundles = {name: difftool.runtime.find_bundle(name) for name in ("ddpm-mnist", "ncsn-mnist")}
    digests = {name: difftool.runtime.open_bundle(name).manifest.digest for name in bundles}
    folder.symlink_to(bundles["ddpm-mnist"])
    with serving(tmp_path, "--reload", model=str(folder)) as found:

        def point_to(target: Path) -> None:
            (tmp_path / "link").symlink_to(target)
            os.replace(tmp_path / "link", folder)
            found.process.send_signal(signal.SIGHUP)

        def line_of(word: str) -> dict[str, Any]:
            assert found.process.stderr is not None
            return next(json.loads(line) for line in found.process.stderr if word in line)

        shutil.copytree(bundles["ncsn-mnist"], damaged)
        (damaged / "step.onnx").write_bytes(b"no graph")
        point_to(damaged)
        assert "served as it was" in line_of("served")["message"]
        point_to(bundles["ncsn-mnist"])
        assert line_of("reloaded") == {"reloaded": "model", "bundle": digests["ncsn-mnist"]}
        (model,) = found.client.get("/v1/models").json()["data"]
        assert model["bundle"] == digests["ncsn-mnist"]
        assert found.client.post(SAMPLES, json=SHORT).json()["bundle"] == model["bundle"]
