"""The workers of a cluster: what they say when something goes wrong."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from difftool import scale
from difftool.errors import CheckFailed, ResourceError, UsageError
from difftool.scale import work, workers
from tests.cli.conftest import Command, difftool  # noqa: F401
from tests.scale.cluster import CORES, cluster  # noqa: F401

pytestmark = [pytest.mark.timeout(3600), pytest.mark.usefixtures("cluster")]


def sample(out: Path, **options: Any) -> scale.Manifest:
    return scale.sample("ddpm-mnist", out, **{"n": 2, "ray": "local", "max_batch": 2, **options})


def test_a_cluster_does_not_report() -> None:
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()


def test_a_line_on_a_cluster(difftool: Command) -> None:  # noqa: F811
    line = ("sample", "--steps", 2, "-n", 4, "--shard-size", 2, "--max-batch", 2, "--json")
    ray = difftool(*line, "--ray", "local", "--out", "ray").json()
    alone = difftool(*line, "--out", "alone").json()
    assert scale.read_manifest("ray") == scale.read_manifest("alone")
    assert ray["samples_sha256"] == alone["samples_sha256"]


def test_an_error_of_a_worker_is_raised_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(job: Any, first: int, n: int) -> bytes:
        raise CheckFailed("a sample is not finite", "take smaller steps")

    monkeypatch.setattr(work, "draw", draw)
    with pytest.raises(CheckFailed) as caught:
        sample(tmp_path / "out")
    assert str(caught.value) == "a sample is not finite (take smaller steps)"


def test_a_shard_that_kills_each_worker_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(job: Any, first: int, n: int) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""

    with monkeypatch.context() as patch:
        patch.setattr(work, "draw", draw)
        patch.setattr(workers, "_RETRIES", 1)
        with pytest.raises(ResourceError, match=r"gave a task up.*repeat the command"):
            sample(tmp_path / "out")
    assert scale.read_manifest(tmp_path / "out").shards == []
    assert sample(tmp_path / "out").samples_sha256


def test_a_task_for_which_no_machine_is_large_enough(tmp_path: Path) -> None:
    for options in ({"cpus_per_task": CORES + 1}, {"gpus_per_task": 1}):
        with pytest.raises(UsageError, match="no machine of the cluster has"):
            sample(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
