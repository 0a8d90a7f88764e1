"""A checkpoint that says itself how it is trained further."""

from dataclasses import replace
from pathlib import Path

import pytest

from difftool import checkpoint as ckpt
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.errors import UsageError
from difftool.networks import build_network
from difftool.train.config import TrainConfig, apply_overrides, model_spec, network_call
from difftool.train.finetuning import finetune_config
from tests.fixtures import (
    CLASSES_NETWORK,
    CLASSES_SPEC,
    IMAGE_NETWORK,
    IMAGE_SPEC,
    POINTS_NETWORK,
    POINTS_SPEC,
)
from tests.train.conftest import run


def imported(folder: Path, spec: object, network: NetworkCall, **more: object) -> Path:
    """Write a checkpoint as an importer does: weights alone."""
    ckpt.save_checkpoint(
        folder,
        step=0,
        spec=spec,  # type: ignore[arg-type]
        network=network,
        sampler=SamplerCall("ddpm"),
        training=None,
        tensors={ckpt.MODEL: build_network(network).state_dict()},
        **more,  # type: ignore[arg-type]
    )
    return folder


def test_a_run_goes_on_as_it_was(images_config: TrainConfig, tmp_path: Path) -> None:
    run(images_config, tmp_path / "run", "run.steps=1")
    found = finetune_config(tmp_path / "run")
    init = f"network.init={tmp_path / 'run'}"
    assert found == apply_overrides(images_config, ["run.steps=1", init])
    other = finetune_config(tmp_path / "run", data="moons").data
    assert other == images_config.data.model_copy(update={"source": "moons"})


@pytest.mark.parametrize(
    ("spec", "network", "data"),
    [
        (IMAGE_SPEC, IMAGE_NETWORK, {"size": 8, "mode": "L"}),
        (
            CLASSES_SPEC,
            CLASSES_NETWORK,
            {"size": 8, "mode": "L", "labels": "label"},
        ),
        (POINTS_SPEC, POINTS_NETWORK, {}),
    ],
    ids=["images", "classes", "points"],
)
def test_of_an_import_it_has_the_model(
    spec: object, network: NetworkCall, data: dict[str, object], tmp_path: Path
) -> None:
    """So that the training's model is the checkpoint's, and data are made to fit it."""
    folder = imported(tmp_path / "c", spec, network)
    config = finetune_config(folder, data="somewhere")
    found = config.data.model_dump()
    assert found.items() >= {"source": "somewhere", **data}.items()
    made = model_spec(config, spec.shape, spec.classes)  # type: ignore[attr-defined]
    assert made.to_dict() == spec.to_dict()  # type: ignore[attr-defined]
    assert build_network(network_call(config, made)).state_dict().keys() == (
        build_network(network).state_dict().keys()
    )
    assert config.network.init == str(folder)
    with pytest.raises(UsageError, match=r"does not say which data .*give `data`"):
        finetune_config(folder)


def test_what_no_training_goes_on_with_is_refused(tmp_path: Path) -> None:
    edm = replace(IMAGE_SPEC, cond="quarter_log_sigma")
    folder = imported(tmp_path / "c", edm, IMAGE_NETWORK)
    with pytest.raises(UsageError, match="it has cond quarter_log_sigma, not timestep ") as caught:
        finetune_config(folder, data="digits")
    assert "--preset or --config" in caught.value.hint
    told = {"method": "consistency", "teacher_sha256": "0" * 64, "guidance_scale": 1.0}
    fast = imported(tmp_path / "f", IMAGE_SPEC, IMAGE_NETWORK, distilled=told)
    with pytest.raises(UsageError, match="is a distilled model"):
        finetune_config(fast, data="digits")
