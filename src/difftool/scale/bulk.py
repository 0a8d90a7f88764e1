"""Draw many samples into a folder of shards, which can be interrupted and gone on with."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from difftool.bundle import Bundle, Limits
from difftool.diffusion.labels import Labels, check_labels, class_indices
from difftool.diffusion.program import Program
from difftool.errors import UsageError
from difftool.files import file_sha256, final_name, locked, write_atomic
from difftool.outputs import require_place
from difftool.runtime import MAX_WORK, open_bundle, shipped_models, split_name
from difftool.scale.manifest import (
    MANIFEST,
    MAX_SHARDS,
    BulkRequest,
    Manifest,
    Shard,
    read_manifest,
    require_same,
    write_manifest,
)
from difftool.scale.shards import each_digest
from difftool.scale.work import Job, Opening, bundle_sha256
from difftool.scale.workers import workers
from difftool.version import __version__

SHARD_SIZE: Final = 1000


def sample(
    model: Path | str,
    out: Path | str,
    *,
    n: int,
    program: Program | None = None,
    seed: int = 0,
    labels: Sequence[int | str] | None = None,
    guidance_scale: float = 1.0,
    shard_size: int = SHARD_SIZE,
    ray: str | None = None,
    cpus_per_task: int = 1,
    gpus_per_task: float = 0.0,
    backend: str | None = None,
    precision: str = "fp32",
    threads: int | None = None,
    device: int = 0,
    max_batch: int | None = None,
    max_work: int = MAX_WORK,
    limits: Limits | None = None,
    trust: Collection[str] = (),
    on_shard: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Draw samples into a folder of Parquet shards, in this process or on a Ray cluster.

    A sample has the same bits whoever draws it, in shards of any size. A shard is written whole or
    not at all. Repeat a call that was interrupted: it draws what is missing.

    Args:
        model: the folder of a bundle, or the name of a shipped model. All machines need it.
        out: the folder. It is new, empty, or holds samples of the same request.
        n: the number of samples.
        program: the rows to run; by default the program that the bundle was exported with.
        seed: that of all noise, 0 to 2^64 - 1.
        labels: classes that the samples take in turn, by index or name; by default the class of
            each is drawn by the seed.
        guidance_scale: the scale of classifier-free guidance; 1 is none.
        shard_size: the samples of a shard, which is a worker's task. Multiples of `max_batch` are
            fastest.
        ray: "local" for the cores of this machine, or the HOST:PORT of a cluster; by default this
            process alone draws, one shard after another.
        cpus_per_task: the cores that a task takes of a machine of the cluster.
        gpus_per_task: the GPUs that it takes, such as 1 or 0.5.
        backend: by default the one that the first worker chooses; see `difftool.load`.
        precision: the number format of the network.
        threads: those of a CPU for one task; by default `cpus_per_task`.
        device: the number of the GPU; Ray chooses it for its own workers.
        max_batch: how many samples run together; by default what the first worker chooses.
        max_work: how many numbers a shard may compute; see `difftool.Model`.
        limits: how large the bundle may be.
        trust: the sha256 of engines, TorchScript and packages made elsewhere that may run.
        on_shard: a function of the samples that are there, and `n`, after each shard.

    Raises:
        UsageError: an argument has no meaning, or the folder holds something else. If it holds
            samples of another request, the message names what differs.
        ArtefactError: the bundle is damaged, or differs at a worker.
        ResourceError: no cluster is there, or it gave up; or a shard is more than `max_work`.
        CheckFailed: a sample is not finite.
        MissingDependencyError: pyarrow, ray or the backend is not installed.

    Examples:
        >>> program = difftool.samplers.ddim(difftool.load().spec, steps=2)
        >>> done = difftool.scale.sample("ddpm-mnist", "five", n=5, program=program, shard_size=3)
        >>> [(shard.file, shard.n) for shard in done.shards]
        [('data/train-00000-of-00002.parquet', 3), ('data/train-00001-of-00002.parquet', 2)]
    """
    out = Path(out)
    _require_sizes(n, shard_size, cpus_per_task, gpus_per_task, threads)
    if ray is not None and device:
        raise UsageError("Ray chooses the GPUs of its workers", "leave `device` out")
    bundle = open_bundle(model, limits=limits)
    job = Job(
        opening=Opening(
            model=str(model) if model in shipped_models() else str(Path(model).resolve()),
            sha256=bundle_sha256(bundle),
            backend=backend,
            precision=precision,
            threads=threads or cpus_per_task,
            device=device,
            max_batch=max_batch,
            max_work=max_work,
            limits=limits,
            trust=tuple(trust),
        ),
        program=program or bundle.default_program(),
        seed=seed,
        labels=None if labels is None else tuple(class_indices(bundle.spec, labels).tolist()),
        guidance_scale=guidance_scale,
    )
    _check(job, bundle, n, shard_size)
    _require_ours(out)
    with workers(ray, cpus=cpus_per_task, gpus=gpus_per_task) as drawing:
        settled = drawing.settle(job.opening)
        job = replace(job, opening=_settled(job.opening, *settled))
        asked = _request(job, n, shard_size)
        with _folder(out, asked) as manifest:
            there = {(shard.first, shard.n): shard for shard in manifest.shards}
            missing = [each for each in asked.ranges() if each not in there]
            with contextlib.closing(drawing.draw(job, missing)) as drawn:
                for (first, size), data in drawn:
                    file = asked.file(first)
                    write_atomic(out / file, data)
                    sha256 = hashlib.sha256(data).hexdigest()
                    there[first, size] = Shard(file=file, first=first, n=size, sha256=sha256)
                    manifest = Manifest(request=asked, shards=[there[key] for key in sorted(there)])
                    write_manifest(out, manifest)
                    if on_shard is not None:
                        on_shard(sum(shard.n for shard in manifest.shards), n)
            if manifest.samples_sha256 is None:
                manifest = manifest.model_copy(update={"samples_sha256": _samples_sha256(out)})
                write_manifest(out, manifest)
            return manifest


def _require_sizes(n: int, shard_size: int, cpus: int, gpus: float, threads: int | None) -> None:
    if n < 1 or shard_size < 1:
        raise UsageError(f"{n} samples in shards of {shard_size}", "both are at least 1")
    if -(-n // shard_size) > MAX_SHARDS:
        raise UsageError(
            f"{n} samples in shards of {shard_size} are more than {MAX_SHARDS} files",
            f"raise `shard_size` to at least {-(-n // MAX_SHARDS)}",
        )
    if cpus < 1 or not 0 <= gpus < float("inf") or (threads is not None and threads < 1):
        raise UsageError(
            f"a task of {cpus} CPUs, {gpus:g} GPUs and {threads or cpus} threads",
            "a task takes at least 1 CPU and 1 thread, and 0 or more GPUs",
        )


def _check(job: Job, bundle: Bundle, n: int, shard_size: int) -> None:
    """Refuse what no worker could draw, before one is asked."""
    spec = bundle.spec
    if job.program.coupled:
        raise UsageError(
            f"{job.program.name} shares its steps' sizes in a batch, so its samples would depend "
            "on the shards",
            'use corrector="adaptive" or "fixed"',
        )
    if job.labels == ():
        raise UsageError("there are no labels to take in turn", "give some, or leave them out")
    job.request(n - 1, 1).draws(np.zeros(1, np.int64), spec).normal(0)  # there is such a sample
    part = job.request(0, min(n, shard_size))
    part.check(job.program, spec, in_graph=False, max_work=job.opening.max_work)
    if spec.classes and job.labels is not None:
        check_labels(spec, Labels(np.array(job.labels), job.guidance_scale))


def _require_ours(out: Path) -> None:
    """Refuse a folder that holds anything but samples, or a place for none."""
    if (out / MANIFEST).is_file():
        read_manifest(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} is there, and is no folder of samples",
            "choose another name, or an empty folder",
        )
    require_place(out / MANIFEST)


def _settled(opening: Opening, backend: str, max_batch: int) -> Opening:
    backend, precision = split_name(backend, opening.precision)
    return replace(opening, backend=backend, precision=precision, max_batch=max_batch)


def _request(job: Job, n: int, shard_size: int) -> BulkRequest:
    opening, program = job.opening, job.program
    table = json.dumps(program.to_dict(), sort_keys=True)
    return BulkRequest(
        difftool=__version__,
        model_sha256=opening.sha256,
        program=program.name,
        program_sha256=hashlib.sha256(table.encode()).hexdigest(),
        n=n,
        seed=job.seed,
        labels=None if job.labels is None else list(job.labels),
        guidance_scale=job.guidance_scale,
        backend=str(opening.backend),
        precision=opening.precision,
        threads=opening.threads,
        max_batch=opening.max_batch or 0,
        shard_size=shard_size,
    )


@contextlib.contextmanager
def _folder(out: Path, asked: BulkRequest) -> Iterator[Manifest]:
    """Hold the folder against other processes; yield its manifest, with the whole shards only."""
    with locked(out, wait=False):
        if not (out / MANIFEST).is_file():
            write_manifest(out, Manifest(request=asked))
        found = read_manifest(out)
        require_same(out, found.request, asked)
        _remove_parts(
            out, {MANIFEST, *(Path(asked.file(first)).name for first, _ in asked.ranges())}
        )
        listed = {(shard.first, shard.n): shard for shard in found.shards}
        whole = [
            listed[each]
            for each in asked.ranges()
            if each in listed and _is_whole(out / asked.file(each[0]), listed[each].sha256)
        ]
        yield found if whole == found.shards else Manifest(request=asked, shards=whole)


def _remove_parts(out: Path, names: Collection[str]) -> None:
    """Delete the temporary files of these names, which a killed process has left."""
    for file in (*out.glob(".*"), *(out / "data").glob(".*")):
        if final_name(file.name) in names:
            file.unlink()


def _is_whole(file: Path, sha256: str) -> bool:
    return file.is_file() and file_sha256(file) == sha256


def _samples_sha256(out: Path) -> str:
    """Return the digest of all samples' digests, each as 32 bytes, in the order of the samples."""
    every = hashlib.sha256()
    for _, digest in each_digest(out):
        every.update(bytes.fromhex(digest))
    return every.hexdigest()
