"""Settings of an import that went wrong are refused in one line, or make a model that samples.

Each is said on the command line, which makes it the user's mistake, or in the configuration beside
the weights, which makes it the file's.
"""

import json
import random
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import torch

from difftool.errors import ArtefactError, DifftoolError
from difftool.importers import find, improved, ncsn, ncsnv2, score_sde
from difftool.importers.settings import Setting, SettingsMissing
from tests.oracles.plain_ncsnv2 import NCSNV2
from tests.oracles.plain_openai import Shape
from tests.oracles.plain_score_sde import Plain
from tests.reliability.criteria import Cases
from tests.reliability.refusals import refusal

COUNT: Final = {False: 40, True: 1500}
VALUES: Final = (
    *("0", "1", "2", "3", "-1", "7", "99999", str(2**31), str(2**63), "0x" + "f" * 5000),
    *("0.0", "-0.5", "0.5", "1e308", "-1e308", "1e-320", ".nan", ".inf", "nan", "inf", "1e400"),
    *('""', "x", "true", "false", "null", "[]", "[1]", "{a: 1}", "long" * 50_000, "'\\0'"),
    *("2001-01-01", "!!timestamp 99999-99-99", "!!bool maybe", "!!int ''", "*nothing", "&a [*a]"),
)
# What makes each of the models a good import.
SAID: Final[dict[str, dict[str, str]]] = {
    "ncsnv2": {
        "data.image_size": "8",
        "model.num_classes": "12",
        "model.sigma_begin": "5",
        "model.sigma_end": "0.01",
        "sampling.step_lr": "1e-5",
    },
    "improved": {
        "image_size": "8",
        "num_head_channels": "16",
        "use_new_attention_order": "false",
        "diffusion_steps": "20",
        "rescale_timesteps": "true",
        "noise_schedule": "cosine",
    },
    "score_sde": {
        "data.image_size": "8",
        "model.sigma_max": "5",
        "model.num_scales": "12",
        "model.fir": "true",
    },
}
MODULES: Final = {"ncsnv2": (ncsnv2, ncsn), "improved": (improved,), "score_sde": (score_sde,)}


@dataclass(frozen=True)
class Case:
    """A setting of a model with a wild value, said on the command line or in a file."""

    model: str
    setting: str
    value: str
    in_file: bool

    def __repr__(self) -> str:
        return f"{self.model} {self.setting}={self.value[:60]!a} {'file' * self.in_file}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models of three formats, each alone in a folder."""
    folder = tmp_path_factory.mktemp("models")
    contents: dict[str, Any] = {
        "ncsnv2": [NCSNV2.random_state(), {}, 3, 7],
        "improved": Shape().random_state(),
        "score_sde": Plain().file(),
    }
    for name, content in contents.items():
        (folder / name).mkdir()
        torch.save(content, folder / name / "weights")
    return folder


def names(*modules: ModuleType) -> list[str]:
    """Return the names of all settings of a format."""
    found = [item for module in modules for item in vars(module).values()]
    found += [item for module in modules for item in getattr(module, "FIXED", ())]
    return sorted({item.name for item in found if isinstance(item, Setting)})


def make_cases(count: int) -> list[Case]:
    known = [
        Case(model, *way)
        for model, modules in MODULES.items()
        for way in product(names(*modules), VALUES, (False, True))
    ]
    random.Random(0).shuffle(known)
    return known[:count]


@pytest.mark.criterion("fuzzing")
@pytest.mark.timeout(0)
def test_a_wild_setting_is_refused_or_imported(models: Path, cases: Cases, nightly: bool) -> None:
    cases.run(lambda case: check(case, models), make_cases(COUNT[nightly]))


@pytest.mark.criterion("fuzzing")
def test_the_models_are_good(models: Path, cases: Cases) -> None:
    cases.run(lambda name: importing(models / name, SAID[name]), list(SAID))


@pytest.mark.criterion("fuzzing")
def test_an_image_may_be_too_small(models: Path, cases: Cases) -> None:
    small = []
    for model, said in SAID.items():
        (name,) = (name for name in said if name.endswith("image_size"))
        small += [Case(model, name, *way) for way in product(("1", "3"), (False, True))]
    cases.run(lambda case: check(case, models), small)


def check(case: Case, models: Path) -> None:
    """Raise AssertionError if an import ends in another way than it should."""
    said = dict(SAID[case.model])
    if not case.in_file:
        importing(models / case.model, {**said, case.setting: case.value}, DifftoolError)
        return
    said.pop(case.setting, None)
    lines = [f"{json.dumps(name)}: {value}\n" for name, value in said.items()]
    config = models / case.model / "config.yml"
    config.write_text("".join([*lines, f"{json.dumps(case.setting)}: {case.value}\n"]))
    try:
        importing(models / case.model, {}, (ArtefactError, SettingsMissing))
    finally:
        config.unlink()


def importing(
    path: Path, said: dict[str, str], refusals: type[DifftoolError] | tuple[Any, ...] = ()
) -> None:
    """Import a model, or be told in one line of one of these kinds why not."""

    def read() -> None:
        assert find(path).read(said).largest_outputs is not None

    refused = refusal(read)
    assert refused is None or isinstance(refused, refusals), f"{type(refused).__name__}: {refused}"
