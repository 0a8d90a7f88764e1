"""Hostile and broken files: refused with a reason, and nothing in them runs."""

import pickle
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from difftool.errors import ArtefactError
from difftool.importers import find
from difftool.importers.source import load, read_config, tensor_files
from tests.importers.conftest import Planted, Save

Config = Callable[[str | bytes], dict[str, Any]]


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that is there if something planted has run."""
    return tmp_path / "ran"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Read a configuration of this content."""

    def read(content: str | bytes) -> dict[str, Any]:
        path = tmp_path / "config.yml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_config(path)

    return read


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_planted_call_never_runs(protocol: int, save: Save, tmp_path: Path, marker: Path) -> None:
    bomb = Planted(f"touch {marker}")
    path = save([{"begin_conv.weight": torch.zeros(2), "x": bomb}])
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps([bomb], protocol=protocol))
    for file, reason in (
        (path, r"asks to run (posix|nt)\.system"),
        (plain, {2: r"asks to run (posix|nt)\.system", 4: "is a pickle of protocol 4"}[protocol]),
    ):
        with pytest.raises(ArtefactError, match=reason) as caught:
            load(file)
        assert caught.value.exit_code == 3
    assert not marker.exists()
    pickle.loads(plain.read_bytes())  # the bomb is a real one
    assert marker.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_source_code_in_a_pickle_is_named(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EDM's files call a function of this name on a module's source."""
    module = types.ModuleType("torch_utils.persistence")

    def _reconstruct_persistent_obj(meta: object) -> None: ...

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    path = tmp_path / "edm.pkl"
    path.write_bytes(pickle.dumps({"ema": _reconstruct_persistent_obj}, protocol=protocol))
    with pytest.raises(ArtefactError, match=r"carries Python source .* EDM"):
        load(path)


@pytest.mark.parametrize("write", [torch.save, save_file])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(kept: float, write: Any, tmp_path: Path) -> None:
    path = tmp_path / "model"
    write({"a": torch.zeros(1000)}, path)
    assert torch.equal(load(path)["a"], torch.zeros(1000))
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ArtefactError, match="is not a whole file"):
        load(path)


def test_a_broken_archive_in_a_folder_is_refused(save: Save) -> None:
    path = save({"a": torch.zeros(1)})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x00"))  # its directory
    with pytest.raises(ArtefactError, match="is not a whole file"):
        find(path.parent)


def test_the_first_byte_of_a_pickle_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"\x80")
    with pytest.raises(ArtefactError, match="is not a whole file"):
        load(path)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), path)
    with pytest.raises(ArtefactError, match="is not a whole file"):
        load(path)


@pytest.mark.parametrize(
    "planted",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "a: {{b: !!python/object/new:os.system ['touch {marker}']}}",
        "!!python/object:argparse.Namespace\na: !!python/name:os.system",
        "a: !!python/module:os",
        "a: !!python/object:subprocess.Popen {{args: [touch, '{marker}']}}",
        "a: !custom 1",
    ],
)
def test_a_planted_tag_is_refused_by_name(planted: str, config: Config, marker: Path) -> None:
    with pytest.raises(ArtefactError, match=r"asks for the tag (python/|!custom)") as caught:
        config(planted.format(marker=marker))
    assert caught.value.exit_code == 3
    assert not marker.exists()


def test_a_dumped_namespace_is_a_dictionary(config: Config) -> None:
    value = config(
        "!!python/object:argparse.Namespace\n"
        "data: !!python/object:argparse.Namespace\n"
        "  image_size: 32\n"
        "model: {sizes: [1, 2], name: null, rate: 1.0e-4}\n"
    )
    assert value == {
        "data": {"image_size": 32},
        "model": {"sizes": [1, 2], "name": None, "rate": 1e-4},
    }
    assert type(value) is type(value["data"]) is dict


def test_a_folder_is_searched_for_the_one_file_of_tensors(save: Save, tmp_path: Path) -> None:
    path = save({"a": torch.zeros(1)}, "a: 1", name="any.name")
    np.savez(path.parent / "io.npz", x=np.zeros(3))  # a zip, too
    (path.parent / "notes.txt").write_text("PK")
    assert tensor_files(path.parent) == [path]
    save({"b": torch.zeros(1)}, name="another")
    with pytest.raises(ArtefactError, match=r"holds 2 files of tensors \(another, any\.name\)"):
        find(path.parent)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "holds a, b, c and 1 more"),
        ({}, "holds nothing"),
        ([], "holds a list"),
        ([torch.zeros(2)], "holds a list"),
        ([{"begin_conv.weight": 3}], "holds a list"),
        ({1: torch.zeros(2)}, "holds 1"),
        (torch.zeros(3), "holds a Tensor"),
        (7, "holds a int"),
    ],
)
def test_an_unknown_file_says_what_was_looked_for(content: Any, said: str, save: Save) -> None:
    with pytest.raises(ArtefactError) as caught:
        find(save(content))
    assert said in caught.value.message
    for sign in ("begin_conv and normalizer.embed", "temb.dense.0", "input_blocks"):
        assert sign in caught.value.hint


def test_a_format_that_is_insisted_on_must_fit(save: Save) -> None:
    with pytest.raises(ArtefactError) as caught:
        find(save({"a": torch.zeros(1)}), "ncsn")
    assert "temb.dense" not in caught.value.hint


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.float8_e4m3fn),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(2, device="meta"),
    ],
    ids=["complex", "float8", "sparse", "meta"],
)
def test_tensors_of_another_kind_are_no_weights(tensor: torch.Tensor, save: Save) -> None:
    with pytest.raises(ArtefactError, match="of no format"):
        find(save({"begin_conv.weight": tensor, "normalizer.alpha": tensor}))


def doubling(levels: int) -> str:
    """YAML in which each line holds the one before it twice."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines)


YAML = (
    "when: !!timestamp 99999-99-99",
    "when: !!timestamp 2001-99-99",
    "flag: !!bool maybe",
    "count: !!int ''",
    "count: !!int x",
    "rate: !!float x",
    "both: !!omap x",
    "both: !!pairs [x]",
    "all: !!set x",
    "{[a]: 1}",
    "{{a: b}: 1}",
    "a: &a [*a]",
    "a: *a",
    "<<: x",
    "a: 1\n- b",
    "\x00",
    doubling(40),
    "a: &a {b: 1, c: 2}\nd:\n" + "  <<: *a\n" * 20_000,
    "- x\n" * 20_000,
    "long: 1" + ":1" * 400_000,  # a number, in base 60
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        *((text, None) for text in YAML),
        *((content, "cannot read") for content in ("a: [", "[" * 5000, b"\xff\xfe\x00")),
        ("- 1\n- 2\n", "is not a configuration"),
        ("a: 1\n" * 300_000, "is larger than"),
    ],
)
def test_yaml_that_is_no_plain_configuration_is_refused(
    content: str | bytes, message: str | None, config: Config
) -> None:
    with pytest.raises(ArtefactError, match=message) as caught:
        config(content)
    assert len(str(caught.value).splitlines()) == 1


def test_yaml_may_name_a_value_twice(config: Config) -> None:
    value = config("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: [*a, *a]}\nwhen: 2001-01-01\n")
    assert value["c"] == value["a"] == {"b": 1}
    assert value["d"] == {"b": 1, "e": [{"b": 1}, {"b": 1}]}
