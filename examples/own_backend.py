"""A backend of your own: any execution provider of ONNX Runtime runs a bundle as it is.

python examples/own_backend.py CPUExecutionProvider

A backend runs one row on one batch. Loop, noise, edits and hooks are difftool's, so that the
samples are those of every other backend but for rounding; the last line measures how far.
"""

import sys
from collections.abc import Callable

import onnxruntime

import difftool
from difftool.diffusion import Labels
from difftool.runtime import Arrays, HostBatch, Preparation, compare, open_bundle


class OwnBackend:
    """Runs `step.onnx` on an execution provider, such as CoreMLExecutionProvider."""

    def __init__(self, bundle: difftool.Bundle, provider: str) -> None:
        step = bundle.step("fp32")  # the bytes that were judged; never a path
        self.name = provider
        self._prepare = Preparation(bundle, step)
        self.features = self._prepare.features
        self._session = onnxruntime.InferenceSession(step.data, providers=[provider])

    def batch(
        self, program: difftool.Program, size: int, labels: Labels | None = None
    ) -> HostBatch:
        """Make room for `size` samples of a program; the conditioner runs here, once."""
        taken = {each.name for each in self._session.get_inputs()}
        return HostBatch(self._bind, taken, self._prepare(program, size, labels))

    def _bind(self, inputs: Arrays, outputs: Arrays) -> Callable[[], None]:
        def run() -> None:
            found = self._session.run(list(outputs), dict(inputs))
            for array, value in zip(outputs.values(), found, strict=True):
                array[...] = value

        return run


def main(provider: str) -> float:
    """Draw digits on a provider; return the largest error of a row against the usual backend."""
    bundle = open_bundle("ddpm-mnist")
    own, usual = OwnBackend(bundle, provider), difftool.load("ddpm-mnist").backend
    program = difftool.samplers.ddim(bundle.spec, steps=10)
    samples = difftool.Model(bundle, own).sample(program, n=4, seed=0)
    print(samples.shape)
    return compare(own, usual, program, bundle.spec).step_error


if __name__ == "__main__":
    print(main(sys.argv[1] if len(sys.argv) > 1 else "CPUExecutionProvider"))
