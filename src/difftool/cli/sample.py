"""difftool sample: draw samples from a bundle into a file, or into a folder of shards."""

import math
import time
from pathlib import Path
from typing import Annotated, Any

from typer import Context, Option

from difftool.cli import options
from difftool.cli.console import counted, progress, report, warn
from difftool.cli.grouped import LIMITS, MACHINE, OUTPUT, PROGRAM, SAMPLES
from difftool.errors import UsageError

EXAMPLES = """\b
Examples:
  difftool sample --steps 1000 -n 16 --seed 0 --out grid.png
  difftool sample ncsn-mnist -n 64 --out film.gif
  difftool sample runs/mnist/bundle --sampler ddim --steps 50 --arg clip=false --out samples.npz
  difftool sample runs/digits/bundle --labels 0-9 --guidance-scale 3 -n 40 --out classes.png
  difftool sample --known digits.npz --fill bottom --out completed.png
  difftool sample --init sketch.png --strength 0.6 --out like-the-sketch.png
  difftool sample --sampler ddim --between 0,1 -n 9 --out from-0-to-1.png
  difftool sample --sampler ddim --steps 50 -n 100 --out digits/
  difftool sample --sampler ddim --steps 50 --out - > grid.png
  difftool sample --sampler ddim --steps 50 -n 50000 --ray local --out samples
"""

_LOOKS = 100  # how often the progress bar moves in a run
_PICTURES = "From pictures or samples"
_SHARDS = "Many samples"


def sample(
    context: Context,
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    quality: Annotated[
        str | None,
        Option(
            metavar="draft|good|best",
            help="Take the cheapest sampler and steps that reach this, as difftool measure found "
            "and the bundle keeps.",
            rich_help_panel=PROGRAM,
        ),
    ] = None,
    n: options.Count = 16,
    seed: options.Seed = 0,
    labels: Annotated[
        str | None,
        Option(
            metavar="LABELS",
            help="Classes, which the samples take in turn: cat,dog or 3 or 0-9; none is no class. "
            "By default each sample's is drawn by the seed.",
            rich_help_panel=SAMPLES,
        ),
    ] = None,
    guidance_scale: Annotated[
        float | None,
        Option(
            metavar="SCALE",
            help="Strength of guidance towards the class: 1 is none, 3 is much.",
            rich_help_panel=SAMPLES,
        ),
    ] = None,
    known: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Inpainting: keep this picture, or these samples (.npy, .npz), except for --fill.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    fill: Annotated[
        str | None,
        Option(
            metavar="WHERE",
            help="Part of --known to fill: left, right, top, bottom, center, or a picture whose "
            "white is filled.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    grey: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Colourization: keep the grey values of this picture, or of these samples.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help="Start from this picture, or these samples, with noise added (SDEdit).",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    strength: Annotated[
        float | None,
        Option(
            metavar="0..1",
            help="Amount of noise added to --init, as a share of all noise levels; 0.5 by default.",
            rich_help_panel=_PICTURES,
        ),
    ] = None,
    between: Annotated[
        str | None,
        Option(
            metavar="I,J",
            help="Interpolation: draw n samples from sample I of the seed to sample J.",
            rich_help_panel=SAMPLES,
        ),
    ] = None,
    out: Annotated[
        str | None,
        options.out(
            "FILE|DIR/|-",
            "File to write; by default samples.png for images, samples.npz for other data. A name "
            "that ends in / is a folder with a file for each sample, and - is stdout. With "
            "--shard-size or --ray, a folder of shards.",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        Option(
            help="Format: png or webp, one grid; gif, its denoising; npy, float32 [n, shape]; npz, "
            "these as `samples`, and pixels as `images`; parquet, as the `datasets` library reads "
            "it. By default the ending of --out.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            min=1,
            max=100,
            help="Enlarge each pixel of a picture to COUNT x COUNT; 1 leaves it as it is. By "
            "default so that samples of a grid are about 112 pixels wide.",
            rich_help_panel=OUTPUT,
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
            metavar="COUNT",
            help="Samples in a batch; by default as many as the CPU's cache holds.",
            rich_help_panel=MACHINE,
        ),
    ] = None,
    max_work: Annotated[
        int,
        Option(
            metavar="COUNT",
            help="Limit of samples times steps times the numbers in a sample.",
            rich_help_panel=LIMITS,
        ),
    ] = options.MAX_WORK,
    max_bundle: Annotated[
        float,
        Option(
            metavar="GIB",
            help="Limit of the bundle's size, in GiB.",
            rich_help_panel=LIMITS,
        ),
    ] = 8.0,
    max_memory: Annotated[
        float,
        Option(
            metavar="GIB",
            help="Limit of the memory of the bundle's graphs, in GiB.",
            rich_help_panel=LIMITS,
        ),
    ] = 8.0,
    deterministic: Annotated[
        bool,
        Option(
            "--deterministic",
            help="Make samples bit for bit the same for every -n; slower.",
            rich_help_panel=MACHINE,
        ),
    ] = False,
    shard_size: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="Write a folder of Parquet shards of so many samples, --deterministic and to be "
            "gone on with after an interruption; 1000 with --ray.",
            rich_help_panel=_SHARDS,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        Option(
            metavar="local|HOST:PORT",
            help="Let the workers of a Ray cluster draw the shards: all cores of this machine, or "
            "the cluster at an address.",
            rich_help_panel=_SHARDS,
        ),
    ] = None,
    cpus_per_task: Annotated[
        int | None,
        Option(
            metavar="COUNT",
            help="Cores and threads that draw a shard; 1 by default.",
            rich_help_panel=_SHARDS,
        ),
    ] = None,
    gpus_per_task: Annotated[
        float | None,
        Option(
            metavar="COUNT",
            help="GPUs that draw a shard, such as 1 or 0.5; none by default.",
            rich_help_panel=_SHARDS,
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Draw samples into a picture, a film, an array or a folder."""
    import numpy as np

    from difftool.bundle import Limits
    from difftool.cli.inputs import read_inputs
    from difftool.cli.output import (
        PICTURES,
        Film,
        choose_format,
        choose_scale,
        described,
        each_file,
        encode,
    )
    from difftool.cli.target import choose_target
    from difftool.diffusion import caveats
    from difftool.runtime import Request, State, load, on_device, split_name

    if ray is not None or shard_size is not None:
        return _in_bulk(context)
    if cpus_per_task is not None or gpus_per_task is not None:
        raise UsageError(
            "--cpus-per-task and --gpus-per-task are those of a shard", "give --ray or --shard-size"
        )
    target = None if out is None else choose_target(out, force=force, json=json)
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
    spec = opened.spec
    inputs = read_inputs(spec, known, fill, grey, init, strength, between)
    asked = options.sampler_call(sampler, steps, eta, assignments)
    program = options.choose_program(opened.bundle, asked, inputs.strength, quality)
    warnings = caveats(program, spec.up_to(inputs.strength), opened.default_program())
    unsaid = [] if json else list(warnings)
    each = target is not None and target.folder
    named = None if target is None or target.stdout or each else target.path
    chosen = choose_format(format, named, spec, each=each)
    if target is None:
        target = choose_target(f"samples.{chosen}", force=force, json=json)
    scale = choose_scale(scale, chosen, n, spec, each=each)
    film = Film(len(program), spec) if chosen is options.Format.GIF else None
    turns = options.class_labels(labels, n, spec)

    total = len(program) * math.ceil(n / opened.max_batch)
    # A device runs without a stop between two calls of on_step. A film needs every row.
    every = 1 if film else max(1, len(program) // _LOOKS)
    begin = time.perf_counter()
    with progress(quiet=json) as tell:

        def on_step(state: State) -> None:
            warn(unsaid)  # at the first step: before it, a request may still be refused
            unsaid.clear()
            tell(state.first // opened.max_batch * len(program) + state.step, total)
            if film:
                film.show(state)

        samples = opened.sample(
            program,
            n=n,
            seed=seed,
            labels=turns,
            guidance_scale=1.0 if guidance_scale is None else guidance_scale,
            init=inputs.init,
            edit=inputs.edit,
            between=inputs.between,
            deterministic=deterministic,
            on_step=on_step,
            every=every,
        )
    seconds = time.perf_counter() - begin
    classes = Request(program, n=n, labels=turns).labels_at(np.arange(n), spec)
    of = None if classes is None else classes.of
    if target.folder:
        files = each_file(chosen, samples, film, spec, scale)
        shown = None if of is None else [None if k == spec.classes else int(k) for k in of]
        sha256 = target.write_each(files, chosen, shown, force=force)
    else:
        data = film.gif(scale) if film else encode(chosen, samples, spec, of, scale)
        sha256 = target.write(data)
    record = {
        "out": str(target),
        "format": str(chosen),
        "sha256": sha256,
        **({"scale": scale} if chosen in PICTURES else {}),
        "model": model,
        "program": program.name,
        **({} if quality is None else {"quality": quality}),
        "backend": opened.backend.name,
        "precision": split_name(backend, precision)[1],
        **on_device(opened.backend),
        **_given(context, inputs.record),
        "shape": list(spec.shape),
        "seconds": seconds,
        "steps_per_second": total / seconds,
        "warnings": warnings,
    }
    size = "" if target.folder else described(chosen, n, spec, scale)
    drawn = f"{counted(n, 'sample')}, {counted(len(program), 'step')} of {program.call.name}"
    place = f" on {record['device']}" if "device" in record else ""
    sentence = f"{drawn}, {seconds:.1f} s{place} -> {target}{size}"
    report(record, as_json=json, sentence=sentence, aside=target.stdout)


def _in_bulk(context: Context) -> None:
    """Draw a folder of shards, which has neither pictures nor a file for each sample."""
    from difftool.cli.bulk import sample_in_bulk

    out = context.params["out"]
    sample_in_bulk(**context.params | {"out": None if out is None else Path(out)})


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
