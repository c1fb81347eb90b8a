"""TFLite in four precisions on small real models, by value against ONNX Runtime, sample after sample."""

from __future__ import annotations

from pathlib import Path

import models
import numpy as np
import pytest
from onnx import helper
from tflite_bench import (
    FLOAT,
    INT64,
    LOSSES,
    RNG,
    TARGETS,
    Bench,
    node,
    rms,
    toolchain,  # noqa: F401 - runs before every test
    weights,
)

from modelwright.core.errors import BuildFailedError
from modelwright.harness.building import build_targets

pytestmark = pytest.mark.slow


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
def benches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bench]:
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
    assert rms(answer - answer.transpose(0, 2, 3, 1)) > 0.5 * bench.scales["y"]


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
    for precision, share in (("fp32", 1.2), ("fp16", 0.7), ("int8-dynamic", 0.4), ("int8", 0.4)):
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
