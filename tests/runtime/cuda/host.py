"""The CUDA kernels as plain C++: compiled by the machine's own compiler, called with numpy arrays.

`launch` takes a kernel's arguments as the GPU's launch does: arrays for pointers, numpy scalars for
values, None for a null pointer. It checks them against the kernel's declaration.
"""

import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from difftool.runtime.cuda.compile import KERNELS

SOURCES = ("noise", "slots")
TYPES = {
    "float": np.float32,
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "unsigned long long": np.uint64,
}

# The raw words have no kernel of their own: only a test wants to see them.
WORDS = """
#include "philox.cuh"
KERNEL words(unsigned* out, const unsigned* counter, const unsigned* key, long long count) {
    for (const unsigned* end = out + 4 * count; out < end; out += 4, counter += 4) {
        Words words = {{counter[0], counter[1], counter[2], counter[3]}};
        words = philox(words, key[0], key[1]);
        for (int i = 0; i < 4; ++i) out[i] = words.w[i];
    }
}
"""
# As NVRTC is told: no contraction to fused multiply-adds, no fast mathematics.
ARITHMETIC = ("-std=c++17", "-O2", "-ffp-contract=off")
WARNINGS = ("-Wall", "-Wextra", "-Werror")


@cache
def library() -> ctypes.CDLL:
    """Return the host build, made once in a process; skip the test if there is no compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        absent = pytest.fail if os.environ.get("CI") else pytest.skip
        absent("needs a C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "kernels.so")
        sources = [str(KERNELS / f"{name}.cu") for name in SOURCES]
        flags = [*ARITHMETIC, *WARNINGS, "-shared", "-fPIC", f"-I{KERNELS}", "-o", str(built)]
        command = [compiler, *flags, "-x", "c++", *sources, "-"]
        done = subprocess.run(command, input=WORDS, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(built))


@cache
def declaration(kernel: str) -> list[tuple[str, bool, np.dtype]]:
    """Return the name of each of a kernel's parameters, if it is a pointer, and its type."""
    text = WORDS + "".join((KERNELS / f"{name}.cu").read_text("utf-8") for name in SOURCES)
    found = re.search(rf"KERNEL {kernel}\(([^)]*)\)", text)
    assert found is not None, f"no kernel {kernel}"
    parameters = []
    for parameter in found[1].replace("__restrict__", "").replace("const ", "").split(","):
        kind, pointer, name = re.fullmatch(r"\s*([a-z ]+?)\s*(\*?)\s+(\w+)\s*", parameter).groups()
        parameters.append((name, bool(pointer), np.dtype(TYPES[kind])))
    return parameters


def launch(kernel: str, *arguments: NDArray | np.generic | None) -> None:
    """Run a kernel to its end. Arrays are written in place."""
    values = []
    for given, (name, pointer, dtype) in zip(arguments, declaration(kernel), strict=True):
        if pointer:
            if given is not None:
                assert isinstance(given, np.ndarray), f"{kernel}: {name} is a pointer"
                assert given.flags.c_contiguous, f"{kernel}: {name} is not contiguous"
                assert given.dtype == dtype, f"{kernel}: {name} is {dtype}, not {given.dtype}"
            values.append(ctypes.c_void_p(None if given is None else given.ctypes.data))
        else:
            assert isinstance(given, np.generic), f"{kernel}: {name} is a numpy scalar"
            assert given.dtype == dtype, f"{kernel}: {name} is {dtype}, not {given.dtype}"
            values.append(np.ctypeslib.as_ctypes_type(dtype)(given.item()))
    getattr(library(), kernel)(*values)
