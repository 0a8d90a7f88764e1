"""Pictures and arrays that a request brings: drawn as the model draws them, or refused."""

import base64
import io
import json
import shutil
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydantic import ValidationError

import difftool
from difftool.bundle import MANIFEST, write_manifest
from difftool.data import prepared
from difftool.diffusion import Feature
from difftool.diffusion.samplers import ddim, ddpm
from difftool.runtime import Model, edits
from difftool.serve import ServeSettings
from difftool.serve.asked import AskedImages
from difftool.serve.inputs import read_inputs
from difftool.serve.problems import Problem
from tests.serve.conftest import client_of, error_of

IMAGES, SAMPLES = "/v1/images/generations", "/v1/samples"
SHORT = {"sampler": "ddim", "num_inference_steps": 3, "seed": 7}
SHAPE = (1, 28, 28)


def png(pixels: Any, **saved: Any) -> str:
    """Return pixels uint8 [H, W] or [H, W, 3] as the API takes a picture."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, **{"format": "png", **saved})
    return base64.b64encode(file.getvalue()).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claimed(width: int, height: int) -> str:
    """Return a PNG that says it has so many grey pixels, and holds none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    return base64.b64encode(whole).decode()


def noted(size: int) -> str:
    """Return a picture of the right size with a compressed note that unpacks to `size` bytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "a" * size, zip=True)
    return png(np.zeros(SHAPE[1:]), pnginfo=info)


PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
MASK = np.zeros(SHAPE, np.uint8)
MASK[:, :14] = 255
PICTURE, HALF = png(PIXELS[0]), png(MASK[0])
ARRAY = np.linspace(-1, 1, 784, dtype=np.float32).reshape(SHAPE)


def alone(model: Model, *asked: Any, **fields: Any) -> Any:
    """The samples as they are drawn alone, one at a time."""
    return Model(model.bundle, model.backend, max_batch=1).sample(*asked, **fields)


def pixels_of(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    files = [io.BytesIO(base64.b64decode(each["b64_json"])) for each in answer.json()["data"]]
    return np.stack([np.asarray(Image.open(file)) for file in files])


def array_of(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["samples"], np.float32)


def test_known_parts_of_a_picture_stay(digits: Model) -> None:
    answer = client_of(digits=digits).post(IMAGES, n=2, known=PICTURE, mask=HALF, **SHORT)
    known = edits.inpaint(prepared(PIXELS, digits.spec.data_range), MASK / np.float32(255))
    expected = alone(digits, ddim(digits.spec, steps=3), n=2, seed=7, edit=known)
    found = pixels_of(answer)
    assert (found == difftool.to_uint8(expected, digits.spec)[..., 0]).all()
    assert (found[:, :14] == PIXELS[0, :14]).all()
    assert (found[:, 14:] != PIXELS[0, 14:]).any()


def test_a_start_from_a_picture(digits: Model) -> None:
    client = client_of(digits=digits)
    answer = client.post(IMAGES, n=2, init=PICTURE, strength=0.4, **SHORT)
    start = prepared(PIXELS, digits.spec.data_range)
    program = ddim(digits.spec.up_to(0.4), steps=3)
    expected = alone(digits, program, n=2, seed=7, init=start)
    assert (pixels_of(answer) == difftool.to_uint8(expected, digits.spec)[..., 0]).all()
    assert answer.json()["strength"] == 0.4


def test_a_start_shortens_the_model_s_own_program(digits: Model) -> None:
    """As `difftool sample --init` does: the steps are the share of the levels."""
    answer = client_of(digits=digits).post(SAMPLES, init=ARRAY.tolist(), strength=0.004, seed=7)
    program = ddpm(digits.spec.up_to(0.004), steps=4, variance="large")
    assert answer.json()["program"] == str(program.call)
    expected = alone(digits, program, n=1, seed=7, init=ARRAY)
    assert array_of(answer).tobytes() == expected.tobytes()


def test_arrays_of_one_sample_and_of_each(digits: Model) -> None:
    client = client_of(digits=digits)
    program = ddim(digits.spec.up_to(0.5), steps=3)
    many, soft = np.stack([ARRAY, -ARRAY]), np.float32(0.25) * (ARRAY > 0)
    fields = {"init": many.tolist(), "strength": 0.5, "known": ARRAY.tolist()}
    answer = client.post(SAMPLES, n=2, mask=soft.tolist(), **fields, **SHORT)
    edit = edits.inpaint(ARRAY, soft)
    expected = alone(digits, program, n=2, seed=7, init=many, edit=edit)
    assert array_of(answer).tobytes() == expected.tobytes()


def test_colours(digits: Model) -> None:
    """A picture has the model's channels; a grey mask holds for all of them."""
    spec = replace(digits.spec, shape=(3, 4, 5))
    model: Any = SimpleNamespace(spec=spec, backend=SimpleNamespace(features={Feature.KNOWN}))
    pixels = np.random.default_rng(1).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    mask = np.zeros((4, 5), np.uint8)
    mask[1:3] = 255
    fields = {"known": png(pixels), "mask": png(mask)}
    start, edit = read_inputs(AskedImages(**fields), model)
    assert start is None
    assert isinstance(edit, edits.Inpaint)
    assert (edit.known == prepared(pixels.transpose(2, 0, 1), spec.data_range)).all()
    assert (edit.mask == np.broadcast_to(mask / 255, spec.shape)).all()
    for field, wrong in (("known", png(mask)), ("mask", png(pixels))):
        with pytest.raises(Problem, match="it is") as refused:
            read_inputs(AskedImages(**{**fields, field: wrong}), model)
        assert refused.value.field == field


def known(value: Any, mask: Any = HALF) -> dict[str, Any]:
    return {"known": value, "mask": mask}


def init(value: Any) -> dict[str, Any]:
    return {"init": value, "strength": 0.5}


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"init": PICTURE}, "init", "no strength"),
        ({"strength": 0.5}, "strength", "no init"),
        ({"known": PICTURE}, "known", "no mask"),
        ({"mask": HALF}, "mask", "no known"),
        ({**init(PICTURE), "strength": 0}, "strength", "greater than 0"),
        ({**init(PICTURE), "strength": 1.01}, "strength", "less than or equal to 1"),
        (init("not base64!"), "init", "no whole PNG"),
        (init("é"), "init", "no whole PNG"),
        (init("!" + PICTURE), "init", "no whole PNG"),
        (init(""), "init", "no whole PNG"),
        (init("data:image/png;base64," + PICTURE), "init", "no whole PNG"),
        (init(PICTURE[:-80]), "init", "no whole PNG"),
        (init(PICTURE[:60]), "init", "no whole PNG"),
        (init(base64.b64encode(b"GIF89a" + bytes(40)).decode()), "init", "no whole PNG"),
        (init(png(np.zeros((28, 28)), format="gif")), "init", "no whole PNG"),
        (init(png(np.zeros((28, 27)))), "init", "27x28 pixels"),
        (init(png(np.zeros((56, 56)))), "init", "56x56 pixels"),
        (init(png(np.zeros((28, 28, 3)))), "init", "colour"),
        (init(png(np.zeros((28, 28, 4)))), "init", "RGBA"),
        (init(claimed(29_000, 3_000)), "init", "29000x3000 pixels"),  # Pillow would unpack it
        (init(claimed(60_000, 60_000)), "init", "no whole PNG"),  # a bomb by Pillow's own limit
        (init(noted(1 << 24)), "init", "no whole PNG"),
        (init(["0"]), "init", "valid string"),
        (known(PICTURE, png(np.zeros((28, 28, 3)))), "mask", "colour"),
        (known(PICTURE, png(np.zeros((14, 28)))), "mask", "28x14 pixels"),
    ],
)
def test_a_picture_is_refused(digits: Model, fields: dict[str, Any], param: str, said: str) -> None:
    before = digits.scheduler().counts.accepted
    answer = client_of(digits=digits).post(IMAGES, **SHORT, **fields)
    error = error_of(answer)
    assert (answer.status_code, error["param"], error["code"]) == (400, param, "invalid-field")
    assert said in error["message"]
    assert error["hint"]
    assert digits.scheduler().counts.accepted == before


def changed(value: Any) -> Any:
    found = ARRAY.tolist()
    found[0][3][4] = value
    return found


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1, 2, 3],
        ARRAY[0].tolist(),
        [ARRAY.tolist()] * 3,
        [*ARRAY.tolist(), [0]],
        [[[[]]]],
        changed("0"),
        changed(None),
        changed(True),
        changed({}),
        changed([1]),
        changed(1e39),
        changed(10**400),
        changed(float("inf")),
        changed(float("nan")),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("field", ["init", "known", "mask"])
def test_an_array_is_refused(digits: Model, field: str, value: Any) -> None:
    fields = {**init(ARRAY.tolist()), **known(ARRAY.tolist(), (0 * ARRAY).tolist())}
    body = json.dumps(
        {**SHORT, "n": 2, **fields, "mask": MASK.astype(int).clip(0, 1).tolist(), field: value}
    )
    headers = {"content-type": "application/json"}
    answer = client_of(digits=digits)("POST", SAMPLES, content=body, headers=headers)
    assert answer.status_code == 400, answer.text
    assert error_of(answer)["param"] == field


def test_a_mask_is_0_to_1(digits: Model) -> None:
    for mask in (ARRAY, 2 * ARRAY.clip(0, 1)):
        fields = known(ARRAY.tolist(), mask.tolist())
        answer = client_of(digits=digits).post(SAMPLES, **SHORT, **fields)
        assert (answer.status_code, error_of(answer)["param"]) == (400, "mask")


def test_a_model_that_keeps_no_values(tiny_bundle: Path, digits: Model) -> None:
    tiny = difftool.load(tiny_bundle, threads=1)
    zeros = np.zeros(tiny.spec.shape).tolist()
    client = client_of(tiny=tiny, digits=digits)
    features = {each["id"]: each["features"] for each in client("GET", "/v1/models").json()["data"]}
    assert "known" not in features["tiny"]
    assert "known" in features["digits"]
    answer = client.post(SAMPLES, model="tiny", **SHORT, **known(zeros, zeros))
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (400, "known")
    assert "--with known" in error["hint"]


def test_large_arrays_need_a_larger_body(digits: Model) -> None:
    fields = {**init(ARRAY.tolist()), **SHORT}
    limit = len(json.dumps(fields)) // 2
    assert (
        client_of(ServeSettings(max_body=limit), digits=digits).post(SAMPLES, **fields).status_code
        == 413
    )


def test_a_long_list_of_wrong_labels(digits: Model) -> None:
    """Only the first is named: a list of all would hold up the event loop."""
    with pytest.raises(ValidationError) as refused:
        AskedImages.model_validate_json(json.dumps({"labels": [1.5] * 2000}))
    assert refused.value.error_count() == 4  # no index and no name, nor a list of them
    answer = client_of(digits=digits).post(SAMPLES, labels=[1.5] * 2000)
    assert (answer.status_code, error_of(answer)["param"]) == (400, "labels")


def test_labels_by_name(tmp_path: Path) -> None:
    kept = Path(__file__).parents[1] / "kept" / "bundle"  # points, with two classes
    shutil.copytree(kept, tmp_path / "named")
    value = json.loads((tmp_path / "named" / MANIFEST).read_text())
    value["spec"]["class_names"] = ["ant", "bee"]
    write_manifest(tmp_path / "named", value)
    client = client_of(digits=difftool.load(tmp_path / "named", max_batch=4, threads=1))
    assert client("GET", "/v1/models/digits").json()["class_names"] == ["ant", "bee"]
    drawn = [client.post(SAMPLES, labels=each, **SHORT).json() for each in ("bee", 1, ["bee"])]
    assert drawn[0]["samples"] == drawn[1]["samples"] == drawn[2]["samples"]
    answer = client.post(SAMPLES, labels=["ant", "cow"], n=2)
    assert answer.status_code == 400
    assert "no class 'cow'" in error_of(answer)["message"]
