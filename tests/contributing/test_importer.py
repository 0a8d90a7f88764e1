"""An importer is one new file, and one line with its import."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.contributing.conftest import Project, listed

IMPORTER = '''
"""An imaginary format: a multilayer perceptron of points, as `linear_0.weight` and so on."""

import re
from functools import partial
from typing import Final

from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.schedules import geometric
from difftool.diffusion.spec import ModelSpec
from difftool.importers.format import Format, Imported
from difftool.importers.settings import Setting, Settings
from difftool.importers.source import Source
from difftool.importers.tensors import as_weights, find_size, take

LEVELS: Final = Setting("levels", int, default=10)
SIGMA_MAX: Final = Setting("sigma_max", float, usual="5")


def _recognizes(source: Source) -> bool:
    return "linear_0.weight" in as_weights(source.content)


def _read(source: Source, settings: Settings) -> Imported:
    chosen = settings.choose(LEVELS, SIGMA_MAX)
    state = as_weights(source.content)
    dimensions = find_size(state, "linear_0.weight", axis=1)
    layers = len({name.partition(".")[0] for name in state})
    arguments = {
        "dimensions": dimensions,
        "hidden": find_size(state, "linear_0.weight"),
        "layers": layers,
    }
    network = NetworkCall("mlp", arguments)
    schedule = geometric(
        levels=chosen[LEVELS], sigma_min=0.1, sigma_max=chosen[SIGMA_MAX]
    )
    return Imported(
        spec=ModelSpec(
            shape=(dimensions,), schedule=schedule, parameterization="scaled_score", cond="level"
        ),
        network=network,
        tensors=take(state, network, partial(_theirs, layers=layers)),
        sampler=SamplerCall("euler", {"steps": 5}),
        weights="raw",
        chosen=chosen,
        files=source.files,
    )


def _theirs(name: str, layers: int) -> str:
    """Return the format's name of one of our tensors."""
    return re.sub(r"hidden\\.(\\d+)", r"linear_\\1", name).replace("out", f"linear_{layers - 1}")


FORMAT: Final = Format(
    title="an imaginary format",
    sign="tensors named linear_0",
    recognizes=_recognizes,
    read=_read,
)
'''

TEST = '''
"""A file of the format `mine` computes what its authors compute."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn.functional import linear, softplus

from difftool.networks import build_network
from tests.importers.conftest import read


@torch.no_grad()
def test_the_network_computes_what_the_file_means(save: Callable[..., Path]) -> None:
    sizes = {"linear_0": (3, 2), "linear_1": (2, 3)}
    state = {f"{name}.weight": torch.randn(size) for name, size in sizes.items()}
    state |= {f"{name}.bias": torch.randn(size[0]) for name, size in sizes.items()}
    imported = read(save(state), sigma_max=5)
    network = build_network(imported.network)
    network.load_state_dict(dict(imported.tensors))
    x = torch.randn(4, 2)
    hidden = softplus(linear(x, state["linear_0.weight"], state["linear_0.bias"]))
    expected = linear(hidden, state["linear_1.weight"], state["linear_1.bias"])
    assert torch.equal(network(x, network.condition(torch.zeros(4))), expected)
'''

DOCS = """### mine: an imaginary format

    difftool import points.safetensors --set sigma_max=5 --out points

"""

LIST = "src/difftool/importers/found.py"
# Two layers, as the imaginary authors save them.
TENSORS = {
    "linear_0.weight": np.ones((3, 2), np.float32),
    "linear_0.bias": np.zeros(3, np.float32),
    "linear_1.weight": np.full((2, 3), 0.5, np.float32),
    "linear_1.bias": np.zeros(2, np.float32),
}


@pytest.fixture(scope="module")
def importer(project: Project) -> Project:
    project.write("src/difftool/importers/mine.py", IMPORTER)
    project.insert(LIST, after="lucidrains,", lines="    mine,\n")
    project.insert(LIST, after='"lucidrains":', lines='    "mine": mine.FORMAT,\n')
    project.write("tests/importers/test_mine.py", TEST)
    project.replace("docs/importing.md", "## Safety\n", f"{DOCS}## Safety\n")
    return project


def test_the_list_names_all_files(importer: Project) -> None:
    assert importer.changed() == listed("An importer")
    assert importer.added(LIST) == ["mine,", '"mine": mine.FORMAT,']


def test_commands_find_it(importer: Project, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file(TENSORS, tmp_path / "points.safetensors")
    said = importer.difftool(
        tmp_path, "import points.safetensors --set sigma_max=5 --out points --json"
    )
    source = json.loads(said)["source"]
    assert (source["format"], source["from"]) == ("mine", "an imaginary format")
    assert source["settings"] == {"levels": 10, "sigma_max": 5.0}
    assert source["assumed"] == ["levels"]
    (weights,) = (tmp_path / "points").glob("*.safetensors")
    assert np.array_equal(load_file(weights)["out.weight"], TENSORS["linear_1.weight"])


def test_tests_find_it(importer: Project) -> None:
    importer.test("tests/importers/test_mine.py")
