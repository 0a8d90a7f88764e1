"""All that is measured for docs/ddpm.md: on the line, of a shipped model, and of a small VAE."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from ddpm_story import bound, chain, vae
from numpy.typing import NDArray

import difftool
from difftool.diffusion import visited
from difftool.errors import UsageError

Pixels = NDArray[np.uint8]
Figures = dict[str, Any]
Run = tuple[str, int]  # the variance, and the number of steps

MODEL: Final = "ddpm-mnist"
HELD_OUT: Final = 1000  # last training images, which the extractor has not seen
_TIMED: Final = 2000  # samples of the VAE, of which the processor time is measured


@dataclass(frozen=True)
class Size:
    """How much is measured: `FULL` for the page, `QUICK` to see that the script works.

    - `points`: points on the line
    - `line_steps`, `curve`: the lengths of the chains on the line, in the table and in the picture
    - `images`: test images for the bound and for the time that the network is told
    - `samples`, `steps`: images of each set, and the lengths of the chains that draw them
    - `vae_steps`: training steps of the VAE
    """

    points: int = 20_000
    line_steps: tuple[int, ...] = (5, 10, 30, 100, 300)
    curve: tuple[int, ...] = (2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 1000)
    images: int = 32
    samples: int = 256
    steps: tuple[int, ...] = (10, 30, 100)
    vae_steps: int = 3000


FULL: Final = Size()
QUICK: Final = Size(
    points=500, line_steps=(3, 5), curve=(2, 5), images=1, samples=8, steps=(2, 4), vae_steps=5
)


class Images(NamedTuple):
    """Images uint8 [N, 1, 28, 28]: for training, held out of it, and for testing."""

    train: Pixels
    held_out: Pixels
    test: Pixels


class Found(NamedTuple):
    """What was measured: the figures for the page, and the arrays for its pictures.

    - `line`: samples of the chain on the line, by run
    - `errors`: those of the network at each level
    - `levels`, `told`: some levels, and the errors if the network is told one of them
    - `drawn`: samples of the model by run, uint8 [n, H, W, C]
    - `vae`: the VAE's means and draws, and `real` images, uint8 [n, H, W, C]
    """

    figures: Figures
    line: dict[Run, NDArray[np.float64]]
    errors: bound.Errors
    levels: list[int]
    told: NDArray[np.float64]
    drawn: dict[Run, Pixels]
    vae: dict[str, Pixels]
    real: Pixels


def read_images(source: str) -> Images:
    """Read MNIST from a folder of its parquet files, or from one of these, or from the hub.

    "digits" takes scikit-learn's small digits instead, enlarged, to try the script.
    """
    if source == "digits":
        small = difftool.data.load("digits").values
        large = np.pad(small.repeat(3, 2).repeat(3, 3), ((0, 0), (0, 0), (2, 2), (2, 2)))
        return Images(large[:1200], large[1200:1500], large[1500:])
    path = Path(source)
    folder = path.parent if path.is_file() else path
    if not folder.is_dir() and path.is_absolute():
        raise UsageError(f"no folder {path}", "give MNIST's parquet files as --data")
    train, test = (
        difftool.data.load(
            str(folder / f"{split}-*.parquet") if folder.is_dir() else source, split=split
        ).values
        for split in ("train", "test")
    )
    return Images(train[:-HELD_OUT], train[-HELD_OUT:], test)


def measure(images: Images, size: Size) -> Found:
    """Measure everything; the figures depend on `size` and on the shipped model."""
    started = time.process_time()
    line = measure_line(size)
    line_figures: Figures = {
        "forward": measure_forward(size),
        "gaussian": {str(steps): chain.lost(chain.DATA, steps) for steps in size.line_steps},
        "line": {
            name: {str(n): chain.distance(line[name, n], chain.DATA) for n in size.line_steps}
            for name in bound.VARIANCES
        },
    }
    # One thread, so that processor time is the time of one core.
    model = difftool.load(MODEL, threads=1)
    levels = np.linspace(0, len(model.spec.schedule) - 1, 9).round().astype(int).tolist()
    few = images.test[: size.images]
    errors, told = bound.measure_errors(model, few), bound.told(model, few, levels)
    drawn, milliseconds = {}, {}
    for name in bound.VARIANCES:
        for steps in size.steps:
            begun = time.process_time()
            drawn[name, steps] = draw(model, name, steps, size.samples)
            spent = 1000 * (time.process_time() - begun) / size.samples
            # Either variance costs the same, so the less disturbed of both counts.
            milliseconds[str(steps)] = min(spent, milliseconds.get(str(steps), spent))
    network, seconds = vae.train(images.train, size.vae_steps)
    encoded = {
        name: vae.sample(network, size.samples, noisy=name == "draws").reshape(-1, *of_grid(few))
        for name in ("means", "draws")
    }
    # Evenly spaced, as neighbours are often by one hand.
    chosen = np.arange(size.samples) * len(images.held_out) // size.samples
    real = channels_last(images.held_out[chosen])
    judge = difftool.evaluate.Evaluator(real.shape[1:], channels_last(images.test))
    figures = {
        "model": MODEL,
        "size": {"images": size.images, "samples": size.samples, "points": size.points},
        **line_figures,
        **bound_figures(model.spec, errors, size),
        "told": {"levels": levels, "errors": told.tolist()},
        "real": judged(judge, real),
        "drawn": {
            name: {str(n): judged(judge, drawn[name, n]) for n in size.steps}
            for name in bound.VARIANCES
        },
        "milliseconds": milliseconds,
        "vae": {
            "parameters": sum(p.numel() for p in network.parameters()),
            "seconds": seconds,
            "steps": size.vae_steps,
            "bits": float(vae.bits(network, few).mean()),
            "milliseconds": vae_milliseconds(network),
            **{name: judged(judge, pixels) for name, pixels in encoded.items()},
        },
    }
    figures["minutes"] = (time.process_time() - started) / 60
    return Found(figures, line, errors, levels, told, drawn, encoded, real)


def measure_line(size: Size) -> dict[Run, NDArray[np.float64]]:
    """Draw points on the line, with a perfect network and either variance."""
    return {
        (name, steps): chain.sampled(
            difftool.samplers.ddpm(chain.SPEC, steps=steps, variance=name), size.points
        )
        for name in bound.VARIANCES
        for steps in size.line_steps
    }


def measure_forward(size: Size) -> Figures:
    """Compare the closed form of q(x_t | x_0) with its steps, and with points that take them."""
    schedule = chain.SPEC.schedule
    betas = 1 - schedule.alpha_bar / np.append(1.0, schedule.alpha_bar[:-1])
    alpha, sigma = chain.composed(betas)
    start = float(chain.DATA.means[1])
    points = stepped(np.full(size.points, start), betas)
    found: Figures = {
        "start": start,
        "difference": float(
            max(abs(alpha - schedule.alpha).max(), abs(sigma - schedule.sigma).max())
        ),
    }
    for t in (100, 250, 500, 1000):
        found[str(t)] = {
            "mean": float(start * schedule.alpha[t - 1]),
            "std": float(schedule.sigma[t - 1]),
            "points_mean": float(points[t].mean()),
            "points_std": float(points[t].std()),
        }
    return found


def stepped(x0: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points after 0, 1 .. T steps of x' = sqrt(1 - beta) x + sqrt(beta) z; [T + 1, N]."""
    normal = np.random.default_rng(0)
    found = [x0]
    for beta in betas:
        found.append(
            np.sqrt(1 - beta) * found[-1] + np.sqrt(beta) * normal.standard_normal(len(x0))
        )
    return np.stack(found)


def bound_figures(spec: difftool.ModelSpec, errors: bound.Errors, size: Size) -> Figures:
    """Split the bound into its terms, sum it for shorter chains, and share out its weights."""
    whole = bound.chain(spec, np.arange(len(spec.schedule)))
    terms = {name: bound.terms(errors, spec, whole, name) for name in bound.VARIANCES}
    lengths = sorted({*size.steps, 300, len(spec.schedule)})
    chains = {
        steps: bound.chain(spec, np.array(visited(spec.schedule, steps)[::-1]).astype(int))
        for steps in lengths
    }
    weights, noise = bound.weights(spec, "large"), errors.noise[1:]
    parts = {"2 to 10": slice(0, 9), "11 to 100": slice(9, 99), "101 to 1000": slice(99, None)}
    return {
        "bound": {
            name: {
                "first": float(found[0]),
                "middle": float(found[1:-1].sum()),
                "last": float(found[-1]),
                "total": float(found.sum()),
            }
            for name, found in terms.items()
        },
        "bits": {
            name: {
                str(steps): float(bound.terms(errors, spec, found, name).sum())
                for steps, found in chains.items()
            }
            for name in bound.VARIANCES
        },
        "weights": {
            part: {
                "levels": len(weights[rows]) / len(weights),
                "bound_weight": float(weights[rows].sum() / weights.sum()),
                "simple_loss": float(noise[rows].sum() / noise.sum()),
                "bound_loss": float((weights * noise)[rows].sum() / (weights * noise).sum()),
            }
            for part, rows in parts.items()
        },
    }


def draw(model: difftool.Model, variance: str, steps: int, count: int) -> Pixels:
    """Draw samples 0 .. count - 1 of seed 0 by the ancestral sampler."""
    program = difftool.samplers.ddpm(model.spec, steps=steps, variance=variance)
    return difftool.to_uint8(model.sample(program, n=count, seed=0), model.spec)


def judged(judge: difftool.evaluate.Evaluator, pixels: Pixels) -> Figures:
    """Return the figures of a set of images."""
    figures = judge.evaluate(pixels).figures
    shares = figures.manifold._asdict()
    return {
        "frechet_distance": figures.frechet_distance,
        **{name: shares[name] for name in ("precision", "recall", "coverage")},
        "sure": figures.classes.sure,
    }


def vae_milliseconds(network: vae.VAE) -> float:
    """Return the processor time of one image of the VAE."""
    started = time.process_time()
    vae.sample(network, _TIMED)
    return 1000 * (time.process_time() - started) / _TIMED


def channels_last(images: Pixels) -> Pixels:
    """Give pixels [N, C, H, W] as [N, H, W, C]."""
    return images.transpose(0, 2, 3, 1)


def of_grid(images: Pixels) -> tuple[int, int, int]:
    """Return the shape (H, W, C) of images [N, C, H, W]."""
    _, channels, height, width = images.shape
    return height, width, channels
