"""B5: a configuration or data set that cannot be trained is refused before anything is written.

If it is accepted, it is trained for one step, and must save a checkpoint. Only a loss that is not
finite may end that step, since nobody can foresee it.
"""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from difftool import checkpoint as ckpt
from difftool.errors import CheckFailed
from difftool.train import data, state, trainer
from difftool.train.config import DataConfig, TrainConfig, apply_overrides, model_spec, network_call
from difftool.train.ncsnv2 import resolve
from difftool.train.presets import preset_names
from difftool.train.rehearsal import rehearse
from difftool.train.state import TrainState
from tests.reliability.criteria import Cases
from tests.reliability.refusals import refusal
from tests.reliability.wild_data import NEVER, Source, sources
from tests.reliability.wild_recipes import Recipe, recipes, small

COUNT: Final = {False: 40, True: 2000}
DAMAGED: Final = {False: 8, True: 200}
IMAGES: Final = {"mnist": (28, 28), "cifar10": (32, 32, 3)}

Check = Callable[[Recipe], None]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write data sets of four images, in the sizes that the presets need."""
    folder = tmp_path_factory.mktemp("images")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        for name, shape in IMAGES.items():
            pixels = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
            columns = {"image": [Image.fromarray(p) for p in pixels], "label": [0, 1, 2, 1]}
            made = datasets.Dataset.from_dict(columns, features=features)
            made.to_parquet(folder / f"{name}.parquet")
        yield folder


@pytest.fixture
def check(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Train a recipe for one step; AssertionError if `judge` finds fault with its end."""
    base = functools.cache(lambda name: small(name, images))

    def one_step(begun: TrainState, run: Path, *_: object) -> dict[str, float]:
        trainer.Window(begun).add(*begun.advance())
        begun.save(run)
        return {}

    monkeypatch.setattr(trainer, "load_data", functools.cache(data.load_data))
    monkeypatch.setattr(trainer, "_loop", one_step)

    def run(recipe: Recipe) -> None:
        folder = tmp_path / "run"
        try:
            judge(lambda: apply_overrides(base(recipe.preset), recipe.overrides), folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return run


def judge(make: Callable[[], TrainConfig], folder: Path) -> None:
    """Train into a folder; a refusal must be one line, and must leave nothing there."""

    def one_step() -> None:
        saved = trainer.train(make(), folder).checkpoint
        assert ckpt.read_config(saved)["step"] == 1

    refused = refusal(one_step)
    # A loss that is not finite is found only after the run's folder was made.
    left = folder.exists() and not isinstance(refused, CheckFailed)
    assert refused is None or not left, f"{refused}: a run is left"


@pytest.mark.criterion("B5")
@pytest.mark.timeout(0)
def test_a_wild_configuration(check: Check, cases: Cases, nightly: bool) -> None:
    cases.run(check, recipes(COUNT[nightly]))


@pytest.mark.criterion("B5")
def test_a_narrow_preset_is_not_refused(cases: Cases, images: Path) -> None:
    """So a configuration above is refused only for what is wild in it."""
    cases.run(lambda name: rehearsed(small(name, images)), preset_names())


@pytest.mark.criterion("B5")
@pytest.mark.timeout(0)
def test_a_wild_data_set_is_refused_or_read(images: Path, cases: Cases, nightly: bool) -> None:
    found = list(sources(images, DAMAGED[nightly]))
    cases.run(read_source, found if nightly else found[::3])  # each has 8 options; 3 misses none


def read_source(source: Source) -> None:
    """Read a data set, which must be small; a refusal must be one line."""

    def read() -> None:
        found = data.load_data(DataConfig(source=source.path, **dict(source.options)), 0)
        assert source.name not in NEVER
        assert found.items.dtype == torch.uint8
        assert found.items.ndim == 4
        # A damaged header may claim a large image: as large as Pillow opens without a warning.
        largest = len(found.items) * found.items.shape[1] * Image.MAX_IMAGE_PIXELS
        assert 0 < found.items.numel() <= largest
        if found.labels is not None:
            assert found.labels.shape == (len(found.items),)
            assert 0 <= found.labels.min() <= found.labels.max() < found.classes

    refusal(read)


def rehearsed(config: TrainConfig) -> None:
    """Rehearse the first step of a configuration."""
    found = data.load_data(config.data, 0)
    config = resolve(config, found)
    spec = model_spec(config, found.shape, found.classes)
    rehearse(config, spec, network_call(config, spec), found)


@pytest.mark.seeded("B5")
def test_a_training_without_rehearsal_is_seen(
    check: Check, cases: Cases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "rehearse", lambda *_: None)
    misfits = [Recipe("ddpm-mnist", ("data.size=7",)), Recipe("ddpm-mnist", ("data.source=moons",))]
    with pytest.raises(AssertionError, match="2 of 2 failed"):
        cases.run(check, misfits)
