"""Read the names and signatures of TensorRT's Python API out of NVIDIA's own bindings.

    python tests/oracles/tensorrt_names.py FOLDER

FOLDER gets the wheels of `SOURCES`, by pip. They hold the bindings alone, and TensorRT's libraries
are not needed to read them: an extension module describes itself. A library that it links to is
replaced by an empty one, so gcc is needed. The result is `tensorrt_api.json`, a line for each name:
the versions that have it. `tensorrt_api.py` makes stand-ins from that.
"""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

# Version -> the requirement of its bindings. 10.7 is the oldest that difftool allows.
SOURCES = {
    "10.7": "tensorrt-cu12-bindings==10.7.0",
    "10.13": "tensorrt-cu12-bindings==10.13.0.35",
    "11.0": "tensorrt-cu13-bindings==11.0.0.114",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
    "rtx-1.7": "tensorrt-rtx-cu13-bindings==1.7.1.116",
}
# What difftool uses, and what these take and return.
CLASSES = [
    *("Builder", "BuilderFlag", "ComputeCapability", "DynamicShapesKernelSpecializationStrategy"),
    *("ExecutionContextAllocationStrategy", "HardwareCompatibilityLevel", "IBuilderConfig"),
    *("ICudaEngine", "IExecutionContext", "IHostMemory", "ILogger", "INetworkDefinition"),
    *("IOptimizationProfile", "IProgressMonitor", "IRuntimeCache", "IRuntimeConfig", "ITensor"),
    *("ITimingCache", "Logger", "NetworkDefinitionCreationFlag", "OnnxParser", "ParserError"),
    *("Runtime", "TensorIOMode"),
]
OUT = Path(__file__).with_name("tensorrt_api.json")
_STUB = ("INTERNAL", "Plugin", "NvOnnxParserVersion")  # the functions that the bindings import


def signature(line: str) -> str:
    """Shorten "f(self: a.b.C, x: typing.SupportsInt) -> bool" to "x: int"."""
    inside = line[line.index("(") + 1 : line.rindex(") ->")]
    inside = re.sub(r"<(\w+\.\w+): -?\d+>", r"\1", inside)  # a default that is an enum's member
    inside = (
        inside.replace("typing.SupportsInt", "int")
        .replace("typing.SupportsFloat", "float")
        .replace(": buffer", ": Buffer")
    )
    inside = re.sub(r"(?:\w+(?:\.|::))+(\w+)", r"\1", inside)
    parts = re.split(r", (?![^\[]*\])", inside)
    return ", ".join(part for part in parts if not part.startswith("self:"))


def describe(module: Any) -> list[str]:
    """Return a line for each name: "C.f(x: int)", "C.property", "C=MEMBER" and "C"."""
    found = []
    for name in CLASSES:
        if (kind := getattr(module, name, None)) is None:
            continue
        found.append(name)
        if hasattr(kind, "__members__"):
            found += [f"{name}={member}" for member in kind.__members__]
            continue
        for member, value in vars(kind).items():
            if member.startswith(("_", "add_")) and member != "add_optimization_profile":
                continue  # the second adds a layer to a network, which the parser does for us
            text = (value.__doc__ or "") if callable(value) else ""
            lines = re.findall(rf"^(?:\d+\. )?{member}\(.*\) -> .*$", text, re.MULTILINE)
            found += [f"{name}.{member}({signature(line)})" for line in lines] or [
                f"{name}.{member}"
            ]
    return found


def unpack(folder: Path, requirement: str) -> Path:
    """Download a wheel, unpack it, and put empty libraries next to it. Return its module."""
    place = folder / requirement.replace("==", "-")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "-d", str(place)]
    subprocess.run([*pip, requirement], check=True)
    zipfile.ZipFile(next(place.glob("*.whl"))).extractall(place)
    module = next(place.glob("*/tensorrt*.so"))
    wanted = subprocess.run(
        ["readelf", "-d", "-W", "--dyn-syms", module], check=True, capture_output=True, text=True
    ).stdout
    names = re.findall(rf" UND (\w*(?:{'|'.join(_STUB)})\w*)", wanted)
    source = "\n".join(f"void* {name}(void) {{ return 0; }}" for name in sorted(set(names)))
    for library in re.findall(r"\[(lib\w*(?:nv|tensorrt)\w*\.so[\w.]*)\]", wanted):
        build = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", place / library]
        subprocess.run([*build, f"-Wl,-soname,{library}"], input=source, text=True, check=True)
    return module


def main(folder: Path) -> None:
    has: dict[str, list[str]] = {}
    for version, requirement in SOURCES.items():
        module = unpack(folder, requirement)
        line = [sys.executable, __file__, "--describe", module.parent.name]
        paths = {"LD_LIBRARY_PATH": str(module.parents[1]), "PYTHONPATH": str(module.parents[1])}
        done = subprocess.run(line, env=paths, check=True, stdout=subprocess.PIPE, text=True)
        for name in done.stdout.splitlines():
            has.setdefault(name, []).append(version)
    names = {name: " ".join(versions) for name, versions in sorted(has.items())}
    OUT.write_text(json.dumps({"sources": SOURCES, "names": names}, indent=0) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "--describe":
        print("\n".join(describe(__import__(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
