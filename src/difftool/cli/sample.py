"""difftool sample: draw samples from a bundle into a file, or into a folder of shards."""

import math
import time
from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

from difftool.cli import options
from difftool.cli.console import progress, report
from difftool.errors import UsageError
from difftool.outputs import require_free

EXAMPLES = """\b
Examples:
  difftool sample --steps 1000 -n 16 --seed 0 --out grid.png
  difftool sample ncsn-mnist -n 64 --out film.gif
  difftool sample runs/mnist/bundle --sampler ddim --steps 50 --arg clip=false --out samples.npz
  difftool sample runs/digits/bundle --labels 0-9 --guidance-scale 3 -n 40 --out classes.png
  difftool sample --known digits.npz --fill bottom --out completed.png
  difftool sample --init sketch.png --strength 0.6 --out like-the-sketch.png
  difftool sample --sampler ddim --between 0,1 -n 9 --out from-0-to-1.png
  difftool sample --steps 50 -n 50000 --ray local --out samples
"""

_LOOKS = 100  # how often the progress bar moves in a run


def sample(
    context: Context,
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    n: options.Count = 16,
    seed: options.Seed = 0,
    labels: Annotated[
        str | None,
        Option(
            metavar="LABELS",
            help="Classes, which the samples take in turn: 3, or 0,1,2, or 0-9; none is no class. "
            "By default none, or all in turn where that needs a class.",
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        Option(
            metavar="SCALE", help="Strength of guidance towards the class: 1 is none, 3 is much."
        ),
    ] = None,
    known: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Inpainting: keep this picture, or these samples (.npy, .npz), except for --fill.",
        ),
    ] = None,
    fill: Annotated[
        str | None,
        Option(
            metavar="WHERE",
            help="Part of --known to fill: left, right, top, bottom, center, or a picture whose "
            "white is filled.",
        ),
    ] = None,
    grey: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Colourization: keep the grey values of this picture, or of these samples.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Start from this picture, or these samples, with noise added (SDEdit).",
        ),
    ] = None,
    strength: Annotated[
        float | None,
        Option(
            metavar="0..1",
            help="Amount of noise added to --init, as a share of all noise levels; 0.5 by default.",
        ),
    ] = None,
    between: Annotated[
        str | None,
        Option(
            metavar="I,J",
            help="Interpolation: draw n samples from sample I of the seed to sample J.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        options.out(
            "FILE",
            "File to write; by default samples.png for images, samples.npz for other data. "
            "With --shard-size or --ray, a folder.",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        Option(
            help="Format: png, one grid; gif, the denoising; npy, float32 [n, shape]; npz, these "
            "as `samples`, and pixels as `images`. By default the ending of --out."
        ),
    ] = None,
    backend: options.Backend = None,
    precision: options.Precision = "fp32",
    device: options.Device = 0,
    trust: options.Trust = None,
    threads: options.Threads = None,
    max_batch: Annotated[
        int | None,
        Option(
            metavar="COUNT", help="Samples in a batch; by default as many as the CPU's cache holds."
        ),
    ] = None,
    max_work: Annotated[
        int,
        Option(metavar="COUNT", help="Limit of samples times steps times the numbers in a sample."),
    ] = options.MAX_WORK,
    max_bundle: Annotated[
        float, Option(metavar="GIB", help="Limit of the bundle's size, in GiB.")
    ] = 8.0,
    max_memory: Annotated[
        float, Option(metavar="GIB", help="Limit of the memory of the bundle's graphs, in GiB.")
    ] = 8.0,
    deterministic: Annotated[
        bool,
        Option("--deterministic", help="Make samples bit for bit the same for every -n; slower."),
    ] = False,
    shard_size: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="Write a folder of Parquet shards of so many samples, --deterministic and to be "
            "gone on with after an interruption; 1000 with --ray.",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        Option(
            metavar="local|HOST:PORT",
            help="Let the workers of a Ray cluster draw the shards: all cores of this machine, or "
            "the cluster at an address.",
        ),
    ] = None,
    cpus_per_task: Annotated[
        int | None,
        Option(metavar="COUNT", help="Cores and threads that draw a shard; 1 by default."),
    ] = None,
    gpus_per_task: Annotated[
        float | None,
        Option(metavar="COUNT", help="GPUs that draw a shard, such as 1 or 0.5; none by default."),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw samples into a picture, a film, an array or a folder."""
    from difftool.bundle import Limits
    from difftool.cli.inputs import read_inputs
    from difftool.cli.output import Film, choose_format, encode
    from difftool.files import file_sha256, write_atomic
    from difftool.runtime import State, load, on_device, split_name

    if ray is not None or shard_size is not None:
        from difftool.cli.bulk import sample_in_bulk

        return sample_in_bulk(**context.params)
    if cpus_per_task is not None or gpus_per_task is not None:
        raise UsageError(
            "--cpus-per-task and --gpus-per-task are those of a shard", "give --ray or --shard-size"
        )
    if out is not None:
        require_free(out, force=force)
    opened = load(
        model,
        backend=backend,
        precision=precision,
        threads=threads,
        device=device,
        max_batch=max_batch,
        max_work=max_work,
        limits=Limits(
            bundle_bytes=options.gibibytes(max_bundle),
            memory_bytes=options.gibibytes(max_memory),
        ),
        trust=trust or (),
    )
    inputs = read_inputs(opened.spec, known, fill, grey, init, strength, between)
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(opened.bundle, asked, inputs.strength)
    chosen = choose_format(format, out, opened.spec)
    path = out or Path(f"samples.{chosen}")
    require_free(path, force=force)
    film = Film(len(program), opened.spec) if chosen is options.Format.GIF else None

    total = len(program) * math.ceil(n / opened.max_batch)
    # A device runs without a stop between two calls of on_step. A film needs every row.
    every = 1 if film else max(1, len(program) // _LOOKS)
    begin = time.perf_counter()
    with progress(quiet=json) as tell:

        def on_step(state: State) -> None:
            tell(state.first // opened.max_batch * len(program) + state.step, total)
            if film:
                film.show(state)

        samples = opened.sample(
            program,
            n=n,
            seed=seed,
            labels=options.class_labels(labels, n, opened.spec),
            guidance_scale=1.0 if guidance_scale is None else guidance_scale,
            init=inputs.init,
            edit=inputs.edit,
            between=inputs.between,
            deterministic=deterministic,
            on_step=on_step,
            every=every,
        )
    seconds = time.perf_counter() - begin
    write_atomic(path, film.gif() if film else encode(chosen, samples, opened.spec))
    report(
        {
            "out": str(path),
            "format": str(chosen),
            "sha256": file_sha256(path),
            "model": model,
            "program": program.name,
            "backend": opened.backend.name,
            "precision": split_name(backend, precision)[1],
            **on_device(opened.backend),
            **_given(context, inputs.record),
            "shape": list(opened.spec.shape),
            "seconds": seconds,
            "steps_per_second": total / seconds,
        },
        as_json=json,
    )


def _given(context: Context, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return the given options that choose which samples are drawn, for the report.

    These are the options with the name of a field of `Request`. `inputs` holds those that were read
    from files. Flags are left out: they change how a sample is computed, not which one.
    """
    from dataclasses import fields

    from difftool.runtime import Request

    asked = {field.name: context.params.get(field.name) for field in fields(Request)}
    given = {
        name: value
        for name, value in asked.items()
        if name not in inputs and value is not None and not isinstance(value, bool)
    }
    return given | inputs
