"""Tensors of a Triton whose Python backend works with NumPy 2, and of one that does not."""

import ctypes
import gc
import json
import struct
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from difftool.errors import UsageError

tensors = pytest.importorskip("difftool.serve.triton.tensors")
model = pytest.importorskip("difftool.serve.triton.model")


@dataclass
class Given:
    """An input of a request."""

    label: str
    array: Any

    def name(self) -> str:
        return self.label

    def as_numpy(self) -> Any:
        assert self.array.dtype == np.object_  # all others go through DLPack
        return self.array

    def __dlpack__(self, **asked: Any) -> Any:
        return self.array.__dlpack__(**asked)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


@dataclass
class Asked:
    """A request."""

    given: dict[str, Any]
    said: dict[str, Any] = field(default_factory=dict)

    def inputs(self) -> list[Given]:
        return [Given(*each) for each in self.given.items()]

    def parameters(self) -> str:
        return json.dumps(self.said)


def text(value: bytes) -> Any:
    return np.array([value], np.object_)


def test_texts_and_numbers_are_read() -> None:
    start = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    given = {
        "sampler": text(b"ddim"),
        "sampler_arguments": text(b'{"eta": 0.5}'),
        "seed": np.array([2**64 - 1], np.uint64),
        "labels": np.array([1, 0]),
        "guidance_scale": np.array([1.5]),
        "init": start,
        "known": np.concatenate([start, start]),
    }
    found = tensors.read_fields(Asked(given, {"n": 2, "previews": 3}))
    init, known = found.pop("init"), found.pop("known")
    assert found == {
        "sampler": "ddim",
        "sampler_arguments": {"eta": 0.5},
        "seed": 2**64 - 1,
        "labels": [1, 0],
        "guidance_scale": 1.5,
        "n": 2,
        "previews": 3,
    }
    np.testing.assert_array_equal(init, start[0])  # one for all samples
    assert known.shape == (2, 2, 3)
    start[:] = -1  # as Triton's memory, once the request is gone
    assert init[0, 1] == 1


def test_a_text_that_is_none_is_refused() -> None:
    for value, said in ((b"\xff", "sampler is no UTF-8"), (None, "send sampler as a parameter")):
        with pytest.raises(Exception, match="sampler") as caught:
            tensors.read_fields(Asked({"sampler": text(value)}))
        assert said in caught.value.line()


def test_what_a_backend_cannot_read_is_kept_apart() -> None:
    """What was built with NumPy 1 repeats the first byte of a text, and of its length."""
    pb = SimpleNamespace(deserialize_bytes_tensor=lambda encoded: text(encoded[4:].tobytes()))
    tensors.guard_texts(pb)
    encoded = np.frombuffer(struct.pack("<I", 4) + b"ddim", np.uint8)
    assert pb.deserialize_bytes_tensor(encoded).reshape([1]).tolist() == [b"ddim"]
    broken = np.full_like(encoded, encoded[0])
    assert pb.deserialize_bytes_tensor(broken).reshape([1]).tolist() == [None]


def test_arrays_become_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton names what it has taken in its own way, which NumPy would complain of."""
    rename = ctypes.pythonapi.PyCapsule_SetName
    rename.argtypes = [ctypes.py_object, ctypes.c_char_p]
    kept = ctypes.c_char_p(b"used_dlpack")
    taken: dict[str, Any] = {}
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)

    class Tensor:
        @staticmethod
        def from_dlpack(name: str, capsule: Any) -> str:
            rename(capsule, kept)
            taken[name] = repr(capsule)
            return name

    arrays = {"samples": np.zeros((2, 3), np.float32)[:, ::2], "seed": np.array([7], np.uint64)}
    assert tensors.make_tensors(SimpleNamespace(Tensor=Tensor), arrays) == ["samples", "seed"]
    gc.collect()
    assert all("used_dlpack" in each for each in taken.values())
    assert not complaints


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ({"max_bach": "4"}, "there is no parameter 'max_bach'"),
        ({"threads": "many"}, "the parameter threads is 'many'"),
        ({"deadline": ""}, "the parameter deadline is ''"),
    ],
)
def test_a_parameter_without_a_meaning_is_refused(said: dict[str, str], wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        model._settings(said)


def test_parameters_set_up_a_model() -> None:
    said = {"max_batch": "16", "deadline": "2.5", "slots": "32", "bundle_digest": "abc"}
    assert model._settings(said) == ({"max_batch": 16}, {"deadline": 2.5}, {"slots": 32})
