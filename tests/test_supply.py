"""Every package is installed by its hash, and none is older than what is known to be safe."""

import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT: Final = Path(__file__).resolve().parents[1]
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LISTS: Final = ("build", "demo", "dev", "oldest", "serve-cpu", "serve-gpu", "triton")
TORCH: Final = "torch"  # the one without a hash; requirements/torch.txt says why
OLDEST_EXTRAS: Final = ("cpu", "openvino", "export", "plot", "test")

# The first version without what an advisory describes, of what reads files and answers of others.
# No advisory was known of the other direct dependencies when this was written.
SAFE: Final = {
    "aiohttp": ("3.13.3", "CVE-2025-69223"),
    "babel": ("2.9.1", "CVE-2021-42771"),
    "brotli": ("1.2.0", "CVE-2025-6176"),
    "certifi": ("2024.7.4", "CVE-2024-39689"),
    "cryptography": ("46.0.5", "CVE-2026-26007"),
    "filelock": ("3.20.3", "CVE-2026-22701"),
    "fonttools": ("4.60.2", "CVE-2025-66034"),
    "gevent": ("23.9.0", "CVE-2023-41419"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "idna": ("3.7", "CVE-2024-3651"),
    "jaraco-context": ("6.1.0", "CVE-2026-23949"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "joblib": ("1.2.0", "CVE-2022-21797"),
    "numpy": ("1.22.2", "CVE-2021-41495"),
    "onnx": ("1.21.0", "CVE-2026-27489, CVE-2026-34446, CVE-2026-34447, CVE-2026-49114"),
    "onnxruntime": ("1.24.1", "tried: older ones read external data from ../ and from /"),
    "onnxruntime-gpu": ("1.24.1", "as onnxruntime"),
    "pillow": ("12.3.0", "PYSEC-2026-2253 to -2257, CVE-2026-40192, CVE-2026-25990"),
    "protobuf": ("6.31.1", "CVE-2025-4565"),
    "pyarrow": ("14.0.1", "CVE-2023-47248"),
    "pyasn1": ("0.6.2", "CVE-2026-23490"),
    "pydantic": ("2.4.0", "CVE-2024-3772"),
    "pyyaml": ("5.4", "CVE-2020-14343"),
    "ray": ("2.54.0", "CVE-2026-27482"),
    "requests": ("2.33.0", "CVE-2026-25645"),
    "scikit-learn": ("1.5.0", "CVE-2024-5206"),
    "setuptools": ("78.1.1", "CVE-2025-47273"),
    "starlette": ("0.49.1", "CVE-2025-62727"),
    "torch": ("2.10.0", "CVE-2025-32434, CVE-2026-24747"),
    "tqdm": ("4.66.3", "CVE-2024-34062"),
    "urllib3": ("2.7.0", "CVE-2026-44431, CVE-2026-44432"),
    "virtualenv": ("20.36.1", "CVE-2026-22702"),
    "websockets": ("9.1", "CVE-2021-33880"),
    "werkzeug": ("3.1.4", "CVE-2025-66221"),
    "zipp": ("3.19.1", "CVE-2024-5569"),
}


def entries(name: str) -> Iterator[tuple[Requirement, int]]:
    """Yield what a list asks for, and how many hashes it has of each."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if words := line.partition("#")[0].strip():
            asked, *hashes = re.split(r"\s+--hash=sha256:(?=[0-9a-f]{64}\b)", words)
            yield Requirement(asked), len(hashes)


def pinned(name: str) -> dict[str, set[Version]]:
    """Return the versions of each package; several for different systems."""
    found: dict[str, set[Version]] = {}
    for entry, _ in entries(name):
        (only,) = entry.specifier
        assert only.operator == "==", entry
        found.setdefault(canonicalize_name(entry.name), set()).add(Version(only.version))
    return found


def asked(*extras: str) -> Iterator[Requirement]:
    """Yield what pyproject.toml asks for, with what its own extras stand for."""
    lists = PROJECT["optional-dependencies"]
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in lists[extra])]:
        requirement = Requirement(line)
        if requirement.name == "difftool":
            yield from asked(*requirement.extras)
        else:
            yield requirement


def lowest(requirement: Requirement) -> Version:
    """Return the oldest version that is allowed."""
    (bound,) = [each for each in requirement.specifier if each.operator == ">="]
    return Version(bound.version)


@pytest.mark.parametrize("name", LISTS)
def test_every_package_has_a_version_and_hashes(name: str) -> None:
    found = list(entries(name))
    assert found
    for entry, hashes in found:
        assert hashes > 0, entry
        assert [each.operator for each in entry.specifier] == ["=="], entry
        assert entry.name != TORCH


def test_torch_alone_has_no_hash() -> None:
    ((entry, hashes),) = entries("torch")
    assert (entry.name, hashes) == (TORCH, 0)


def commands(target: str) -> list[str]:
    """Return what make would run, on a fresh checkout."""
    line = ["make", "--dry-run", "--always-make", "--no-print-directory", target]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("target", ["demo", "test", "test-oldest"])
def test_make_installs_by_hash(target: str) -> None:
    installing = [line for line in commands(target) if "pip install" in line]
    unhashed = [line for line in installing if "--require-hashes" not in line]
    assert len(installing) > len(unhashed)
    for line in unhashed:
        itself = line.endswith("--no-deps --no-build-isolation -e .")
        assert itself or line.endswith("-r requirements/torch.txt"), line
    for line in installing:
        assert "--retries" in line
        assert "again" in line or line.endswith("-e ."), line


def run_again(failures: int, folder: Path, line: Callable[[str], list[str]]) -> tuple[int, int]:
    """Try a command again that fails so many times; return its exit code and its tries."""
    (folder / "sleep").write_text("#!/bin/sh\n")
    tries = folder / "tries"
    script = f"#!/bin/sh\necho >> {tries}\ntest $(wc -l < {tries}) -gt {failures}\n"
    (folder / "flaky").write_text(script)
    for name in ("sleep", "flaky"):
        (folder / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    command = line(str(folder / "flaky"))
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
    return done.returncode, len(tries.read_text().splitlines())


@pytest.mark.parametrize("where", ["make", ".ci/run"])
def test_what_fails_for_a_moment_is_tried_again(where: str, tmp_path: Path) -> None:
    (again,) = re.findall(r"^again\(\) .*$", (ROOT / ".ci" / "run").read_text(), re.M)

    def line(command: str) -> list[str]:
        if where == "make":
            return ["make", f"--eval=try: ; $(AGAIN) {command}", "try"]
        return ["bash", "-ec", f"{again}\nagain {command}"]

    for failures, expected in ((0, (True, 1)), (2, (True, 3)), (3, (False, 3))):
        folder = tmp_path / str(failures)
        folder.mkdir()
        code, tries = run_again(failures, folder, line)
        assert (code == 0, tries) == expected


def test_nothing_is_older_than_what_is_safe() -> None:
    for name in (*LISTS, "torch"):
        for package, versions in pinned(name).items():
            if package in SAFE:
                safe, advisory = SAFE[package]
                assert min(versions) >= Version(safe), f"{name}: {package}: {advisory}"


def test_nothing_that_is_allowed_is_older_than_what_is_safe() -> None:
    for requirement in asked(*PROJECT["optional-dependencies"]):
        name = canonicalize_name(requirement.name)
        safe, advisory = SAFE.get(name, ("0", ""))
        assert lowest(requirement) >= Version(safe), f"{requirement}: {advisory}"


def test_the_lists_are_of_this_pyproject() -> None:
    """Else run `make lock`."""
    for name, extras in (
        ("dev", ["dev"]),
        ("demo", ["cpu", "train", "export"]),
        ("serve-cpu", ["cpu", "serve"]),
        ("serve-gpu", ["gpu", "serve"]),
    ):
        found = pinned(name) | pinned("torch")
        for requirement in asked(*extras):
            for version in found[canonicalize_name(requirement.name)]:
                assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_oldest_list_is_the_lower_bounds() -> None:
    """Or the oldest that a system has, as numpy 2.1 for Python 3.13; else run `make lock`."""
    found = pinned("oldest") | pinned("torch")
    for requirement in asked(*OLDEST_EXTRAS):
        bound = lowest(requirement)
        assert min(found[canonicalize_name(requirement.name)]) == bound, requirement
