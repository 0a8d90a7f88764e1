"""D1 and D2: a sample is the same whatever stands beside it, and however many are drawn.

D1 is of rows: in one size of a batch, neighbours never change a sample, on any backend; nor does
its slot, on those that are published as invariant. D2 is of the embedding API:
`deterministic=True` keeps the size and the slot, so every backend repeats a sample bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from difftool.bundle import Bundle, read_bundle
from difftool.diffusion.calls import NetworkCall, SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.labels import Labels
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import ddim, ddpm, unipc
from difftool.runtime.backends.host import HostBatch
from difftool.runtime.draws import Draws
from difftool.runtime.model import Model
from difftool.runtime.protocols import Backend
from difftool.runtime.shipped import find_bundle
from tests import fixtures
from tests.reliability.backends import NAMES, Floats, final, opened, ulps, with_torchscript
from tests.reliability.criteria import Cases

# docs/reliability.md: the backends on which the slot is no matter, and how far it may move a sample
# on the others, in ULP of its largest number.
INVARIANT = ("onnxruntime-cpu", "openvino")
MOST_ULPS = 64

SIZES = (5, 2, 1, 3, 8)  # of which the short tier takes two
BATCH = 5
SHORT = {"numpy": 8, "onnxruntime-cpu": 200, "openvino": 100, "torchscript": 40}
FULL = 500
LEVEL = 1 / 255


@dataclass(frozen=True)
class Schedule:
    """A sample of a seed among `neighbours`, in a slot; each has a label of its own."""

    program: Program
    seed: int
    sample: int
    neighbours: tuple[int, ...]
    slot: int

    def __repr__(self) -> str:
        place = f"{self.sample} in slot {self.slot} beside {self.neighbours}"
        return f"{self.program.name}, seed {self.seed}, sample {place}"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model of 7 x 5 pixels, which no vector of a CPU divides, with classes and a step.ts."""
    root = tmp_path_factory.mktemp("odd")
    spec = replace(fixtures.CLASSES_SPEC, shape=(1, 7, 5))
    arguments = {**fixtures.CLASSES_NETWORK.arguments, "channels": 4, "groups": 2}
    network = NetworkCall("unet", arguments)
    checkpoint = fixtures.save_model(root / "run", spec, network, SamplerCall("ddpm"))
    return with_torchscript(fixtures.export_model(checkpoint, root / "bundle"), checkpoint)


def schedules(bundle: Bundle, count: int, sizes: tuple[int, ...] = SIZES[:2]) -> Iterator[Schedule]:
    """Yield random ones, of programs with and without noise and history.

    A size after the other, as OpenVINO compiles its graph for each.
    """
    random = np.random.default_rng(0)
    programs = [ddpm(bundle.spec, steps=6), ddim(bundle.spec, steps=4), unipc(bundle.spec, steps=4)]
    for size in sorted(random.choice(sizes, count).tolist()):
        sample, *neighbours = random.choice(1 << 20, size, replace=False).tolist()
        key = int(random.integers(1 << 63))
        program = programs[random.integers(len(programs))]
        yield Schedule(program, key, sample, tuple(neighbours), int(random.integers(size)))


def same_in_any_company(backend: Backend, bundle: Bundle) -> Callable[[Schedule], float]:
    """Return the check of D1, which returns by how many ULP the slot moves the sample."""

    def drawn(case: Schedule, slot: int, neighbours: list[int]) -> Floats:
        samples = [*neighbours[:slot], case.sample, *neighbours[slot:]]
        return final(backend, bundle.spec, case.program, case.seed, samples)[slot]

    def check(case: Schedule) -> float:
        others = list(case.neighbours)
        found = drawn(case, case.slot, others)
        strangers = [other + 1 for other in reversed(others)]
        assert np.array_equal(found, drawn(case, case.slot, strangers)), "neighbours change it"
        apart = ulps(found, drawn(case, 0, others))
        allowed = 0 if backend.name in INVARIANT else MOST_ULPS
        assert apart <= allowed, f"the slot moves it by {apart} ULP"
        return apart

    return check


@pytest.mark.criterion("D1")
@pytest.mark.parametrize("name", NAMES)
def test_neighbours_and_slots(
    name: str, odd: Bundle, cases: Cases, nightly: bool, note: Callable[[str], None]
) -> None:
    asked = schedules(odd, FULL, SIZES) if nightly else schedules(odd, SHORT.get(name, 40))
    apart = cases.run(same_in_any_company(opened(odd, name), odd), asked)
    note(f"D1, {name}: another slot moves a sample by at most {max(apart):.0f} ULP")


@pytest.mark.criterion("D1")
@pytest.mark.parametrize("name", INVARIANT)
def test_neighbours_and_slots_of_a_shipped_model(name: str, cases: Cases, nightly: bool) -> None:
    """With two threads, which share out a batch as they like."""
    bundle = read_bundle(find_bundle("ddpm-mnist"))
    check = same_in_any_company(opened(bundle, name, threads=2), bundle)
    cases.run(check, schedules(bundle, 100 if nightly else 2))


@pytest.mark.seeded("D1")
def test_one_stream_of_noise_for_all_is_seen(odd: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(draws: Draws, draw: Any) -> Floats:
        stream = np.random.default_rng(draws.seed)
        size = (*np.shape(draw), len(draws.samples), *draws.shape)
        return stream.standard_normal(size, np.float32)

    check = same_in_any_company(opened(odd, "onnxruntime-cpu"), odd)
    moved = [case for case in schedules(odd, 40) if case.slot]
    for case in moved[:3]:
        check(case)
    monkeypatch.setattr(Draws, "normal", shared)
    for case in moved[:3]:
        with pytest.raises(AssertionError, match="slot moves it"):
            check(case)


Range = tuple[int, int]  # the first sample, and how many


def ranges(count: int, seed: int = 0) -> list[Range]:
    """Return random ranges of 40 samples."""
    random = np.random.default_rng(seed)
    firsts = random.integers(0, 40, count).tolist()
    return [(first, int(random.integers(1, 41 - first))) for first in firsts]


def same_in_any_number(model: Model) -> Callable[[Range], None]:
    """Return the check of D2: a range of samples against one run of all."""
    program = ddpm(model.spec, steps=6)
    whole = model.sample(program, n=40, seed=2, deterministic=True)

    def check(case: Range) -> None:
        first, n = case
        found = model.sample(program, n=n, seed=2, first_sample=first, deterministic=True)
        assert np.array_equal(found, whole[first : first + n])

    return check


@pytest.mark.criterion("D2")
@pytest.mark.parametrize("name", NAMES)
def test_deterministic_in_any_number(name: str, odd: Bundle, cases: Cases, nightly: bool) -> None:
    count = {"numpy": 2}.get(name, 20)
    model = Model(odd, opened(odd, name), max_batch=BATCH)
    cases.run(same_in_any_number(model), ranges(10 * count if nightly else count))


def near_in_any_batch(model: Model) -> Callable[[Model], None]:
    """Return the check of D2 without `deterministic`: pixels of a model that batches otherwise."""
    program = ddpm(model.spec)
    expected = model.sample(program, n=24, seed=3)
    low, high = model.spec.data_range or (0.0, 1.0)

    def check(other: Model) -> None:
        found = other.sample(program, n=24, seed=3)
        near = np.abs(found - expected) <= LEVEL * (high - low)
        assert near.mean() >= 0.999, f"{1 - near.mean():.1%} of the pixels are off"

    return check


@pytest.mark.criterion("D2")
@pytest.mark.parametrize("name", NAMES[1:])
def test_other_batches_move_no_pixel(name: str, odd: Bundle, cases: Cases, nightly: bool) -> None:
    backend = opened(odd, name)
    others = range(2, 25) if nightly else (3, 24)
    check = near_in_any_batch(Model(odd, backend, max_batch=1))
    cases.run(check, [Model(odd, backend, max_batch=size) for size in others])


class Rounding:
    """ONNX Runtime, but a step's rounding depends on the size of the batch, by `unit`."""

    name = "rounding"
    features = frozenset[Feature]()

    def __init__(self, bundle: Bundle, unit: float) -> None:
        self._inner, self._unit = opened(bundle, "onnxruntime-cpu"), unit

    def batch(self, program: Program, size: int, labels: Labels | None = None) -> HostBatch:
        batch = self._inner.batch(program, size, labels)
        assert isinstance(batch, HostBatch)
        exact, factor = batch.step, np.float32(1 + size * self._unit)

        def step(noise: Floats | None) -> None:
            exact(noise)
            batch.x[...] *= factor

        batch.step = step  # type: ignore[method-assign]
        return batch


@pytest.mark.seeded("D2")
def test_a_batch_that_is_not_padded_is_seen(odd: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(odd, Rounding(odd, 2.0**-22), max_batch=BATCH)
    check = same_in_any_number(model)
    check((3, 4))
    padded = Model.run
    monkeypatch.setattr(
        Model, "run", lambda model, request: padded(model, replace(request, deterministic=False))
    )
    with pytest.raises(AssertionError):
        check((3, 4))


@pytest.mark.seeded("D2")
def test_a_batch_that_moves_pixels_is_seen(odd: Bundle) -> None:
    backend = Rounding(odd, 1e-2)
    check = near_in_any_batch(Model(odd, backend, max_batch=1))
    check(Model(odd, backend, max_batch=1))
    with pytest.raises(AssertionError, match="pixels are off"):
        check(Model(odd, backend, max_batch=8))
