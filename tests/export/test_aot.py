"""Packages of AOTInductor: what `export` compiles, and what it says if it cannot."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch._inductor import cpp_builder
from torch._inductor.exc import InvalidCxxCompiler

from difftool.bundle import read_bundle
from difftool.diffusion.features import Feature
from difftool.errors import MissingDependencyError, ResourceError, UsageError
from difftool.export import export
from difftool.runtime.engine_cache import EngineCache


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Stand in for the compiler: it writes a package that is none."""

    def compile(program: Any, *, package_path: str, inductor_configs: dict[str, Any]) -> str:
        Path(package_path).write_bytes(b"a package")
        return package_path

    made = Mock(side_effect=compile)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", made)
    return made


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_bundle_lists_it_and_it_is_ones_own(
    points_checkpoint: Path, tmp_path: Path, compiler: Mock, precision: str
) -> None:
    name = "step.pt2" if precision == "fp32" else "step.bf16.pt2"
    for force in (False, True):  # which knows the file
        bundle = export(points_checkpoint, tmp_path / "own", aot=precision, force=force)
    assert read_bundle(bundle.path).read(name) == b"a package"
    assert EngineCache().made(bundle.manifest.files[name].sha256)
    (program,) = compiler.call_args.args
    types = {tensor.dtype for tensor in program.state_dict.values() if tensor.is_floating_point()}
    assert types == {torch.float32 if precision == "fp32" else torch.bfloat16}
    inputs = [node.meta["val"] for node in program.graph.nodes if node.name in ("x", "history")]
    assert [tensor.dtype for tensor in inputs] == [torch.float32] * 2
    free = [[not isinstance(size, int) for size in tensor.shape] for tensor in inputs]
    assert free == [[True, False], [True, True, False]]
    assert "max_autotune" not in compiler.call_args.kwargs["inductor_configs"]  # it is for a CPU


def test_sizes_of_guided_samples_are_free(
    classes_checkpoint: Path, tmp_path: Path, compiler: Mock
) -> None:
    export(classes_checkpoint, tmp_path / "own", aot="fp32", features=tuple(Feature))
    (program,) = compiler.call_args.args
    asked = ("x", "history", "known")
    inputs = [node for node in program.graph.nodes if node.name in asked]
    found = {node.name: node.meta["val"].shape for node in inputs}
    batch, slots = found["x"][0], found["history"][0]
    assert not isinstance(batch, int)
    assert not isinstance(slots, int)
    assert str(found["history"][1]) == str(found["known"][0]) == str(batch) != str(slots)


def test_without_a_compiler(
    points_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", Mock(side_effect=InvalidCxxCompiler()))
    with pytest.raises(MissingDependencyError, match=r"C\+\+ compiler.*install g\+\+"):
        export(points_checkpoint, tmp_path / "none", aot="fp32")
    assert not (tmp_path / "none").exists()


def test_what_is_refused(points_checkpoint: Path, tmp_path: Path, compiler: Mock) -> None:
    with pytest.raises(UsageError, match=r"no package in int8 \(one of: fp32, fp16, bf16"):
        export(points_checkpoint, tmp_path / "none", aot="int8")
    compiler.side_effect = RuntimeError("C++ compile error\nand its long story")
    with pytest.raises(ResourceError, match=r"torch could not compile .*: C\+\+ compile error \("):
        export(points_checkpoint, tmp_path / "none", aot="fp32")
    assert not (tmp_path / "none").exists()
