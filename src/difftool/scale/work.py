"""What a worker does: open the model once, and draw shard after shard of it."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from difftool.bundle import MANIFEST, Bundle, Limits
from difftool.diffusion.program import Program
from difftool.errors import ArtefactError
from difftool.files import file_sha256
from difftool.runtime import Model, Request, load
from difftool.scale.shards import encode_shard, require_parquet


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a worker opens the model: the arguments of `difftool.load`, and the bundle's digest."""

    model: str
    sha256: str
    backend: str | None
    precision: str
    threads: int
    device: int
    max_batch: int | None
    max_work: int
    limits: Limits | None
    trust: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all shards have in common."""

    opening: Opening
    program: Program
    seed: int
    labels: tuple[int, ...] | None
    guidance_scale: float

    def request(self, first: int, n: int) -> Request:
        """Return the request of the samples `first` to `first + n`."""
        return Request(
            self.program,
            n=n,
            seed=self.seed,
            first_sample=first,
            labels=self.labels_of(np.arange(first, first + n)),
            guidance_scale=self.guidance_scale,
            deterministic=True,  # or the shards' size would move last bits
        )

    def labels_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the labels that these samples take; None for those of the model."""
        return None if self.labels is None else np.array(self.labels)[indices % len(self.labels)]


def bundle_sha256(bundle: Bundle) -> str:
    """Return the digest of a bundle's own manifest, which lists its files with theirs."""
    return file_sha256(bundle.path / MANIFEST)


def settle(opening: Opening) -> tuple[str, int]:
    """Return the backend and the batch that a worker chooses if they are left open."""
    require_parquet()
    model = _opened(opening)
    return model.backend.name, model.max_batch


def draw(job: Job, first: int, n: int) -> bytes:
    """Return the shard of the samples `first` to `first + n`; it raises as `Model.sample` does."""
    model = _opened(job.opening)
    request = job.request(first, n)
    samples = model.sample(**vars(request))
    labels = request.labels_at(np.arange(n), model.spec)
    return encode_shard(samples, model.spec, first, None if labels is None else labels.of)


def forget() -> None:
    """Close the model that was opened last."""
    _opened.cache_clear()


@functools.lru_cache(maxsize=1)  # Ray gives a process one task after another
def _opened(opening: Opening) -> Model:
    model = load(
        opening.model,
        backend=opening.backend,
        precision=opening.precision,
        threads=opening.threads,
        device=opening.device,
        max_batch=opening.max_batch,
        max_work=opening.max_work,
        limits=opening.limits,
        trust=opening.trust,
    )
    if bundle_sha256(model.bundle) != opening.sha256:
        raise ArtefactError(
            f"{opening.model} is another bundle at a worker", "give all machines the same folder"
        )
    return model
