"""difftool web: the files of a page; tests/browser shows that they work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from difftool.bundle import read_bundle
from difftool.compile import web
from difftool.compile.sampler_onnx.site import RUNTIME
from difftool.errors import UsageError
from tests.cli.conftest import Command, tree


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that looks like npm's, of files with nothing in them."""
    folder = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    folder.mkdir(parents=True)
    for name in RUNTIME:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.usefixtures("runtime")
def test_the_page_is_complete(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    record = difftool("web", tiny_bundle, "--sampler", "ddim", "--steps", 6, "--json").json()
    site = tmp_path / "site"
    files = {file.relative_to(site).as_posix() for file in site.rglob("*") if file.is_file()}
    assert record["files"] == len(files)
    assert {"index.html", "app.js", "worker.js", "model/sampler.onnx"} < files
    assert {f"ort/{name}" for name in RUNTIME} < files
    model = json.loads((site / "model" / "model.json").read_text())
    assert model["shape"] == [1, 8, 8]
    first, *others = model["programs"]
    assert (first["sampler"], first["steps"]) == ("ddim", 6)
    assert {f"model/{program['file']}" for program in model["programs"]} < files
    offered = [(program["sampler"], program["steps"]) for program in others]
    assert ("dpmpp_2m", 20) in offered
    assert ("dpmpp_2m", 50) not in offered  # a model of 20 levels


@pytest.mark.parametrize("inside", [".", "node_modules", "node_modules/onnxruntime-web/dist"])
@pytest.mark.usefixtures("runtime")
def test_the_runtime_is_found(difftool: Command, tiny_bundle: Path, inside: str) -> None:
    assert difftool("web", tiny_bundle, "--runtime", inside).code == 0


def test_without_the_runtime(difftool: Command, tiny_bundle: Path, tmp_path: Path) -> None:
    done = difftool("web", tiny_bundle)
    done.refused(4, "error: node_modules holds no onnxruntime-web", "hint: run: npm ")
    assert tree(tmp_path) == {}


def test_what_has_no_picture_has_no_page(tiny_bundle: Path, tmp_path: Path, runtime: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    flat = replace(bundle, spec=replace(bundle.spec, shape=(64,)))
    with pytest.raises(UsageError, match=r"cannot show samples of shape \(64,\)"):
        web(flat, tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()


@pytest.mark.usefixtures("runtime")
def test_a_page_is_replaced_by_force(difftool: Command, tiny_bundle: Path) -> None:
    assert difftool("web", tiny_bundle).code == 0
    assert difftool("web", tiny_bundle).code == 2
    assert difftool("web", tiny_bundle, "--force").code == 0
