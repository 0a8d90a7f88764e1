"""difftool sample --ray and --shard-size: draw samples into a folder of shards."""

import time
from pathlib import Path

from difftool.cli import options
from difftool.cli.console import progress, report, warn
from difftool.errors import UsageError


def sample_in_bulk(
    *,
    model: str,
    sampler: str | None,
    steps: int | None,
    eta: float | None,
    assignments: list[str] | None,
    quality: str | None,
    n: int,
    seed: int,
    labels: str | None,
    guidance_scale: float | None,
    out: Path | None,
    backend: str | None,
    precision: str,
    device: int,
    trust: list[str] | None,
    threads: int | None,
    max_batch: int | None,
    max_work: int,
    max_bundle: float,
    max_memory: float,
    deterministic: bool,
    shard_size: int | None,
    ray: str | None,
    cpus_per_task: int | None,
    gpus_per_task: float | None,
    json: bool,
    known: Path | None,
    fill: str | None,
    grey: Path | None,
    init: Path | None,
    strength: float | None,
    between: str | None,
    format: options.Format | None,
    scale: int | None,
    force: bool,
) -> None:
    """Take the options of `difftool sample`, and draw into a folder; always deterministic.

    UsageError for those that say something of a single file, or of a few given samples.
    """
    from difftool.bundle import Limits
    from difftool.diffusion import caveats
    from difftool.runtime import open_bundle
    from difftool.scale import sample

    of_a_file = {
        **{"known": known, "fill": fill, "grey": grey, "init": init, "strength": strength},
        **{"between": between, "format": format, "scale": scale, "force": force or None},
    }
    for name, given in of_a_file.items():
        if given is not None:
            raise UsageError(
                f"--{name} does not go with a folder of shards", "leave --ray and --shard-size out"
            )
    if out is None:
        raise UsageError("a folder of shards needs a name", "give --out FOLDER")
    limits = Limits(
        bundle_bytes=options.gibibytes(max_bundle), memory_bytes=options.gibibytes(max_memory)
    )
    bundle = open_bundle(model, limits=limits)
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(bundle, asked, quality=quality)
    warnings = caveats(program, bundle.spec, bundle.default_program())
    unsaid = [] if json else list(warnings)
    begin = time.perf_counter()
    with progress(quiet=json, unit="sample") as tell:

        def on_shard(done: int, total: int) -> None:
            warn(unsaid)  # at the first shard: before it, a request may still be refused
            unsaid.clear()
            tell(done, total)

        found = sample(
            model,
            out,
            n=n,
            program=program,
            seed=seed,
            labels=None if labels is None else options.label_turns(labels, n, bundle.spec),
            guidance_scale=1.0 if guidance_scale is None else guidance_scale,
            shard_size=1000 if shard_size is None else shard_size,
            ray=ray,
            cpus_per_task=1 if cpus_per_task is None else cpus_per_task,
            gpus_per_task=gpus_per_task or 0.0,
            backend=backend,
            precision=precision,
            threads=threads,
            device=device,
            max_batch=max_batch,
            max_work=max_work,
            limits=limits,
            trust=trust or (),
            on_shard=on_shard,
        )
    report(
        {
            "out": str(out),
            "samples_sha256": found.samples_sha256,
            "shards": len(found.shards),
            "model": model,
            **found.request.model_dump(exclude={"difftool", "model_sha256", "program_sha256"}),
            "shape": list(bundle.spec.shape),
            "seconds": time.perf_counter() - begin,
            **({"warnings": warnings} if json else {}),
        },
        as_json=json,
    )
