"""score_sde_pytorch files through the whole tool: imported, exported, and run by ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from difftool.export import export
from difftool.importers import find, write
from difftool.runtime.opening import open_backend
from tests.importers.test_importers import network_output
from tests.oracles.plain_score_sde import Plain

TOLERANCE = 2e-4  # of the largest output
SAID = {"data.image_size": "8", "model.sigma_max": "50", "model.num_scales": "12"}


def test_the_exported_bundle_computes_the_same(save: Callable[..., Path], tmp_path: Path) -> None:
    plain = Plain(progressive="output_skip", progressive_input="input_skip")  # as for LSUN
    found = find(save(plain.file()))
    imported = found.read(SAID | {"model.fir": "true"})
    write(found, imported, tmp_path / "checkpoint")
    bundle = export(tmp_path / "checkpoint", tmp_path / "bundle")
    backend = open_backend(bundle, "onnxruntime-cpu", threads=1)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = torch.from_numpy(imported.spec.schedule.sigma[[2, 11]]).float()
    expected = (plain(x, sigma) * sigma[:, None, None, None]).numpy()
    actual = network_output(backend, imported.spec, x.numpy(), [2, 11])
    assert np.abs(actual - expected).max() <= TOLERANCE * np.abs(expected).max()
    # The authors' sampler needs the norms of its steps in the graph, which come with it.
    backend.batch(bundle.default_program(), 2)
