"""Draw with Triton's client: a server of difftool speaks its protocol, the Open Inference Protocol.

difftool serve ddpm-mnist
python examples/serving/triton_client.py 127.0.0.1:8000 samples.npy
"""

import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype


def main(address: str, out: str) -> None:
    """Write four samples, float32 [4, 1, 28, 28]."""
    inputs = [
        tensor("n", np.array([4], np.int64)),
        tensor("seed", np.array([7], np.uint64)),
        tensor("sampler", np.array(["ddim"], object)),
        tensor("num_inference_steps", np.array([20], np.int64)),
    ]
    with triton.InferenceServerClient(address) as client:
        answer = client.infer("ddpm-mnist", inputs)
    np.save(out, answer.as_numpy("samples"))


def tensor(name: str, value: np.ndarray) -> Any:
    """Return an input of a request."""
    found = triton.InferInput(name, value.shape, np_to_triton_dtype(value.dtype))
    return found.set_data_from_numpy(value)


if __name__ == "__main__":
    main(*sys.argv[1:])
