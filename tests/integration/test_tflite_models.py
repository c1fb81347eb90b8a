"""TFLite in four precisions on small real models, by value against ONNX Runtime, sample after sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BuildFailedError, ToolchainMissingError
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.harness.building import build_targets
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session
from modelwright.targets.tflite.converter.originals import adopt_names, restore_weights
from modelwright.targets.tflite.environment import ensure_environment
from modelwright.targets.tflite.target import TfliteFp16, TfliteFp32, TfliteInt8, TfliteInt8Dynamic

pytestmark = pytest.mark.slow

REQUIRED = os.environ.get("CI") == "true"
MACHINE = Machine(name="host", architecture="x86_64", instruction_sets=frozenset(), cores=2)
TARGETS = {"fp32": TfliteFp32(), "fp16": TfliteFp16(), "int8": TfliteInt8(), "int8-dynamic": TfliteInt8Dynamic()}
LOSSES = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.25, "int8-dynamic": 0.25}
"""Largest rms of one inference's error over the rms of the output. A wrong layout, row or factor makes it 0.5 to 2; the
INT8 recipes take the fastest candidate with a mean cosine of 0.99, which is a mean error of 0.14."""
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
COUNT = 64
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def _toolchain() -> None:
    try:
        ensure_environment(lambda line: None)
        import ai_edge_litert  # noqa: F401
        import onnxruntime  # noqa: F401
    except (ToolchainMissingError, ModuleNotFoundError) as error:
        if REQUIRED:
            pytest.fail(f"CI must have what TFLite needs: {error}")
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Gives every test the same numbers, whichever ran before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-int8-dynamic"])
def test_a_product_whose_input_no_scale_of_8_bits_holds_stays_in_float(target: str, tmp_path: Path) -> None:
    """An amount up to 20,000 beside flags and rates, which alone decide: one scale for both leaves nothing of these."""
    amounts = np.exp(RNG.normal(5, 1.6, 400)).clip(1, 20000)
    features = np.column_stack([amounts, RNG.random((400, 10))]).astype(np.float32)
    arrays = {"w0": weights(11, 64), "w1": weights(64, 64), "w2": weights(64, 4)}
    arrays["w0"][0] = 0.0
    for name, size in (("b1", 64), ("b2", 4)):
        arrays[name] = RNG.standard_normal(size).astype(np.float32) / 10
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["p0"], name="reads"),
        helper.make_node("Relu", ["p0"], ["r0"]),
        helper.make_node("Gemm", ["r0", "w1", "b1"], ["h1"], name="mixes"),
        helper.make_node("Relu", ["h1"], ["r1"]),
        helper.make_node("Gemm", ["r1", "w2", "b2"], ["y"], name="answers"),
    ]
    path = models.save(tmp_path / "m.onnx", nodes, [("x", FLOAT, ["batch", 11])], [("y", FLOAT, ["batch", 4])], arrays)
    samples = tmp_path / "s.npz"
    np.savez(samples, x=features)
    made = build_targets(path, samples=samples, out=tmp_path / "out", targets=[target], task="y=regression")
    manifest = made.artifacts[target].manifest
    (kept,) = manifest.recipe["search"]["float_layers"]
    assert kept["layer"] == "p0"
    assert manifest.recipe["operators"]["FULLY_CONNECTED"] == {"float32": 1, "float32*int8": 2}
    assert manifest.proof is not None
    assert manifest.proof.fidelity.task is not None
    assert manifest.proof.fidelity.task.severity <= 1.0


def test_a_file_takes_names_and_weights_of_another_one_of_its_graph(tmp_path: Path) -> None:
    """A copy of a model gets other names where the model's nodes have none; layers are told by those of the model."""
    files = []
    for number, width in enumerate((4, 4, 5)):
        arrays = {"w": weights(6, width), "v": weights(width, 3)}
        nodes = [
            helper.make_node("MatMul", ["x", "w"], [f"first{number}"]),
            helper.make_node("Relu", [f"first{number}"], [f"active{number}"]),
            helper.make_node("MatMul", [f"active{number}", "v"], ["y"]),
        ]
        path = tmp_path / f"{number}.onnx"
        models.save(path, nodes, [("x", FLOAT, ["batch", 6])], [("y", FLOAT, ["batch", 3])], arrays)
        np.savez(tmp_path / "s.npz", x=RNG.standard_normal((COUNT, 6)).astype(np.float32))
        made = build_targets(path, samples=tmp_path / "s.npz", out=tmp_path / str(number), targets=["tflite-fp32"])
        files.append(Path(made.artifacts["tflite-fp32"].directory, "model.tflite").read_bytes())
    (names, stored), (other_names, other_stored) = map(read_weights, files[:2])
    assert names != other_names
    adopted = adopt_names(files[1], files[0])
    assert read_weights(adopted)[0] == names
    with pytest.raises(ValueError, match="becomes another graph"):
        adopt_names(files[2], files[0])
    restored = read_weights(restore_weights(adopted, files[0], names[:1]))[1]
    np.testing.assert_array_equal(restored[0], stored[0])
    np.testing.assert_array_equal(restored[1], other_stored[1])
    assert not np.array_equal(restored[1], stored[1])


def read_weights(data: bytes) -> tuple[list[str], list[Any]]:
    """Returns the names of the matrix products of a file, and their weights."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(data))
    graph = model.subgraphs[0]
    products = [
        op for op in graph.operators if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == "FULLY_CONNECTED"
    ]
    names = [graph.tensors[op.outputs[0]].name.decode() for op in products]
    return names, [np.array(model.buffers[graph.tensors[op.inputs[1]].buffer].data) for op in products]


def weights(*shape: int) -> Any:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return (RNG.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def node(op_type: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), outputs.split(), f"{op_type}_{outputs.split()[0]}", **attributes)


Tensors = dict[str, tuple[int, Sequence[int | str]]]


class Bench:
    """A model, samples for it, and ONNX Runtime's answers to them."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[onnx.NodeProto],
        inputs: Tensors,
        outputs: Tensors,
        constants: dict[str, Any],
        opset: int = 17,
        *,
        sizes: Sequence[int] = (),
    ) -> None:
        import onnxruntime

        self.folder = folder
        self.results: dict[str, BuildResult] = {}
        ends = [
            [helper.make_tensor_value_info(name, *kind) for name, kind in part.items()] for part in (inputs, outputs)
        ]
        graph = helper.make_graph(
            nodes, "g", *ends, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, folder / "model.onnx")
        self.signature = Signature(inputs=_specs(inputs), outputs=_specs(outputs))
        arrays = {}
        for name, (dtype, shape) in inputs.items():
            open_sizes = iter(sizes)
            known = [next(open_sizes) if axis and isinstance(size, str) else size for axis, size in enumerate(shape)]
            size = (COUNT, *known[1:]) if isinstance(shape[0], str) else (COUNT, *known)
            values = RNG.integers(0, 10, size) if dtype == INT64 else RNG.uniform(-1, 1, size).astype(np.float32)
            arrays[name] = values
        np.savez(folder / "samples.npz", **arrays)
        self.source = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        answers = [self.answer(feeds) for feeds in self.samples("evaluation").feeds()]
        self.scales = {name: _rms(np.stack([answer[name] for answer in answers])) for name in outputs}

    def samples(self, part: Any) -> SampleSet:
        return open_samples(SampleRef(path=self.folder / "samples.npz", part=part), self.signature)

    def answer(self, feeds: Any) -> dict[str, Any]:
        names = [spec.name for spec in self.signature.outputs]
        return dict(zip(names, self.source.run(names, dict(feeds)), strict=True))

    def build(self, precision: str) -> BuildResult:
        """Builds a precision once; later calls return the same result."""
        if precision in self.results:
            return self.results[precision]
        for name in ("out", "scratch", "shared"):
            (self.folder / name).mkdir(exist_ok=True)
        tuning = self.samples("tuning")
        for name in ("out", "scratch"):
            (self.folder / name / precision).mkdir(exist_ok=True)
        request = BuildRequest(
            model_path=self.folder / "model.onnx",
            signature=self.signature,
            directory=self.folder / "out" / precision,
            machine=MACHINE,
            calibration=self.samples("calibration"),
            tuning=tuning,
            reference=[self.answer(feeds) for feeds in tuning.feeds()],
            scratch=self.folder / "scratch" / precision,
            shared=self.folder / "shared",
            progress=lambda line: None,
        )
        self.results[precision] = TARGETS[precision].build(request)
        return self.results[precision]

    @contextmanager
    def load(self, precision: str, result: BuildResult) -> Iterator[Session]:
        folder = self.folder / "out" / precision
        with TARGETS[precision].load(
            folder, result.model_file, result.recipe, self.signature, RunSettings()
        ) as session:
            yield session

    def prove(self, session: Session, loss: float, feeds: Any) -> None:
        """Compares every output of one inference with ONNX Runtime's: dtype, shape and values."""
        expected, actual = self.answer(feeds), session.run(feeds)
        assert list(actual) == list(expected)
        for name, value in expected.items():
            assert (actual[name].dtype, actual[name].shape) == (value.dtype, value.shape), name
            if value.dtype.kind == "i":
                np.testing.assert_array_equal(actual[name], value)
            else:
                assert _rms(actual[name] - value) <= loss * self.scales[name], name

    def prove_all(self, session: Session, loss: float) -> None:
        feeds = list(self.samples("evaluation").feeds(8))
        for one in feeds:
            self.prove(session, loss, one)
        before = session.run(feeds[0])
        for name, value in session.run(feeds[0]).items():
            np.testing.assert_array_equal(value, before[name], err_msg="it kept something between two runs")

    def prove_batch(self, session: Session, loss: float) -> None:
        samples = self.samples("evaluation")
        for batch in (4, 2, 1):
            self.prove(session, loss, samples.batch(range(batch)))


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _specs(tensors: Tensors) -> tuple[TensorSpec, ...]:
    dtypes = {FLOAT: "float32", INT64: "int64"}
    return tuple(
        TensorSpec(name=name, dtype=dtypes[dtype], shape=tuple(shape)) for name, (dtype, shape) in tensors.items()
    )


def make_cnn(folder: Path) -> Bench:
    """Rank 4 out, with as many channels as rows and columns: a wrong layout has the right shape."""
    nodes = [
        node("Conv", "x w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Conv", "p1 w2", "c2", pads=[1, 1, 1, 1], group=8),
        node("Add", "c2 r1", "y"),
        node("GlobalAveragePool", "r1", "p2"),
        node("Flatten", "p2", "z"),
    ]
    constants = {"w1": weights(8, 3, 3, 3), "b1": np.linspace(-0.5, 0.5, 8, dtype=np.float32)}
    return Bench(
        folder,
        nodes,
        {"x": (FLOAT, ["n", 3, 16, 16])},
        {"y": (FLOAT, ["n", 8, 8, 8]), "z": (FLOAT, ["n", 8])},
        {**constants, "w2": weights(8, 1, 3, 3)},
    )


def make_mlp(folder: Path) -> Bench:
    """Products with constants on the right, with and without bias, and on the left; a GELU between."""
    nodes = [
        node("MatMul", "x w1", "m1"),
        node("Add", "b1 m1", "a1"),
        node("Div", "a1 root", "d"),
        node("Erf", "d", "e"),
        node("Add", "e one", "o"),
        node("Mul", "a1 o", "g"),
        node("Mul", "g half", "h"),
        node("MatMul", "mixer h", "t"),
        node("MatMul", "t w2", "y"),
    ]
    scalars = {name: np.float32(value) for name, value in (("root", 2**0.5), ("one", 1), ("half", 0.5))}
    constants = {"w1": weights(16, 32), "b1": weights(32, 1)[:, 0], "mixer": weights(6, 6), "w2": weights(32, 6)}
    inputs, outputs = {"x": (FLOAT, ["n", 6, 16])}, {"y": (FLOAT, ["n", 6, 6])}
    return Bench(folder, nodes, inputs, outputs, {**constants, **scalars})


def make_embedding(folder: Path) -> Bench:
    """Two inputs, one of them int64 ids, and two outputs, one of them int64."""
    nodes = [
        node("Gather", "table ids", "rows"),
        node("MatMul", "rows w", "m"),
        node("Add", "m x", "s"),
        node("ReduceMean", "s", "y", axes=[1], keepdims=0),
        node("Add", "ids hundred", "z"),
    ]
    inputs = {"ids": (INT64, ["n", 5]), "x": (FLOAT, ["n", 5, 12])}
    outputs = {"y": (FLOAT, ["n", 12]), "z": (INT64, ["n", 5])}
    constants = {
        "hundred": np.array(100),
        "table": RNG.standard_normal((10, 8)).astype(np.float32),
        "w": weights(8, 12),
    }
    return Bench(folder, nodes, inputs, outputs, constants)


def make_lstm(folder: Path) -> Bench:
    """Batch first outside, sequence first inside, both directions."""
    hidden = 8
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("LSTM", "t w r b", "all last", hidden_size=hidden, direction="bidirectional"),
        node("Transpose", "last", "turned", perm=[1, 0, 2]),
        node("Flatten", "turned", "flat"),
        node("MatMul", "flat head", "y"),
    ]
    constants = {
        "w": RNG.standard_normal((2, 4 * hidden, 6)).astype(np.float32) * 0.5,
        "r": RNG.standard_normal((2, 4 * hidden, hidden)).astype(np.float32) * 0.5,
        "b": RNG.standard_normal((2, 8 * hidden)).astype(np.float32) * 0.3,
        "head": weights(2 * hidden, 4),
    }
    return Bench(folder, nodes, {"x": (FLOAT, ["n", 5, 6])}, {"y": (FLOAT, ["n", 4])}, constants)


MODELS = {"cnn": make_cnn, "mlp": make_mlp, "embedding": make_embedding, "lstm": make_lstm}


@pytest.fixture(scope="module")
def benches(tmp_path_factory: pytest.TempPathFactory, _toolchain: None) -> dict[str, Bench]:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in MODELS.items()}


@pytest.mark.parametrize("precision", TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_outputs_follow_onnx_by_value(benches: dict[str, Bench], name: str, precision: str) -> None:
    bench = benches[name]
    result = bench.build(precision)
    with bench.load(precision, result) as session:
        bench.prove_all(session, LOSSES[precision])
        bench.prove_batch(session, LOSSES[precision])
        bench.prove_all(session, LOSSES[precision])
        seen = session.describe_execution()
    assert result.recipe["binding"]["dynamic_batch"], result.notes
    operators = {kind for counts in seen["operators"].values() for kind in counts}
    assert {"fp32": "float32", "fp16": "float32*float16"}.get(precision, "") in {"", *operators}
    assert ("int8" in precision) == any("int8" in kind for kind in operators)


def test_a_layout_that_only_looks_right_would_be_seen(benches: dict[str, Bench]) -> None:
    bench = benches["cnn"]
    answer = bench.answer(next(bench.samples("evaluation").feeds()))["y"]
    assert _rms(answer - answer.transpose(0, 2, 3, 1)) > 0.5 * bench.scales["y"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_recurrent_step_starts_from_zero_each_time(benches: dict[str, Bench], precision: str) -> None:
    bench = benches["lstm"]
    with bench.load(precision, bench.build(precision)) as session:
        feeds = next(bench.samples("evaluation").feeds())
        first = session.run(feeds)["y"]
        call = session.bind(feeds)
        for _ in range(5):
            call()
        np.testing.assert_array_equal(session.run(feeds)["y"], first)


def test_initial_states_are_inputs_of_the_file(tmp_path: Path) -> None:
    """The state that the caller hands over counts, not the one that the last call left."""
    hidden = 6
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "r", "b", "", "h"], ["all", "last"], hidden_size=hidden),
        node("Transpose", "all", "y", perm=[2, 0, 1, 3]),
    ]
    constants = {
        "w": RNG.standard_normal((1, 3 * hidden, 4)).astype(np.float32),
        "r": RNG.standard_normal((1, 3 * hidden, hidden)).astype(np.float32),
        "b": RNG.standard_normal((1, 6 * hidden)).astype(np.float32),
    }
    inputs = {"x": (FLOAT, [1, 5, 4]), "h": (FLOAT, [1, 1, hidden])}
    bench = Bench(tmp_path, nodes, inputs, {"y": (FLOAT, [1, 5, 1, hidden])}, constants)
    with bench.load("fp32", bench.build("fp32")) as session:
        bench.prove_all(session, LOSSES["fp32"])
        with pytest.raises(ValueError, match="input x has shape"):
            session.run({"x": np.zeros((2, 5, 4), np.float32), "h": np.zeros((1, 1, hidden), np.float32)})


def make_old(folder: Path, opset: int) -> Bench:
    """What changed since: Gemm needed its third input, Squeeze and Split had attributes, Clip too."""
    nodes = [
        node("Conv", "x w1", "c"),
        node("BatchNormalization", "c g o m v", "n"),
        node("Clip", "n", "k", min=0.0, max=1.5),
        node("MaxPool", "k", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Split", "p", "s1 s2", axis=1, split=[3, 5]),
        node("ReduceMean", "s2", "a", axes=[3], keepdims=1),
        node("Squeeze", "a", "q", axes=[3]),
        node("MatMul", "q w2", "d"),
        node("Transpose", "d", "t", perm=[1, 0, 2]),
        node("LSTM", "t w r", "all last", hidden_size=4),
        node("Squeeze", "last", "y", axes=[0]),
    ]
    constants = {
        "w1": weights(8, 3, 1, 1),
        "g": np.linspace(0.5, 1.5, 8, dtype=np.float32),
        "o": np.linspace(-1, 1, 8, dtype=np.float32),
        "m": np.zeros(8, np.float32),
        "v": np.ones(8, np.float32),
        "w2": weights(7, 6),
        "w": weights(1, 16, 6),
        "r": weights(1, 16, 4),
    }
    inputs, outputs = {"x": (FLOAT, ["n", 3, 7, 7])}, {"y": (FLOAT, ["n", 4]), "s1": (FLOAT, ["n", 3, 7, 7])}
    return Bench(folder, nodes, inputs, outputs, constants, opset)


def test_an_old_opset(tmp_path: Path) -> None:
    bench = make_old(tmp_path, 9)
    for precision in ("fp32", "int8-dynamic"):
        result = bench.build(precision)
        assert result.recipe["binding"]["dynamic_batch"], result.notes
        with bench.load(precision, result) as session:
            bench.prove_all(session, LOSSES[precision])
            bench.prove_batch(session, LOSSES[precision])


def test_a_batch_that_cannot_be_resized_runs_sample_by_sample(tmp_path: Path) -> None:
    """A table with one copy a sample, folded, bakes the batch size in; a batch's outputs are those of its samples."""
    nodes = [
        node("Shape", "x", "n", start=0, end=1),
        node("Concat", "n rest", "size", axis=0),
        node("Expand", "table size", "tables"),
        node("MatMul", "x tables", "y"),
    ]
    constants = {"rest": np.array([4, 3]), "table": weights(4, 3)[None]}
    bench = Bench(tmp_path, nodes, {"x": (FLOAT, ["n", 2, 4])}, {"y": (FLOAT, ["n", 2, 3])}, constants)
    result = bench.build("fp32")
    assert result.recipe["binding"]["splits_batch"]
    assert any("one sample at a time" in note for note in result.notes)
    with bench.load("fp32", result) as session:
        bench.prove_batch(session, LOSSES["fp32"])


def test_a_fully_convolutional_network_takes_other_sizes(tmp_path: Path) -> None:
    """Height and width are open in the model, and nothing in the file holds the samples' sizes."""
    nodes = [
        node("Conv", "x w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", "c1", "r1"),
        node("Conv", "r1 w2", "y", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "r1", "p"),
        node("Flatten", "p", "z"),
    ]
    inputs, outputs = {"x": (FLOAT, ["n", 3, "h", "w"])}, {"y": (FLOAT, ["n", 5, "a", "b"]), "z": (FLOAT, ["n", 8])}
    bench = Bench(
        tmp_path, nodes, inputs, outputs, {"w1": weights(8, 3, 3, 3), "w2": weights(5, 8, 3, 3)}, sizes=(16, 24)
    )
    for precision in ("fp32", "int8"):
        result = bench.build(precision)
        assert result.signature == bench.signature
        assert any("other sizes" in note for note in result.notes)
        with bench.load(precision, result) as session:
            bench.prove_all(session, LOSSES[precision])
            bench.prove_batch(session, LOSSES[precision])
            for shape in ((1, 3, 48, 20), (2, 3, 33, 25), (1, 3, 16, 24)):
                bench.prove(session, LOSSES[precision], {"x": RNG.uniform(-1, 1, shape).astype(np.float32)})


def test_a_network_that_resizes_to_its_own_input_is_fixed_and_says_so(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w1", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Shape", "x", "s"),
        node("Gather", "s places", "hw"),
        node("Concat", "head hw", "s2", axis=0),
        helper.make_node("Resize", ["c", "", "", "s2"], ["y"], mode="linear"),
    ]
    constants = {"w1": weights(8, 3, 3, 3), "places": np.array([2, 3]), "head": np.array([1, 8])}
    inputs, outputs = {"x": (FLOAT, [1, 3, "h", "w"])}, {"y": (FLOAT, [1, 8, "h", "w"])}
    bench = Bench(tmp_path, nodes, inputs, outputs, constants, sizes=(16, 24))
    result = bench.build("fp32")
    assert result.signature is not None
    assert result.signature.inputs[0].shape == (1, 3, 16, 24)
    assert result.signature.outputs[0].shape == (1, 8, 16, 24)
    assert any(note.startswith("h fixed at 16, w fixed at 24") for note in result.notes)
    with bench.load("fp32", result) as session:
        bench.prove_all(session, LOSSES["fp32"])
        with pytest.raises(ValueError, match=r"the file takes \[1, 3, 16, 24\]"):
            session.run({"x": np.zeros((1, 3, 32, 24), np.float32)})


def test_a_table_that_is_the_output_layer_too_is_stored_once(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "table ids", "e"),
        node("MatMul", "e mixer", "m"),
        node("Add", "e m", "s"),
        node("Transpose", "table", "turned", perm=[1, 0]),
        node("MatMul", "s turned", "y"),
    ]
    table = RNG.standard_normal((1000, 64)).astype(np.float32)
    constants = {"table": table, "mixer": weights(64, 64)}
    bench = Bench(tmp_path, nodes, {"ids": (INT64, ["n", 5])}, {"y": (FLOAT, ["n", 5, 1000])}, constants)
    # Of two dynamic files as good, the one that is measured to be faster is taken: one has both as INT8, a scale each.
    for precision, share in (("fp32", 1.2), ("fp16", 0.7), ("int8-dynamic", 0.65), ("int8", 0.65)):
        result = bench.build(precision)
        with bench.load(precision, result) as session:
            bench.prove_all(session, LOSSES[precision])
            bench.prove_batch(session, LOSSES[precision])
        size = (tmp_path / "out" / precision / result.model_file).stat().st_size
        assert size < share * table.nbytes, precision


def test_an_operator_that_tflite_lacks_is_named_with_its_node(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], "cut", axis=1),
        node("SequenceAt", "parts one", "y"),
    ]
    bench = Bench(tmp_path, nodes, {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 1])}, {"one": np.array(1)})
    with pytest.raises(BuildFailedError, match=r"operator SplitToSequence .*node cut") as caught:
        bench.build("fp32")
    assert caught.value.hint
    assert not any((tmp_path / "out" / "fp32").iterdir())


def test_a_model_without_weights_has_nothing_to_quantize(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [node("Relu", "x", "y")], {"x": (FLOAT, ["n", 3])}, {"y": (FLOAT, ["n", 3])}, {})
    with pytest.raises(BuildFailedError, match="nothing in the model can be quantized to fp16"):
        bench.build("fp16")


def test_folders_may_be_named_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models.make_cnn(Path("cnn.onnx"))
    models.make_samples(Path("samples.npz"), x=(3, 12, 12))
    built = build_targets("cnn.onnx", samples="samples.npz", out="pi", targets=["tflite-fp32", "tflite-int8"])
    assert set(built.artifacts) == {"tflite-fp32", "tflite-int8"}, [absent.error.message for absent in built.absent]
