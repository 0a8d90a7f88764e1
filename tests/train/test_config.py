"""Configurations: read, overridden, printed, and what they say when they are wrong."""

import math
import re
import tomllib
from pathlib import Path

import pytest

from difftool.errors import UsageError
from difftool.train.config import (
    OptimizerConfig,
    TrainConfig,
    apply_overrides,
    model_spec,
    network_call,
    parse,
    read_toml,
    to_toml,
)
from difftool.train.distillation.config import DistillConfig
from difftool.train.reference import keys
from difftool.train.sections import Section


def test_a_configuration_is_read_as_it_was_written(
    images_config: TrainConfig, points_config: TrainConfig, tmp_path: Path
) -> None:
    awkward = 'a "folder"\\\t\x7f ü'
    config = apply_overrides(images_config, ["optimizer.eps=1e-09", "data.mode=L"])
    config = config.model_copy(update={"data": config.data.model_copy(update={"source": awkward})})
    for written in (config, points_config):
        (tmp_path / "c.toml").write_text(to_toml(written), encoding="utf-8")
        assert read_toml(tmp_path / "c.toml") == written
        assert parse(written.model_dump(mode="json")) == written


def test_overrides_are_toml_values_or_words(images_config: TrainConfig) -> None:
    config = apply_overrides(
        images_config,
        [
            "optimizer.lr=1e-4",
            "network.arguments.multipliers=[1, 2]",
            "data.source=some/folder",
            "optimizer.clip=none",
            "optimizer.betas=[0.5, 0.9]",
        ],
    )
    assert config.optimizer.lr == 1e-4
    assert config.network.arguments["multipliers"] == [1, 2]
    assert config.data.source == "some/folder"
    assert config.optimizer.clip is None
    assert config.optimizer.betas == (0.5, 0.9)
    assert images_config.optimizer.lr == 1e-3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.weight_decay=0.1", r"weight_decay 0\.1 with the optimizer adam.*kind=adamw"),
        ("optimizer.weight_decay=-1", r"optimizer\.weight_decay"),
        ("validation={share=0.1,split='test'}", "share and validation.split are both given"),
        ("validation.share=1", r"validation\.share"),
        ("validation.every=0", r"validation\.every"),
        ("run.trackers=['mlflow']", r"run\.trackers.*'tensorboard' or 'wandb'"),
        ("optimizer.rate=1", r"optimizer\.rate.*\(known here: kind, lr, betas"),
        ("optimiser.lr=1", "no section 'optimiser'.*optimizer"),
        ("optimizer.lr=fast", r"optimizer\.lr"),
        ("optimizer.lr=nan", r"optimizer\.lr"),
        ("run.steps=0", r"run\.steps"),
        ("run.precision=fp8", r"run\.precision.*'no', 'bf16' or 'fp16'"),
        ("optimizer.accumulate=3", "does not split"),
        ("loss.label_dropout=0.1", r"label_dropout 0\.1 without labels.*data\.labels"),
        ("loss.label_dropout=1", r"loss\.label_dropout"),
        ("loss={kind='hybrid',min_snr=5.0}", r"min_snr 5\.0 with the loss 'hybrid'.*simple alone"),
        ("loss.min_snr=0", r"loss\.min_snr"),
        ("loss.kind=denoising", "no loss 'denoising'.*simple, hybrid"),
        ("method=gan", "method"),
        ("optimizer.lr", "assigns nothing"),
        ("optimizer.lr.x=1", "no section 'lr'"),
    ],
)
def test_bad_overrides_name_keys(images_config: TrainConfig, override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        apply_overrides(images_config, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [TrainConfig, DistillConfig])
def test_every_key_says_what_it_is(kind: type[Section]) -> None:
    found = {key.name: key for key in keys(kind)}
    assert all(key.text.endswith((".", ")")) for key in found.values()), found
    assert (found["optimizer.lr"].default, found["run.batch"].default) == ("", "128")
    assert found["run.sample_every"].default == "none"


def test_a_written_configuration_has_every_key_with_its_text(images_config: TrainConfig) -> None:
    """Also those that are not set; and it can be read, whatever its arguments hold."""
    awkward = {
        'a "key"\n': [{"b.c": []}, [1, "\t"]],
        "": {"inner": {"x y": True}},
        "of": [{"x": 1}, {"x": 2}],
    }
    network = images_config.network.model_copy(update={"arguments": awkward})
    config = images_config.model_copy(update={"network": network, "schedule": {}})
    text = to_toml(config)
    assert TrainConfig.model_validate(tomllib.loads(text)) == config
    assert max(map(len, text.splitlines())) < 100
    plain = " ".join(text.replace("\n#", "").split())
    for key in keys(TrainConfig):
        last = key.name.rpartition(".")[2]
        assert key.text in plain, key.name
        assert re.search(rf"^(# )?{last} =|^\[.*{last}\]", text, re.MULTILINE), key.name
        if key.default:
            assert key.name.endswith("arguments") or f"Default: {key.default}." in plain
    assert "# sample_every =\n" in text


@pytest.mark.parametrize("text", ["method = ", "method = 'ddpm'", "\xff"])
def test_bad_files_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as caught:
        read_toml(tmp_path / "c.toml")
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"absent\.toml"):
        read_toml(tmp_path / "absent.toml")


def test_learning_rate_course() -> None:
    settings = OptimizerConfig(lr=2.0, warmup=4, decay="cosine")
    assert [settings.lr_at(step, 14) for step in range(5)] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert settings.lr_at(9, 14) == pytest.approx(1.0)
    assert settings.lr_at(13, 14) == pytest.approx(1 - math.cos(math.pi / 10))
    linear = OptimizerConfig(lr=2.0, decay="linear")
    assert [linear.lr_at(step, 4) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    constant = OptimizerConfig(lr=2.0, warmup=1)
    assert {constant.lr_at(step, 3) for step in range(3)} == {2.0}


def test_specs_of_both_methods(images_config: TrainConfig, points_config: TrainConfig) -> None:
    images = model_spec(images_config, (1, 8, 8))
    assert (images.cond, images.data_range) == ("timestep", (-1.0, 1.0))
    assert network_call(images_config, images).arguments["out_channels"] == 1
    learned = model_spec(apply_overrides(images_config, ["loss.kind=hybrid"]), (3, 8, 8))
    assert learned.learned_variance
    assert network_call(images_config, learned).arguments["out_channels"] == 6
    points = model_spec(points_config, (2,))
    assert (points.cond, points.data_range, len(points.schedule)) == ("level", None, 4)
    assert network_call(points_config, points).arguments == {
        "dimensions": 2,
        "hidden": 8,
        "levels": 4,
    }
    assert model_spec(points_config, (1, 8, 8)).data_range == (0.0, 1.0)


def test_labels_make_classes(images_config: TrainConfig, points_config: TrainConfig) -> None:
    labelled = apply_overrides(images_config, ["data.labels=label"])
    spec = model_spec(labelled, (1, 8, 8), classes=10)
    assert (spec.classes, spec.null_label) == (10, False)
    dropping = apply_overrides(labelled, ["loss.label_dropout=0.1"])
    spec = model_spec(dropping, (1, 8, 8), classes=10)
    assert (spec.classes, spec.null_label) == (10, True)
    for config in (dropping, points_config):
        arguments = network_call(config, spec).arguments
        assert (arguments["classes"], arguments["null_label"]) == (10, True)
    ncsn = apply_overrides(dropping, ["network.kind=ncsnv2"])
    with pytest.raises(UsageError, match=r"'ncsnv2' takes no labels.*mlp, unet"):
        network_call(ncsn, spec)


def test_none_takes_a_setting_away(images_config: TrainConfig) -> None:
    """TOML has no word for it, so a setting that is none is one that is not given."""
    asked = [
        "network.arguments.heads=none",
        "network.arguments.groups=none",
        "schedule.steps=none",
        "run.sample_every=none",
    ]
    config = apply_overrides(images_config, asked)
    assert {"heads", "groups"}.isdisjoint(config.network.arguments)
    assert "steps" not in config.schedule
    assert parse(tomllib.loads(to_toml(config))) == config
    nested = config.model_dump() | {"schedule": {"kind": "linear", "of": [1, None]}}
    with pytest.raises(UsageError, match="a list holds none"):
        parse(nested)


@pytest.mark.parametrize("levels", [1, 1000, "many"])
def test_a_network_of_other_levels_than_the_schedules(
    points_config: TrainConfig, levels: object
) -> None:
    spec = model_spec(points_config, (2,))
    count = len(spec.schedule)
    asked = apply_overrides(points_config, [f"network.arguments.levels={count}"])
    assert network_call(asked, spec) == network_call(points_config, spec)
    wrong = apply_overrides(points_config, [f"network.arguments.levels={levels}"])
    with pytest.raises(UsageError, match=rf"levels is .*, and the schedule has {count} \(leave it"):
        network_call(wrong, spec)
