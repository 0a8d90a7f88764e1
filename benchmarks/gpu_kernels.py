"""Count the kernels of a step on a GPU, before and after each lowering; no GPU is needed.

    python benchmarks/gpu_kernels.py --out benchmarks/results

TensorRT for RTX builds an engine for sm89 of each graph, and the engine says what it launches. A
launch takes a GPU some microseconds even if there is little to compute, so at small batches it is
the number of kernels that counts.
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import onnx
from common.inside_torch import GPU, build_engine, in_half, lowered, open_variant
from common.machine import version
from common.models import CASES, prepare
from common.report import Figure, finish, parser
from gpu.kernels import kernels

from difftool.bundle import EngineKey
from difftool.files import write_atomic

MOST = {"cifar10": 250, "ddpm-mnist": 150}  # kernels in fp16
PRECISIONS = ("fp16", "fp32", "tf32", "bf16")
HALF = ("fp16", "bf16")
STAGES = {"as exported": GPU[:0], "upsampling joined": GPU[:1], "and layer norms": GPU}
PROFILE = (1, 8, 64)


def main() -> int:
    arguments = parser(__doc__, "out", "work")
    arguments.add_argument("--model", choices=MOST, action="append", help="all by default")
    options = arguments.parse_args()
    figures = []
    for name in options.model or MOST:
        step = onnx.load(prepare(CASES[name], options.work).bundle.file("step.onnx"))
        for precision in PRECISIONS:
            for stage, lowerings in STAGES.items():
                found = counted(step, precision, lowerings, options.work / "kernels")
                judged = precision == "fp16" and lowerings == GPU
                label = f"{name}, {precision}, {stage}"
                limit = MOST[name] if judged else None
                figures.append(Figure(label, [found], unit="kernels", at_most=limit))
                print(*figures[-1].cells(), flush=True)
    return finish("gpu_kernels", figures, options, gpu="sm89", tensorrt_rtx=version("tensorrt_rtx"))


def counted(step: onnx.ModelProto, precision: str, lowerings: Sequence, folder: Path) -> int:
    """Count the kernels of a step graph in a precision after these lowerings; once, in a folder."""
    model = in_half(step, precision, lowerings) if precision in HALF else lowered(step, lowerings)
    variant = open_variant("tensorrt-rtx")
    key = EngineKey(
        onnx_sha256="0" * 64,
        recipe=0,
        flavour=variant.name,
        version=variant.version,
        gpus=("sm89",),
        precision=precision,
        profile=PROFILE,
    )
    about = (variant.version, precision, model.SerializeToString(deterministic=True))
    kept = folder / hashlib.sha256(repr(about).encode()).hexdigest()[:12]
    if not kept.is_file():
        write_atomic(kept, str(len(kernels(build_engine(model, key, variant)[0]))).encode())
    return int(kept.read_text())


if __name__ == "__main__":
    sys.exit(main())
