"""A model repository: Triton's own definition reads its configurations, which fit their models."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import difftool
from difftool.bundle import read_bundle
from difftool.compile import TritonRepository, triton
from difftool.diffusion.samplers import ddim
from difftool.errors import ArtefactError, UsageError
from difftool.serve import ARRAYS, INPUTS, PREVIEWS

AGREEMENT = 1e-4  # of float samples
# Of ONNX's types, whose names are not the protocol's.
TYPES = {"tensor(uint64)": "UINT64", "tensor(int64)": "INT64", "tensor(float)": "FP32"}
TYPES |= {"tensor(uint8)": "UINT8"}


@pytest.fixture
def written(classes_bundle: Path, tmp_path: Path) -> TritonRepository:
    program = ddim(read_bundle(classes_bundle).spec, steps=4)
    return triton(classes_bundle, tmp_path / "models", program=program)


def config_of(repository: TritonRepository, model: str) -> Any:
    """Return a configuration as the published protobuf reads it."""
    service = pytest.importorskip("tritonclient.grpc").model_config_pb2
    text_format = pytest.importorskip("google.protobuf.text_format")
    text = (repository.path / model / "config.pbtxt").read_text()
    return text_format.Parse(text, service.ModelConfig())


def tensors(config: Any, field: str) -> dict[str, tuple[str, list[int]]]:
    kinds = config.DESCRIPTOR.fields_by_name[field].message_type.fields_by_name["data_type"]
    names = {value.number: value.name.removeprefix("TYPE_") for value in kinds.enum_type.values}
    found = getattr(config, field)
    assert len({each.name for each in found}) == len(found)
    return {each.name: (names[each.data_type], list(each.dims)) for each in found}


def test_the_models_around_the_scheduler(written: TritonRepository) -> None:
    shape = list(read_bundle(written.path / written.model / "1" / "bundle").spec.shape)
    said = {name: (kind.replace("BYTES", "STRING"), dims) for name, (kind, dims) in INPUTS.items()}
    said |= dict.fromkeys(ARRAYS, ("FP32", [-1, *shape]))
    drawn = {"samples": ("FP32", [-1, *shape]), "seed": ("UINT64", [1])}
    shown = {"preview": ("FP32", shape), "sample": ("INT64", [1]), "step": ("INT64", [1])}
    for name, more, outputs in (
        (written.model, {}, drawn),
        (written.stream, {PREVIEWS: ("INT64", [1])}, drawn | shown),
    ):
        config = config_of(written, name)
        assert (config.backend, config.max_batch_size, config.name) == ("python", 0, "")
        assert tensors(config, "input") == said | more
        assert all(each.optional for each in config.input)
        assert tensors(config, "output") == outputs
        assert config.model_transaction_policy.decoupled == (name == written.stream)
        assert [each.count for each in config.instance_group] == [1]
        digest = config.parameters["bundle_digest"].string_value
        copied = read_bundle(written.path / name / "1" / "bundle")
        assert digest == copied.manifest.digest


@pytest.mark.parametrize("kind", ["classes", "points", "featured"])
def test_the_configuration_of_the_graph_is_that_of_its_file(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = request.getfixturevalue(f"{kind}_bundle")
    made = triton(bundle, tmp_path / "models")
    config = config_of(made, made.sampler)
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 0)
    file = made.path / made.sampler / "1" / "model.onnx"
    for each in onnx.load(file).graph.input:
        assert each.type.HasField("tensor_type"), each.name
    session = onnxruntime.InferenceSession(file)
    required, optional = session.get_inputs(), session.get_overridable_initializers()
    assert [each.name for each in required] == ["seed", "n"]
    assert {each.name for each in config.input if each.optional} == {e.name for e in optional}
    assert tensors(config, "input") == described([*required, *optional])
    assert tensors(config, "output") == described(session.get_outputs())
    names = {each.name for each in optional}
    assert names == {"first_sample", *(["label", "guidance_scale"] if kind == "classes" else [])}


def described(found: Any) -> dict[str, tuple[str, list[int]]]:
    return {
        each.name: (
            TYPES[each.type],
            [size if isinstance(size, int) else -1 for size in each.shape],
        )
        for each in found
    }


def draw(repository: TritonRepository, **given: Any) -> Any:
    session = onnxruntime.InferenceSession(
        repository.path / repository.sampler / "1" / "model.onnx"
    )
    kinds: Mapping[str, Any] = {"seed": np.uint64, "guidance_scale": np.float32}
    feeds = {name: np.asarray(each, kinds.get(name, np.int64)) for name, each in given.items()}
    return session.run(["samples"], feeds)[0]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, {}),
        ({"first_sample": [2]}, {"first_sample": 2}),
        ({"label": [1]}, {"labels": 1}),
        ({"label": [1, 0, 1]}, {"labels": [1, 0, 1]}),
        ({"label": [1], "guidance_scale": [2.5]}, {"labels": 1, "guidance_scale": 2.5}),
    ],
    ids=["alone", "first", "label", "labels", "guidance"],
)
def test_one_call_of_the_graph(
    written: TritonRepository, classes_bundle: Path, given: Any, asked: Any
) -> None:
    model = difftool.load(classes_bundle, backend="onnxruntime-cpu")
    expected = model.sample(written.program, n=3, seed=2**40, **asked)
    drawn = draw(written, seed=[2**40], n=[3], **given)
    np.testing.assert_allclose(drawn, expected, rtol=0, atol=AGREEMENT)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_it_is_replaced_by_force_alone(written: TritonRepository, classes_bundle: Path) -> None:
    before = files_of(written.path)
    assert (len(before), sum(map(len, before.values()))) == (written.files, written.size)
    listed = json.loads(before["difftool.json"])["files"]
    assert sorted(listed) == sorted(before)
    with pytest.raises(UsageError, match="exists"):
        triton(classes_bundle, written.path)
    assert files_of(written.path) == before
    again = triton(classes_bundle, written.path, program=written.program, force=True)
    assert (again, files_of(again.path)) == (written, before)


def test_what_is_not_ours_is_not_replaced(
    written: TritonRepository, classes_bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(written.path, other)
    (other / written.model / "2").mkdir()
    (other / written.model / "2" / "model.py").write_text("mine")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("mine")
    for folder in (other, foreign, tmp_path / "other" / "difftool.json"):
        before = files_of(tmp_path)
        with pytest.raises(UsageError):
            triton(classes_bundle, folder, force=True)
        assert files_of(tmp_path) == before


def test_nothing_is_left_of_what_cannot_be_written(classes_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError):
        triton(classes_bundle, tmp_path / "models", precision="int8")
    copied = tmp_path / "bundle"
    shutil.copytree(classes_bundle, copied)
    opened = read_bundle(copied)
    (copied / "conditioner.onnx").unlink()  # after it was read, so that copying it fails
    with pytest.raises(Exception, match=r"conditioner\.onnx"):
        triton(opened, tmp_path / "models")
    with pytest.raises(UsageError, match="is a bundle"):
        triton(classes_bundle, copied / "models")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert not (copied / "models").exists()
