"""A Ray cluster of this machine, which starts however loaded the machine is.

Ray waits 15 seconds for the ports of helpers that it starts in Python, and gives up. That limit
cannot be set. So the ports are chosen here, and written where Ray looks for them: a cluster without
a dashboard makes no use of the helpers.
"""

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

from difftool.alone import ray_core
from difftool.scale.workers import sigterm_kept

CORES: Final = 2

_NAMES: Final = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
_NODE_ID, _SESSION = 2, 11  # the places of these arguments


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster, to which this process is connected."""
    pytest.importorskip("ray")
    ray = ray_core()
    with sigterm_kept(), unhurried():
        ray.init(
            address="local",
            num_cpus=CORES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # By default workers give way to whatever else the machine does, and wait for ever.
            _system_config={"worker_niceness": 0},
        )
    yield ray.get_runtime_context().gcs_address
    with sigterm_kept():
        ray.shutdown()


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Let Ray start without a look at its helpers."""
    from ray._private import services

    start = services.start_raylet

    def patient(*arguments: Any, **named: Any) -> Any:
        for name in _NAMES:
            Path(arguments[_SESSION], f"{name}_{arguments[_NODE_ID]}").write_text("-1")
        return start(*arguments, **{**named, "runtime_env_agent_port": free_port()})

    with mock.patch.object(services, "start_raylet", patient):
        yield


def free_port() -> int:
    """Return a port of this machine at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
