"""The engine that runs: its key fits, it is whole, and it is ours or trusted."""

import shutil
from pathlib import Path

import pytest

from difftool.bundle import MANIFEST, Bundle, EngineKey, file_entries, read_bundle, write_manifest
from difftool.bundle.amend import with_files
from difftool.errors import ArtefactError, MissingDependencyError
from difftool.files import read_json
from difftool.runtime.engine_cache import key_digest
from difftool.runtime.engines import (
    RECIPE,
    Engine,
    Wanted,
    choose_engine,
    differences,
    find_engines,
    no_gpu,
    onnx_sha256,
    rebuilding,
    widening,
)
from tests.runtime.conftest import ENGINE, Keep, key_for

pytestmark = pytest.mark.usefixtures("cache")

WANTED = Wanted("tensorrt-rtx", "1.7", ("sm89", "NVIDIA Something"))


@pytest.fixture
def bundle(points_bundle: Path, tmp_path: Path) -> Bundle:
    return read_bundle(shutil.copytree(points_bundle, tmp_path / "points"))


def with_engine(bundle: Bundle, key: EngineKey, data: bytes = ENGINE) -> Bundle:
    """Return the bundle with an engine in it, as one that was built elsewhere has."""
    (bundle.path / "step.engine").write_bytes(data)
    manifest = read_json(bundle.path / MANIFEST)
    manifest["files"] = file_entries(bundle.path)
    manifest["engines"] = {"step.engine": key.model_dump(mode="json")}
    write_manifest(bundle.path, manifest)
    return read_bundle(bundle.path)


def test_an_engine_of_the_cache(bundle: Bundle, keep: Keep) -> None:
    assert find_engines(bundle) == []
    keep()
    (engine,) = find_engines(bundle)
    assert choose_engine([engine], WANTED, bundle) is engine
    assert engine.key == key_for(bundle)
    assert engine.read() == ENGINE


def test_a_foreign_engine_is_trusted_by_its_digest(bundle: Bundle) -> None:
    foreign = with_engine(bundle, key_for(bundle))
    sha256 = foreign.manifest.files["step.engine"].sha256
    with pytest.raises(ArtefactError, match=rf"was built elsewhere; its sha256 is {sha256}") as no:
        find_engines(foreign)
    assert "`trust`" in no.value.hint
    with pytest.raises(ArtefactError, match="was built elsewhere"):
        find_engines(foreign, trusted=["0" * 64])
    (engine,) = find_engines(foreign, trusted=[sha256])
    assert engine.read() == ENGINE


def test_an_own_engine_is_not_foreign(bundle: Bundle, keep: Keep) -> None:
    own = with_engine(bundle, key_for(bundle))
    keep()
    first, second = find_engines(own)
    assert first.path == own.path / "step.engine"
    assert second.sha256 == first.sha256


def test_an_own_engine_is_preferred(bundle: Bundle, keep: Keep) -> None:
    mixed = with_engine(bundle, key_for(bundle), b"from elsewhere")
    keep()
    (engine,) = find_engines(mixed)
    assert engine.read() == ENGINE


def test_changed_bytes_are_not_returned(bundle: Bundle, keep: Keep) -> None:
    keep()
    (engine,) = find_engines(bundle)
    engine.path.write_bytes(ENGINE[::-1])
    with pytest.raises(ArtefactError, match="differs from its digest") as caught:
        engine.read()
    assert "\n" not in str(caught.value)
    engine.path.unlink()
    with pytest.raises(ArtefactError, match="cannot read the engine"):
        engine.read()


@pytest.mark.parametrize("changes", [{"recipe": RECIPE + 1}, {"onnx_sha256": "0" * 64}])
def test_an_engine_of_another_graph(bundle: Bundle, keep: Keep, changes: dict[str, object]) -> None:
    keep(**changes)
    assert find_engines(bundle) == []


def test_a_precision_of_its_own_changes_what_the_key_holds(bundle: Bundle) -> None:
    assert onnx_sha256(bundle, "fp16") == bundle.manifest.files["step.onnx"].sha256
    changed = with_files(bundle, {"step.fp16.onnx": b"another graph"})
    assert onnx_sha256(changed, "fp16") == changed.manifest.files["step.fp16.onnx"].sha256
    assert onnx_sha256(changed, "bf16") == changed.manifest.files["step.onnx"].sha256


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gpus": ["sm120"]}, "it is for sm120, and here is sm89"),
        ({"version": "1.6"}, "it was built by tensorrt-rtx 1.6, and here is tensorrt-rtx 1.7"),
        ({"flavour": "tensorrt"}, "it was built by tensorrt 1.7, and here is tensorrt-rtx 1.7"),
        ({"precision": "fp16"}, "it computes in fp16, not fp32"),
    ],
)
def test_no_engine_fits(bundle: Bundle, changes: dict[str, object], reason: str) -> None:
    engine = Engine(bundle.path / "e", key_for(bundle, **changes), "0" * 64)
    with pytest.raises(MissingDependencyError) as caught:
        choose_engine([engine], WANTED, bundle)
    assert caught.value.message == f"no engine of {bundle.path} fits: {reason}"
    line = f"run: difftool compile {bundle.path} --trt --precision fp32 --gpu sm89"
    assert caught.value.hint == line


def test_no_engine_at_all_says_how_to_get_one(bundle: Bundle) -> None:
    with pytest.raises(MissingDependencyError, match="has no engine yet") as caught:
        choose_engine([], Wanted("tensorrt", "11", ("sm90", "NVIDIA H")), bundle)
    assert caught.value.hint.endswith("--trt --precision fp32 --gpu current")


def test_an_engine_of_tensorrt_fits_the_gpu_of_its_name(bundle: Bundle) -> None:
    key = key_for(bundle, flavour="tensorrt", gpus=["NVIDIA H"])
    engine = Engine(bundle.path / "e", key, "0" * 64)
    assert choose_engine([engine], Wanted("tensorrt", "1.7", ("sm90", "NVIDIA H")), bundle)
    with pytest.raises(MissingDependencyError, match="it is for NVIDIA H"):
        choose_engine([engine], Wanted("tensorrt", "1.7", ("sm90", "NVIDIA B")), bundle)


def test_of_the_engines_that_fit_the_one_for_most_samples_is_taken(bundle: Bundle) -> None:
    small, large = (
        Engine(bundle.path / "e", key_for(bundle, profile=[1, 4, most]), "0" * 64)
        for most in (8, 256)
    )
    assert choose_engine([small, large, small], WANTED, bundle) is large
    narrow = Engine(bundle.path / "e", key_for(bundle, profile=[16, 64, 256]), "0" * 64)
    assert choose_engine([narrow, large], WANTED, bundle) is large  # which pads no single sample


def test_widening_names_the_same_engine_with_a_wider_profile(bundle: Bundle) -> None:
    line = f"difftool compile {bundle.path} --trt --precision fp32"
    key = key_for(bundle, profile=[4, 8, 64])
    assert widening(bundle, key, 100) == f"{line} --gpu sm89,sm120 --profile 4,100,100"
    assert widening(bundle, key, 2) == f"{line} --gpu sm89,sm120 --profile 2,64,64"
    on_site = key_for(bundle, flavour="tensorrt", gpus=["NVIDIA H"])
    assert widening(bundle, on_site, 65).endswith("--gpu current --profile 1,65,65")


def test_a_good_engine_without_a_gpu(bundle: Bundle, keep: Keep) -> None:
    keep()
    (engine,) = find_engines(bundle)
    error = no_gpu([engine, engine], "no GPU here")
    assert error.exit_code == 4
    assert error.message == "no GPU here; the engine is good, fp32 for sm89, sm120"
    engine.path.write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="differs from its digest"):
        no_gpu([engine], "no GPU here")


def test_differences_are_field_by_field(bundle: Bundle) -> None:
    one, other = key_for(bundle), key_for(bundle, precision="fp16", gpus=["sm89"])
    assert differences(one, one) == {}
    assert differences(one, other) == {
        "gpus": (("sm89", "sm120"), ("sm89",)),
        "precision": ("fp32", "fp16"),
    }


def test_building_again_takes_the_engine_out_of_the_cache_first(bundle: Bundle) -> None:
    """The cache would give it back, and of one with another profile either might be chosen."""
    line = f"difftool compile {bundle.path} --trt --precision fp32 --gpu sm89,sm120"
    for changes, profile in (
        ({"profile": [4, 8, 64]}, " --profile 4,8,64"),
        ({"profile": [1, 64, 64], "batches": [1, 16, 64]}, ""),
    ):
        key = key_for(bundle, **changes)
        name = key_digest(key)[:12]
        assert rebuilding(bundle, key) == f"difftool cache rm {name}, then: {line}{profile}"
