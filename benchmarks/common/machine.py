"""The machine that a benchmark runs on; imports the standard library alone."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("difftool", "numpy", "onnxruntime", "openvino", "torch", "diffusers")
# What speed depends on most, by Linux's flags.
INSTRUCTIONS: Mapping[str, frozenset[str]] = {
    "AVX2": frozenset({"avx2"}),
    "AVX512": frozenset({"avx512f"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni"}),
    "BF16": frozenset({"avx512_bf16", "amx_bf16"}),
}


def machine() -> dict[str, Any]:
    """Describe what timings depend on; nothing in it names the machine or its user."""
    return {
        "cpu": " ".join(_cpuinfo("model name")[:1]) or platform.processor() or "unknown",
        "instructions": " ".join(instructions()) or "unknown",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
        **{name: found for name in _PACKAGES if (found := version(name))},
    }


def instructions() -> list[str]:
    """List those of INSTRUCTIONS that this CPU has; none if Linux does not say."""
    flags = set(" ".join(_cpuinfo("flags")[:1]).split())
    return [name for name, signs in INSTRUCTIONS.items() if flags & signs]


def version(package: str) -> str | None:
    """Look up an installed package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpuinfo(key: str) -> list[str]:
    """Read what Linux says of the CPU under a key, once for each core."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
