"""A graph whose outputs have other sizes than it says is refused before it runs, on any backend."""

import shutil
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import difftool
from difftool.bundle import CONDITIONER, STEP, Bundle, Limits, read_bundle
from difftool.bundle.amend import with_files
from difftool.diffusion.labels import Labels
from difftool.errors import ArtefactError, ResourceError
from difftool.preflight import OnnxFile
from difftool.runtime.backends.prepare import Preparation

BACKENDS: Final = ("onnxruntime-cpu", "openvino")
CODES: Final = ("graph-interface", "graph-shape")


def instead(output: str, operator: str, *inputs: object, **attributes: object) -> Callable:
    """A change of a graph: an output is what an operator makes of what it was.

    What is no word among the inputs is a constant; the word `it` is the output as it was.
    """

    def change(graph: onnx.GraphProto) -> None:
        was = f"{output}_was"
        for node in graph.node:
            node.output[:] = [was if name == output else name for name in node.output]
            node.input[:] = [was if name == output else name for name in node.input]
        names = []
        for index, value in enumerate(inputs):
            name = {"it": was}.get(str(value), f"{output}_{index}")
            if value != "it":
                graph.initializer.append(numpy_helper.from_array(np.array(value), name))
            names.append(name)
        graph.node.append(helper.make_node(operator, names, [output], **attributes))
        free = next(value for value in graph.output if value.name == output)
        for axis, dim in enumerate(free.type.tensor_type.shape.dim):
            dim.dim_param = f"{output}_{axis}"

    return change


LIES: Final[dict[str, tuple[str, Callable]]] = {
    "x twice": (STEP, instead("x_next", "Concat", "it", "it", axis=0)),
    "x of the first": (STEP, instead("x_next", "Slice", "it", [0], [1], [0])),
    "x wider": (STEP, instead("x_next", "Pad", "it", [0, 0, 0, 0, 0, 0, 0, 1])),
    "x with an axis more": (STEP, instead("x_next", "Unsqueeze", "it", [0])),
    "denoised in a row": (STEP, instead("denoised", "Flatten", "it")),
    "no denoised": (STEP, instead("denoised", "Slice", "it", [0], [0], [0])),
    "history longer": (STEP, instead("history_next", "Concat", "it", "it", axis=0)),
    "row twice": (STEP, instead("row_next", "Concat", "it", "it", axis=0)),
    "row of one": (STEP, instead("row_next", "Slice", "it", [0], [1], [0])),
    "cond of one": (CONDITIONER, instead("cond_table", "Slice", "it", [0], [1], [0])),
    "cond of half": (CONDITIONER, instead("cond_table", "Slice", "it", [0], [2], [0])),
    "cond twice": (CONDITIONER, instead("cond_table", "Concat", "it", "it", axis=0)),
    "cond wider": (CONDITIONER, instead("cond_table", "Concat", "it", "it", axis=1)),
    "cond on its side": (CONDITIONER, instead("cond_table", "Transpose", "it")),
}


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def changed(bundle: Path, file: str, change: Callable) -> Bundle:
    """Give the bundle another graph, with the right digests."""
    model = onnx.load(bundle / file)
    change(model.graph)
    return with_files(read_bundle(bundle), {file: model.SerializeToString()})


def draw(bundle: Bundle, backend: str) -> None:
    model = difftool.load(bundle, backend=backend, threads=1)
    model.sample(difftool.samplers.dpmpp_2m(model.spec, steps=5), n=3)


@pytest.mark.parametrize("lie", LIES)
def test_outputs_of_other_sizes_are_refused(copy: Path, lie: str) -> None:
    bundle = changed(copy, *LIES[lie])
    for backend in BACKENDS:
        with pytest.raises(ArtefactError) as caught:
            draw(bundle, backend)
        assert caught.value.code in CODES, backend
        assert "\n" not in caught.value.message


def none_if_unguided(graph: onnx.GraphProto) -> None:
    """Cut x_next to nothing if `guided` is 0."""
    instead("x_next", "Slice", "it", [0], [9], [0])(graph)
    graph.node.append(helper.make_node("Mul", ["guided", "x_next_2"], ["end"]))
    graph.node.insert(0, graph.node.pop())
    graph.node[-1].input[2] = "end"


def default_of(number: int | None) -> Callable:
    """Give the input `guided` another default, or none."""

    def change(graph: onnx.GraphProto) -> None:
        kept = [tensor for tensor in graph.initializer if tensor.name != "guided"]
        made = [] if number is None else [numpy_helper.from_array(np.array([number]), "guided")]
        del graph.initializer[:]
        graph.initializer.extend([*kept, *made])

    return change


def default_of_noise(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, 8, 8), np.float32), "noise"))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (none_if_unguided, "graph-interface"),
        (default_of(0), "graph-interface"),
        (default_of(None), "graph-interface"),
        (default_of_noise, "graph-names"),
    ],
)
def test_the_input_that_may_be_left_out(
    classes_bundle: Path, tmp_path: Path, change: Callable, code: str
) -> None:
    copy = Path(shutil.copytree(classes_bundle, tmp_path / "bundle"))
    if "guided" not in read_bundle(copy).graph(STEP).graph.inputs:
        pytest.skip("the oldest exporter computes sizes, so its graphs have no such input")
    bundle = changed(copy, STEP, change)
    for backend in BACKENDS:
        with pytest.raises(ArtefactError) as caught:
            draw(bundle, backend)
        assert caught.value.code == code, caught.value.message


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_takes_as_much_memory_as_allowed(tiny_bundle: Path, backend: str) -> None:
    limits = Limits(memory_bytes=2 << 20)
    model = difftool.load(tiny_bundle, backend=backend, threads=1, limits=limits)
    assert model.sample(n=1).shape == (1, 1, 8, 8)
    with pytest.raises(ResourceError, match="max_batch=250") as caught:
        difftool.load(tiny_bundle, max_batch=500, threads=1, limits=limits).sample(n=500)
    assert "`limits`" in caught.value.hint


def test_a_model_that_takes_too_much_alone_is_the_bundles_fault(tiny_bundle: Path) -> None:
    assert read_bundle(tiny_bundle).limits.memory_bytes == 8 << 30
    with pytest.raises(ArtefactError) as caught:
        difftool.load(tiny_bundle, threads=1, limits=Limits(memory_bytes=1 << 14))
    assert caught.value.code == "graph-memory"


@pytest.mark.parametrize("file", [STEP, CONDITIONER])
def test_what_a_runtime_makes_as_it_loads_a_graph_is_known_before(copy: Path, file: str) -> None:
    """Of 40 GB, in a graph of no more than a few bytes."""

    def bomb(graph: onnx.GraphProto) -> None:
        sizes = numpy_helper.from_array(np.array([10_000, 1_000_000]), "bomb_sizes")
        graph.initializer.append(sizes)
        graph.node.append(helper.make_node("ConstantOfShape", ["bomb_sizes"], ["bomb"]))

    with pytest.raises(ArtefactError) as caught:
        difftool.load(changed(copy, file, bomb), threads=1)
    assert caught.value.code == "graph-memory"


class Counted:
    """A conditioner that counts its runs, and gives the noise levels themselves."""

    runs = 0

    def load(self, file: OnnxFile) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
        """Return a function of the file's interface."""
        (_, width) = file.sizes({"cond": (1,)}, 1 << 30)["cond_table"]

        def table(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
            self.runs += 1
            return np.repeat(inputs["cond"][:, None], width, axis=1)

        return table


def test_the_conditioner_runs_once_for_a_program(tiny_bundle: Path) -> None:
    counted, bundle = Counted(), read_bundle(tiny_bundle)
    prepare = Preparation(bundle, None, counted.load)
    programs = [difftool.samplers.ddim(bundle.spec, steps=steps) for steps in (5, 6, 7)]
    first = prepare(programs[0], 2, None).cond_table
    again = difftool.samplers.ddim(bundle.spec, steps=5)  # equal, and another object
    assert prepare(again, 8, None).cond_table is first
    assert counted.runs == 1
    second = prepare(programs[1], 2, None).cond_table
    assert len(second) == 6
    assert prepare(programs[0], 2, None).cond_table is first
    assert counted.runs == 2
    gone = weakref.ref(first)
    del first
    prepare(programs[2], 2, None)
    assert gone() is None  # two are kept
    assert prepare(programs[1], 2, None).cond_table is second
    assert counted.runs == 3


def test_the_conditioner_runs_anew_for_other_labels(classes_bundle: Path) -> None:
    bundle = read_bundle(classes_bundle)
    prepare = Preparation(bundle, None)
    program = difftool.samplers.ddim(bundle.spec, steps=5)
    tables = [
        prepare(program, 3, Labels(np.array(of), scale)).cond_table
        for of, scale in (([0, 0, 1], 1.0), ([1, 0, 0], 1.0), ([2, 2, 2], 1.0), ([2, 2, 2], 3.0))
    ]
    assert tables[0] is tables[1]  # the same rows, which the samples begin at in another order
    assert [len(table) for table in tables] == [10, 10, 5, 10]
    assert not np.array_equal(tables[0][:5], tables[2])
