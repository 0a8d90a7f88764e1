"""The stages of the GPU benchmark, in order of value: what each one answers, and with what."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from common.candidates import COMPILE, EAGER, PIPELINE

from gpu.candidates import AOT, GRAPHED, HALVES, KINDS, SWEEP, Kind

Turn = list[tuple[Kind, str]]  # candidates that are opened, and then timed in the same rounds


class Part(NamedTuple):
    """Batches of a model in one process, and how much of the time that is left they may have."""

    model: str
    batches: tuple[int, ...]
    weight: float = 1


@dataclass(frozen=True)
class Stage:
    """A stage of the benchmark.

    - `needs`: the packages without which nothing of it can be done
    - `timed`: whether candidates are timed, or only compared with PyTorch
    - `keep`: whether all candidates stay open, so that later turns time them again
    """

    name: str
    answers: str
    needs: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    turns: tuple[Turn, ...] = ()
    timed: bool = True
    keep: bool = True

    @property
    def candidates(self) -> Turn:
        """List the candidates in the order in which they are opened."""
        return [candidate for turn in self.turns for candidate in turn]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """List the models with their batches."""
        return [(part.model, size) for part in self.parts for size in part.batches]

    def dry(self) -> "Stage":
        """Return the same stage on the tiny model."""
        return replace(self, parts=(Part("tiny", (2,)),)) if self.parts else self


def _of(precisions: tuple[str, ...], *names: str) -> Turn:
    return [
        (kind, precision)
        for kind in KINDS
        if kind.name in names
        for precision in precisions
        if precision in kind.precisions
    ]


_QUICK = [kind.name for kind in KINDS if kind.ours and not kind.slow]
_OURS = tuple(name for name in _QUICK if "no graphs" not in name)
_PLAIN = tuple(name for name in _QUICK if "no graphs" in name)
_SLOW = tuple(kind.name for kind in KINDS if kind.ours and kind.slow)
_EACH = 8  # candidates of a turn of the sweep

STAGES = {
    stage.name: stage
    for stage in (
        Stage("tests", "Does tests/gpu pass on this card?", ("cuda-core", "pytest", "hypothesis")),
        Stage(
            "peers",
            "How fast is PyTorch, by itself and compiled?",
            ("torch",),
            (Part("cifar10", (1,), 4), Part("cifar10", (256,), 3), Part("cifar10", (64, 16), 3)),
            (
                _of(("fp16", "tf32", "fp32", "bf16"), GRAPHED, EAGER),
                _of(("fp16",), COMPILE, AOT),
                _of(("bf16", "tf32", "fp32"), COMPILE, AOT),
                _of(("fp16", "tf32", "fp32"), PIPELINE),
            ),
        ),
        Stage(
            "sweep",
            "With which options is ONNX Runtime fastest?",
            ("torch", "onnxruntime-gpu"),
            (Part("cifar10", (1,)), Part("cifar10", (64,))),
            tuple(SWEEP[at : at + _EACH] for at in range(0, len(SWEEP), _EACH)),
            keep=False,
        ),
        Stage(
            "parity",
            "Do whole runs of the shipped models end where PyTorch ends?",
            ("torch",),
            (Part("ddpm-mnist", (4,)), Part("ncsn-mnist", (4,))),
            (_of((*HALVES, "tf32", "fp32"), *_OURS), _of(("fp32", "fp16"), *_PLAIN)),
            timed=False,
        ),
        Stage(
            "batches",
            "How fast is everything of ours that is valid?",
            ("torch",),
            (
                Part("cifar10", (1,), 3),
                Part("cifar10", (256,), 3),
                Part("cifar10", (64, 16), 3),
                Part("ddpm-mnist", (1, 256), 1),
                Part("ncsn-mnist", (1, 256), 1),
            ),
            (
                _of(("fp16", "fp32"), *_OURS),
                _of(("bf16", "tf32"), *_OURS),
                _of(("fp16", "fp32"), *_PLAIN),
                _of(("fp32",), *_SLOW),
            ),
        ),
        Stage(
            "engine",
            "Does an engine of TensorRT for RTX for sm80 run on this card?",
            ("tensorrt-rtx", "cuda-core"),
        ),
    )
}
