"""The device's driver, on a device that is not there: what it computes, and in which order."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from difftool import edits
from difftool.bundle import STEP, read_bundle
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import annealed_langevin, ddim, ddpm, dpmpp_2m, unipc
from difftool.errors import ArtefactError, ResourceError, UsageError
from difftool.runtime import Model, load
from difftool.runtime.cuda.backend import DeviceBackend, padded_size
from difftool.runtime.cuda.room import Graphs
from difftool.runtime.draws import Draws, row_noise, start_noise
from tests.runtime.cuda.fake import FakeDevice, FakeEngine
from tests.runtime.test_request import KNOWN, MASK, adaptive

# A sampler of each kind: one that draws, one that does not, ones with one, two and three slots of
# history; an odd and an even number of rows.
SAMPLERS: dict[str, Callable[..., Program]] = {
    "ddpm": partial(ddpm, steps=20),
    "ddim": partial(ddim, steps=7),
    "ddim eta": partial(ddim, steps=8, eta=0.7),
    "dpmpp_2m": partial(dpmpp_2m, steps=9),
    "unipc": partial(unipc, steps=8),
    "langevin": partial(annealed_langevin, steps=20),
}
MODES: tuple[Graphs, ...] = ("off", "pairs", "loop")


def on_device(
    bundle: Path,
    *,
    graphs: Graphs = "pairs",
    sizes: tuple[int, int] = (1, 64),
    capturable: bool = True,
    max_batch: int = 8,
    fails: str = "",
) -> tuple[Model, FakeDevice]:
    """Open a bundle on the fake device."""
    device, opened = FakeDevice(), read_bundle(bundle)
    step = opened.file(STEP)
    engine = FakeEngine(device, step, sizes=sizes, capturable=capturable, fails=fails)
    backend = DeviceBackend("fake", opened, device, engine, graphs)
    return Model(opened, backend, max_batch=max_batch), device


def on_cpu(bundle: Path, max_batch: int = 8) -> Model:
    return load(bundle, backend="onnxruntime-cpu", threads=1, max_batch=max_batch)


@pytest.fixture(scope="module")
def cpu(tiny_bundle: Path) -> Model:
    return on_cpu(tiny_bundle)


def assert_alike(
    one: Model,
    other: Model,
    program: Program | None = None,
    *,
    atol: float = 1e-4,
    rtol: float = 1e-7,
    **asked: Any,
) -> None:
    """Demand that two models draw the same samples."""
    runs = [model.sample(program, **asked) for model in (one, other)]
    np.testing.assert_allclose(*runs, atol=atol, rtol=rtol)


@pytest.mark.parametrize("graphs", MODES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples(tiny_bundle: Path, cpu: Model, sampler: str, graphs: Graphs) -> None:
    """The noise kernel's logarithm and cosine differ by ulps from numpy's; so do samples."""
    program = SAMPLERS[sampler](cpu.spec)
    model, device = on_device(tiny_bundle, graphs=graphs)
    assert_alike(model, cpu, program, n=5, seed=3)
    assert device.waits == 1  # for the samples, at the end


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samples_with_the_hosts_noise(tiny_bundle: Path, cpu: Model, sampler: str) -> None:
    program = SAMPLERS[sampler](cpu.spec)
    draws = Draws(1, np.arange(4), cpu.spec.shape)
    model, _ = on_device(tiny_bundle)
    batches = [opened.backend.batch(program, 4) for opened in (model, cpu)]
    for batch in batches:
        batch.start(start_noise(program, draws))
    for drawn in row_noise(program, draws):
        for batch in batches:
            batch.step(drawn)
        for name in ("x", "history", "denoised"):
            found, expected = (getattr(batch, name) for batch in batches)
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("graphs", MODES)
@pytest.mark.parametrize("every", [1, 2, 3, 4, 7, 20])
def test_stops_on_the_way(tiny_bundle: Path, cpu: Model, every: int, graphs: Graphs) -> None:
    """Odd numbers of rows end on the other side of the buffers, where the next must go on."""
    model, device = on_device(tiny_bundle, graphs=graphs)
    states = cpu.stream(n=2, seed=9)
    expected = {state.step: (state.x.copy(), state.denoised.copy()) for state in states}
    stops = []
    for state in model.stream(n=2, seed=9, every=every):
        stops.append(state.step)
        x, denoised = expected[state.step]
        np.testing.assert_allclose(state.x, x, atol=1e-4)
        np.testing.assert_allclose(state.denoised, denoised, atol=1e-4)
        assert state.x is not None  # a second look costs no second wait
    assert stops == sorted({*range(every, 20, every), 20})
    assert device.waits == 2 * len(stops)


def test_samples_of_different_classes_share_a_batch(classes_bundle: Path) -> None:
    """Each begins in its own block of rows, and takes the draw of its row within that."""
    cpu, (model, _) = on_cpu(classes_bundle), on_device(classes_bundle)
    asked = {"n": 5, "seed": 4, "labels": [2, 0, 1, 0, 3]}
    for scale in (1.0, 2.5):
        assert_alike(model, cpu, **asked, guidance_scale=scale, atol=2e-4)


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_a_batch_below_the_profile_is_padded(tiny_bundle: Path, cpu: Model, n: int) -> None:
    model, _ = on_device(tiny_bundle, sizes=(4, 8))
    assert model.sample(n=n, seed=2).shape == (n, 1, 8, 8)
    assert_alike(model, cpu, n=n, seed=2)


def test_a_batch_above_the_profile_is_refused_with_the_way_out(tiny_bundle: Path) -> None:
    model, _ = on_device(tiny_bundle, sizes=(2, 4))
    with pytest.raises(UsageError, match=r"batch of 8, and the engine takes 2 to 4 \(use"):
        model.sample(n=8)
    with pytest.raises(UsageError, match="or compile one for 5"):
        model.sample(n=5)


def test_a_mean_over_the_batch_is_not_taken_over_padding(featured_bundle: Path) -> None:
    model, _ = on_device(featured_bundle, sizes=(4, 8))
    program = adaptive(model.spec, batch_snr=0.2)
    with pytest.raises(UsageError, match="which the engine pads to 4"):
        model.sample(program, n=3)
    assert_alike(model, on_cpu(featured_bundle), program, n=4, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bundle", ["tiny_bundle", "featured_bundle"])
def test_known_values_are_set(bundle: str, request: pytest.FixtureRequest) -> None:
    """By the step graph, or by the loop after every row."""
    path: Path = request.getfixturevalue(bundle)
    cpu, (model, device) = on_cpu(path, 4), on_device(path, sizes=(4, 8), max_batch=4)
    program = unipc(model.spec, steps=8)
    assert_alike(model, cpu, program, n=3, edit=edits.inpaint(KNOWN, MASK))
    assert device.waits == (1 if bundle == "featured_bundle" else 3 * len(program) + 1)
    assert_alike(model, cpu, program, n=3)  # nothing of the edit is left behind


def test_a_run_that_is_left_leaves_the_device_ready(tiny_bundle: Path, cpu: Model) -> None:
    model, device = on_device(tiny_bundle)
    for state in model.stream(n=3, seed=5, every=3):
        if state.step == 6:
            break
    buffers = device.buffers
    assert_alike(model, cpu, n=3, seed=6)
    assert device.buffers > buffers  # the stream is still held by `state`
    del state
    buffers = device.buffers
    assert_alike(model, cpu, n=3, seed=7)
    assert device.buffers == buffers


def test_two_runs_at_once_do_not_meet(tiny_bundle: Path, cpu: Model) -> None:
    model, _ = on_device(tiny_bundle)
    runs = [model.stream(n=2, seed=seed, every=7) for seed in (1, 2)]
    for states in zip(*runs, strict=True):
        last = [state.x.copy() for state in states]
    for seed, found in zip((1, 2), last, strict=True):
        np.testing.assert_allclose(found, cpu.sample(n=2, seed=seed), atol=1e-4)


def run_log(model: Model, device: FakeDevice, program: Program) -> list[str]:
    """Run a program; return what it asks of the device beside filling buffers."""
    model.sample(program, n=2)
    return [entry for entry in device.log if entry not in FILLED]


ROW0, ROW1 = "difftool_noise step0", "difftool_noise step1"
WARM = [*ROW0.split(), *ROW1.split()]
START = "difftool_noise"
FILLED = ("upload", "clear")


PAIR = f"graph({ROW0} {ROW1})"


@pytest.mark.parametrize(
    ("capturable", "sampler", "steps", "launches"),
    [
        pytest.param(True, ddpm, 5, [PAIR, PAIR, f"graph({ROW0})"], id="two rows in order"),
        pytest.param(True, ddim, 4, ["graph(step0 step1)"] * 2, id="no noise, no kernel for it"),
        pytest.param(False, ddpm, 3, [*WARM, *ROW0.split()], id="no capture, row by row"),
    ],
)
def test_launches_of_a_run(
    capturable: bool,
    sampler: Callable[..., Program],
    steps: int,
    launches: list[str],
    tiny_bundle: Path,
) -> None:
    model, device = on_device(tiny_bundle, capturable=capturable)
    log = run_log(model, device, sampler(model.spec, steps=steps))
    assert log == [*WARM, START, *launches, "download"]


def test_a_loop_on_the_device_is_one_launch(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, graphs="loop")
    program = ddpm(model.spec, steps=20)
    assert run_log(model, device, program) == [*WARM, START, f"while({ROW0} {ROW1})", "download"]
    device.log.clear()
    assert run_log(model, device, ddpm(model.spec, steps=5)) == [
        START,
        f"while({ROW0} {ROW1})",
        f"graph({ROW0})",
        "download",
    ]


@pytest.mark.parametrize(
    ("refused", "found", "launches"),
    [
        (("loop",), "pairs", [PAIR] * 2),
        (("loop", "graph"), "off", [*ROW0.split(), *ROW1.split()] * 2),
    ],
)
def test_if_a_capture_fails_the_driver_goes_on_with_less_and_says_so(
    tiny_bundle: Path,
    cpu: Model,
    caplog: pytest.LogCaptureFixture,
    refused: tuple[str, ...],
    found: str,
    launches: list[str],
) -> None:
    model, device = on_device(tiny_bundle, graphs="loop")
    device.refused = refused
    program = ddpm(model.spec, steps=4)
    assert run_log(model, device, program) == [*WARM, START, *launches, "download"]
    assert f"CUDA graphs are {found} from now on" in caplog.text
    assert_alike(model, cpu, program, n=3)


@pytest.mark.parametrize("graphs", ["pairs", "loop"])
def test_an_engine_that_refuses_to_be_captured_runs_row_by_row(
    tiny_bundle: Path, cpu: Model, caplog: pytest.LogCaptureFixture, graphs: Graphs
) -> None:
    model, device = on_device(tiny_bundle, graphs=graphs, fails="captured")
    program = ddpm(model.spec, steps=4)
    rows = [*ROW0.split(), *ROW1.split()] * 2
    assert run_log(model, device, program) == [*WARM, START, *rows, "download"]
    assert model.backend.graphs == "off"
    said = [record.message for record in caplog.records if "CUDA graphs" in record.message]
    assert said[-1] == "the engine failed to run: CUDA graphs are off from now on"
    assert_alike(model, cpu, program, n=3)
    assert_alike(model, cpu, dpmpp_2m(model.spec, steps=4), n=3)  # another room
    assert len(said) == len([r for r in caplog.records if "CUDA graphs" in r.message])


@pytest.mark.parametrize("graphs", MODES)
def test_an_engine_that_fails_without_a_capture_fails_the_run(
    tiny_bundle: Path, graphs: Graphs
) -> None:
    model, _ = on_device(tiny_bundle, graphs=graphs)
    model.sample(n=2)
    model.backend.engine.fails = "always"
    with pytest.raises(ArtefactError, match="the engine failed to run"):
        model.sample(ddim(model.spec, steps=4), n=2)


def test_what_the_first_runs_compiled_is_kept_once(tiny_bundle: Path) -> None:
    model, _ = on_device(tiny_bundle)
    for seed in range(2):
        model.sample(n=2, seed=seed)
    assert model.backend.engine.kept == 1


def test_a_second_run_allocates_and_captures_nothing(tiny_bundle: Path, cpu: Model) -> None:
    """For another seed, other samples and another program of as many rows, too."""
    model, device = on_device(tiny_bundle)
    programs = ddim(model.spec, steps=6, eta=1.0), ddpm(model.spec, steps=6)
    model.sample(programs[0], n=3)
    buffers = device.buffers
    device.log.clear()
    model.sample(programs[1], n=3, seed=8, first_sample=70)
    assert device.buffers == buffers
    launched = [entry for entry in device.log if entry not in FILLED]
    assert launched == [START, *[PAIR] * 3, "download"]
    assert_alike(model, cpu, programs[1], n=3, seed=8, first_sample=70)
    assert device.captures == 1


def test_sizes_that_differ_a_little_share_a_room(tiny_bundle: Path) -> None:
    """Tables of 20 and of 17 rows, 60 samples and 57. No row beyond them is read: those are NaN."""
    (model, device), cpu = on_device(tiny_bundle, max_batch=64), on_cpu(tiny_bundle, 64)
    programs = ddpm(cpu.spec, steps=20), ddim(cpu.spec, steps=17)
    assert_alike(model, cpu, programs[0], n=60, seed=1)
    buffers = device.buffers
    assert_alike(model, cpu, programs[1], n=57, seed=2)
    assert device.buffers == buffers


def test_the_best_size_runs_unpadded(tiny_bundle: Path) -> None:
    """Full batches have it, and ONNX Runtime's is seldom a rounded one."""
    model, _ = on_device(tiny_bundle, max_batch=64)
    model.backend.engine.best = 13
    for n in (13, 14, 11, 13):
        model.sample(n=n)
    assert model.backend.engine.bound == [13, 14, 12]


@pytest.mark.parametrize("steps", [4, 8, 1])
def test_padded_sizes(steps: int) -> None:
    for size in range(1, 3000):
        padded = padded_size(size, steps)
        assert size <= padded <= size * (1 + 1 / steps)
        assert padded == padded_size(padded, steps)
    octave = {padded_size(size, steps) for size in range(513, 1025)}
    assert len(octave) == steps


def test_a_mean_over_the_batch_is_not_taken_over_a_rounded_size(featured_bundle: Path) -> None:
    model, cpu = on_device(featured_bundle, max_batch=16)[0], on_cpu(featured_bundle, 16)
    program = adaptive(model.spec, batch_snr=0.2)
    assert_alike(model, cpu, program, n=9, atol=1e-3, rtol=1e-3)


def test_the_start_is_drawn_on_the_device(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle)
    program = ddpm(model.spec)
    draws = Draws(5, np.array([7, 0, 9]), model.spec.shape)
    batch = model.backend.batch(program, 3)
    device.sent.clear()
    batch.begin(2.5, draws)
    assert max(device.sent) < 3 * 64 * 4  # x was not sent
    expected = np.float32(2.5) * draws.normal(0)
    # As the tests of the noise kernel have it: numpy's own log, cos and sin are good to 4.
    assert (np.abs(batch.x - expected) / np.spacing(np.abs(expected))).max() <= 8
    assert not batch.history.any()


def test_clean_samples_to_start_from_come_from_the_host(tiny_bundle: Path, cpu: Model) -> None:
    model, device = on_device(tiny_bundle)
    init = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)
    program = ddim(model.spec, steps=4)
    assert_alike(model, cpu, program, n=2, init=init)
    assert device.log.count("difftool_noise") == 2  # the warm-up's


def test_a_conditioners_table_is_sent_once(tiny_bundle: Path, cpu: Model) -> None:
    model, device = on_device(tiny_bundle)
    programs = [ddim(model.spec, steps=steps) for steps in (5, 6)]
    sent = []
    for program in (programs[0], programs[0], programs[1]):
        device.sent.clear()
        assert_alike(model, cpu, program, n=2)
        sent.append(max(device.sent))
    assert sent[1] < sent[0] == sent[2]


def test_threads_get_the_bits_of_one_and_none_touches_the_device(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle)
    program = ddpm(model.spec, steps=6)
    expected = [model.sample(program, n=4, seed=seed) for seed in range(12)]
    callers: set[int] = set()

    def call(seed: int) -> Any:
        callers.add(threading.get_ident())
        return model.sample(program, n=4, seed=seed)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(12)))
    assert np.array_equal(found, expected)
    assert len(device.threads) == 1
    assert not device.threads & {*callers, threading.get_ident()}


def test_the_backend_says_what_it_runs_on(tiny_bundle: Path) -> None:
    for capturable, after in ((True, "pairs"), (False, "off")):
        model, _ = on_device(tiny_bundle, capturable=capturable)
        assert (model.backend.device_name, model.backend.graphs) == ("a fake GPU", "pairs")
        model.sample(n=1)
        assert model.backend.graphs == after


def test_when_memory_is_short_the_rooms_that_are_kept_make_way(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle, max_batch=64)
    model.sample(n=16)
    held = device.bytes
    device.limit = held + held // 2
    assert model.sample(n=20).shape[0] == 20
    assert device.bytes > held
    with pytest.raises(ResourceError, match=r"no memory for a batch of 64 \(try max_batch 32"):
        model.sample(n=64)


def test_nothing_is_waited_for_between_the_rows(tiny_bundle: Path) -> None:
    model, device = on_device(tiny_bundle)
    program = ddpm(model.spec)
    batch = model.backend.batch(program, 3)
    draws = Draws(0, np.arange(3), model.spec.shape)
    batch.start(start_noise(program, draws))
    batch.advance(7, draws)
    uploads = device.log.count("upload")
    for rows in (1, 12):
        batch.advance(rows, draws)
    assert (device.waits, device.log.count("upload")) == (0, uploads)
    assert np.isfinite(batch.x).all()
    assert device.waits == 1


def test_a_sample_between_two_gets_the_hosts_noise(tiny_bundle: Path, cpu: Model) -> None:
    model, _ = on_device(tiny_bundle)
    assert_alike(model, cpu, n=4, between=(3, 11), atol=1e-5)


def test_points_need_no_conditioner_of_width(points_bundle: Path) -> None:
    """2 elements a sample fill half a block of noise."""
    model, _ = on_device(points_bundle)
    assert_alike(model, on_cpu(points_bundle), n=5, seed=1, atol=1e-3, rtol=1e-3)
