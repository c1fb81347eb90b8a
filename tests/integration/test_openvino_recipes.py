"""OpenVINO for real, on small models: what is executed, what is quantized, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from openvino_bench import Workplace, make_outlier_cnn

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.openvino.clamps import drop_clamps
from modelwright.targets.openvino.quantize import copy_names, find_recurrent
from modelwright.targets.openvino.session import FIXED_SHAPES
from modelwright.targets.openvino.target import OpenvinoBf16, OpenvinoFp32, OpenvinoInt8

pytest.importorskip("openvino")


def make_attention(path: Path) -> Path:
    """One attention layer over float tokens: x [batch, 6, 16] -> y [batch, 16]."""
    rng = np.random.default_rng(4)
    constants = {name: (rng.standard_normal((16, 16)) / 4).astype(np.float32) for name in ("wq", "wk", "wv", "wo")}
    nodes = [helper.make_node("MatMul", ["x", f"w{n}"], [n], name=f"project_{n}") for n in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["k"], ["kt"], name="turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["scores"], name="score"),
        helper.make_node("Softmax", ["scores"], ["shares"], name="share", axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"], name="mix"),
        helper.make_node("MatMul", ["mixed", "wo"], ["out"], name="project_o"),
        helper.make_node("ReduceMean", ["out"], ["y"], name="pool", axes=[1], keepdims=0),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", 6, 16])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["batch", 16])], constants)


def make_lstm(path: Path) -> Path:
    """An LSTM: x [5, batch, 4] -> y [1, batch, 8], its last state."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.standard_normal((1, 32, 4)).astype(np.float32) * 0.5,
        "r": rng.standard_normal((1, 32, 8)).astype(np.float32) * 0.5,
    }
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["", "y"], name="lstm", hidden_size=8)]
    inputs = [("x", TensorProto.FLOAT, [5, "batch", 4])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, [1, "batch", 8])], constants)


def make_mixed_types(path: Path) -> Path:
    """Float and int64 in; a plain and a renamed output, a sum, an int64 and a bool out; [batch, 4]."""
    nodes = [
        helper.make_node("Relu", ["x"], ["y"], name="relu"),
        helper.make_node("Identity", ["y"], ["same"], name="rename"),
        helper.make_node("Cast", ["ids"], ["as_float"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Add", ["y", "as_float"], ["sum:0"], name="sum"),
        helper.make_node("Add", ["ids", "ids"], ["twice"], name="double"),
        helper.make_node("Greater", ["x", "as_float"], ["larger"], name="compare"),
    ]
    shape = ["batch", 4]
    inputs = [("x", TensorProto.FLOAT, shape), ("ids", TensorProto.INT64, shape)]
    outputs = [(name, TensorProto.FLOAT, shape) for name in ("y", "same", "sum:0")]
    outputs += [("twice", TensorProto.INT64, shape), ("larger", TensorProto.BOOL, shape)]
    return models.save(path, nodes, inputs, outputs, {})


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_fp32_runs_in_fp32_at_every_opset(tmp_path: Path, opset: int) -> None:
    work = Workplace(tmp_path, models.make_cnn(tmp_path / "cnn.onnx", opset=opset))
    result = work.build(OpenvinoFp32())
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    with work.load(OpenvinoFp32(), result) as session:
        np.testing.assert_allclose(session.run(feeds)["y"], work.answer(feeds)["y"], rtol=1e-4, atol=1e-5)
        executed = session.describe_execution()
    assert executed["precision"] == "f32"
    assert executed["compute_nodes"] == {"f32": 3}
    assert executed["threads"] == 1
    weights = sum(node.size for node in (np.zeros((16, 3, 3, 3)), np.zeros((16, 1, 3, 3)), np.zeros((16, 5)))) * 4
    assert (tmp_path / "openvino.bin").stat().st_size >= weights


def test_bf16_is_executed_and_its_file_is_half(tmp_path: Path) -> None:
    if not has_bf16():
        pytest.skip("this processor has no BF16")
    work = Workplace(tmp_path, make_outlier_cnn(tmp_path / "cnn.onnx"))
    work.build(OpenvinoFp32())
    fp32_bytes = (tmp_path / "openvino.bin").stat().st_size
    result = work.build(OpenvinoBf16())
    assert (tmp_path / "openvino.bin").stat().st_size < 0.55 * fp32_bytes
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 1, 16, 16)).astype(np.float32)}
    with work.load(OpenvinoBf16(), result) as session:
        got, want = session.run(feeds)["y"], work.answer(feeds)["y"]
        executed = session.describe_execution()
    assert executed["precision"] == "bf16"
    assert executed["compute_nodes"] == {"bf16": 7}
    assert 0 < np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_int8_reaches_every_layer_of_a_tame_network(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    work = Workplace(tmp_path, models.make_cnn(tmp_path / "cnn.onnx"))
    models.make_samples(work.samples, count=96, labelled=False, x=(3, 12, 12))
    result = work.build(OpenvinoInt8(), samples=True)
    with work.load(OpenvinoInt8(), result) as session:
        outputs = [session.run(feeds) for feeds in work.feeds()]
        executed = session.describe_execution()
    fidelity = compare_outputs([work.answer(feeds) for feeds in work.feeds()], outputs)
    assert fidelity.cosine is not None
    assert 0.999 <= fidelity.cosine < 1.0
    assert executed["precision"] == "int8"
    # The depthwise convolution too: its weights lie behind a Reshape that the conversion has to fold.
    assert executed["compute_nodes"] == {"i8": 3}
    assert result.recipe["search"]["float_layers"] == []
    assert result.recipe["overflow_fix"] == "disable"
    assert result.recipe["calibration_count"] == 36


@pytest.mark.slow
def test_the_layer_that_int8_ruins_stays_in_float(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    work = Workplace(tmp_path, make_outlier_cnn(tmp_path / "cnn.onnx"))
    rng = np.random.default_rng(1)
    images = rng.standard_normal((120, 1, 16, 16)) + rng.standard_normal((120, 1, 1, 1))
    np.savez(work.samples, x=images.astype(np.float32))
    result = work.build(OpenvinoInt8(), samples=True, role="classes")
    found = result.recipe["search"]
    # Pool and head cost next to nothing in float, and win a little.
    layers = {entry["layer"] for entry in found["float_layers"]}
    assert {"conv4"} <= layers <= {"conv4", "pool", "y"}
    assert "conv4" in result.notes[0]
    assert found["candidates"][0]["level"] in ("broken", "poor")
    with work.load(OpenvinoInt8(), result) as session:
        outputs = [session.run(feeds) for feeds in work.feeds()]
        in_float = len(layers - {"pool"})
        assert session.describe_execution()["compute_nodes"] == {"i8": 7 - in_float, "f32": in_float}
    fidelity = compare_outputs([work.answer(feeds) for feeds in work.feeds()], outputs)
    assert fidelity.cosine is not None
    assert fidelity.cosine > 0.995


def test_a_clamp_goes_where_all_that_reads_it_rounds_within_its_limits() -> None:
    import openvino

    ops = openvino.opset13
    value = ops.parameter([1, 64], np.float32, name="x")

    def quantize(source, low: float, high: float):
        return ops.fake_quantize(source, *(np.float32(limit) for limit in (low, high, low, high)), 256)

    relu, relu6, wide, kept = ops.relu(value), ops.clamp(value, 0, 6), ops.clamp(value, 0, 6), ops.clamp(value, 0, 6)
    answers = [
        quantize(relu, 0, 9),
        quantize(relu6, 0, 6), quantize(relu6, 0, 2.5),
        quantize(wide, 0, 6.1),
        quantize(ops.relu(ops.negative(value)), -0.1, 1),
        quantize(kept, 0, 5), ops.exp(kept),
    ]  # fmt: skip
    model = openvino.Model(answers, [value])
    core = openvino.Core()
    feeds = {"x": np.linspace(-9, 9, 64, dtype=np.float32)[None]}
    before = list(core.compile_model(model.clone(), "CPU")(feeds).values())
    assert drop_clamps(model) == 2
    left = [node.get_type_name() for node in model.get_ops() if node.get_type_name() in ("Relu", "Clamp")]
    assert sorted(left) == ["Clamp", "Clamp", "Relu"]
    after = list(core.compile_model(model, "CPU")(feeds).values())
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second)


def test_attention_is_smoothed(tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="NNCF is not installed")
    work = Workplace(tmp_path, make_attention(tmp_path / "attention.onnx"))
    models.make_samples(work.samples, count=64, labelled=False, x=(6, 16))
    result = work.build(OpenvinoInt8(), samples=True)
    assert result.recipe["model_kind"] == "transformer"
    assert result.recipe["search"]["chosen"]["smooth_quant_alpha"] is not None
    assert any("SmoothQuant" in line for line in work.lines)


def test_recurrent_state_does_not_outlive_a_call(tmp_path: Path) -> None:
    work = Workplace(tmp_path, make_lstm(tmp_path / "lstm.onnx"))
    result = work.build(OpenvinoFp32())
    rng = np.random.default_rng(0)
    first, second = ({"x": rng.standard_normal((5, 1, 4)).astype(np.float32)} for _ in range(2))
    with work.load(OpenvinoFp32(), result) as session:
        before = session.run(first)["y"]
        other = session.run(second)["y"]
        np.testing.assert_array_equal(session.run(first)["y"], before)
    np.testing.assert_allclose(before, work.answer(first)["y"], rtol=1e-4, atol=1e-5)
    assert np.abs(other - before).max() > 0.01


def test_names_and_types_are_those_of_the_signature(tmp_path: Path) -> None:
    work = Workplace(tmp_path, make_mixed_types(tmp_path / "mixed.onnx"))
    result = work.build(OpenvinoFp32())
    feeds = {"ids": np.array([[7, -2, 3, 2**29]]), "x": np.array([[-1.0, 2.5, 5.0, 0.0]], np.float32)}
    for array in feeds.values():
        array.setflags(write=False)  # as those of mapped files are
    with work.load(OpenvinoFp32(), result) as session:
        outputs = session.run(feeds)
    want = work.answer(feeds)
    assert list(outputs) == list(want) == ["y", "same", "sum:0", "twice", "larger"]
    for name, value in want.items():
        assert outputs[name].dtype == value.dtype
        np.testing.assert_array_equal(outputs[name], value)


def test_integers_that_openvino_would_cut_off_are_refused(tmp_path: Path) -> None:
    work = Workplace(tmp_path, make_mixed_types(tmp_path / "mixed.onnx"))
    result = work.build(OpenvinoFp32())
    feeds = {"x": np.zeros((1, 4), np.float32), "ids": np.array([[1, 2, 3, 2**40]])}
    with (
        work.load(OpenvinoFp32(), result) as session,
        pytest.raises(BadInputError, match="ids holds integers beyond 32 bits"),
    ):
        session.run(feeds)


def test_every_batch_size_is_right_and_only_some_are_compiled(tmp_path: Path) -> None:
    work = Workplace(tmp_path, models.make_two_by_two(tmp_path / "two.onnx"))
    result = work.build(OpenvinoFp32())
    rng = np.random.default_rng(0)
    with work.load(OpenvinoFp32(), result) as session:
        bound = []
        for size in (3, 1, 5, 2, 3):
            feeds = {name: rng.standard_normal((size, 8)).astype(np.float32) for name in "ab"}
            want = work.answer(feeds)
            outputs = session.run(feeds)
            for name in "sd":
                np.testing.assert_allclose(outputs[name], want[name], rtol=1e-4, atol=1e-5)
            bound.append(session.bind(feeds))
        for call in bound:
            call()
        shapes = session.describe_execution()["shapes"]
        assert "last run: fixed" in shapes
        assert "[[3, 8], [3, 8]]" in shapes
        assert shapes.count("[[") == FIXED_SHAPES
        session.run(feeds={name: np.ones((9, 8), np.float32) for name in "ab"})
        assert "last run: dynamic" in session.describe_execution()["shapes"]


def test_an_operator_without_conversion_is_named(tmp_path: Path) -> None:
    work = object.__new__(Workplace)  # ONNX Runtime cannot open this model either
    work.folder, work.model = tmp_path, models.make_foreign_operator(tmp_path / "foreign.onnx")
    shape = ("batch", 4)
    specs = [(TensorSpec(name=name, dtype="float32", shape=shape),) for name in "xy"]
    work.signature = Signature(inputs=specs[0], outputs=specs[1])
    with pytest.raises(
        BuildFailedError, match=r"foreign\.onnx: it has no conversion for com\.example\.Sorcery"
    ) as info:
        work.build(OpenvinoFp32())
    assert info.value.hint
    assert "No conversion rule" in (info.value.detail or "")


def test_a_damaged_artifact_is_refused(tmp_path: Path) -> None:
    work = Workplace(tmp_path, models.make_cnn(tmp_path / "cnn.onnx"))
    result = work.build(OpenvinoFp32())
    (tmp_path / result.model_file).write_text("<net>")
    with pytest.raises(BadInputError, match=r"cannot load .*openvino\.xml"), work.load(OpenvinoFp32(), result):
        pass


def test_nothing_is_printed_and_nothing_is_reported(tmp_path: Path) -> None:
    """In a process of its own, as only there the vendor's packages are imported afresh."""
    pytest.importorskip("nncf", reason="NNCF is not installed")
    work = Workplace(tmp_path, models.make_cnn(tmp_path / "cnn.onnx"))
    models.make_samples(work.samples, count=32, labelled=False, x=(3, 12, 12))
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from openvino_bench import Workplace\n"
        "from modelwright.targets.openvino.target import OpenvinoInt8\n"
        "folder = Path(sys.argv[1])\n"
        "Workplace(folder, folder / 'cnn.onnx').build(OpenvinoInt8(), samples=True)\n"
        "assert sys.modules['openvino_telemetry'] is None\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parents[1])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def make_spectrum(path: Path) -> Path:
    """|STFT| of a signal, weighed: OpenVINO converts it where the signal's shape is known, batch included."""
    rng = np.random.default_rng(3)
    constants = {
        "hop": np.array(16),
        "window": np.hanning(32).astype(np.float32),
        "length": np.array(32),
        "last": np.array([-1]),
        "head": rng.standard_normal((17, 4)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["u"], name="unsqueeze"),
        helper.make_node("STFT", ["u", "hop", "window", "length"], ["s"], name="spectrum", onesided=1),
        helper.make_node("Mul", ["s", "s"], ["sq"], name="square"),
        helper.make_node("ReduceSum", ["sq", "last"], ["power"], name="power", keepdims=0),
        helper.make_node("MatMul", ["power", "head"], ["y"], name="head"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 128])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 7, 4])
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "spectrum", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_what_converts_with_a_fixed_batch_only_is_built_so_and_says_it(tmp_path: Path) -> None:
    place = Workplace(tmp_path, make_spectrum(tmp_path / "m.onnx"))
    np.savez(place.samples, x=np.random.default_rng(2).standard_normal((8, 128)).astype(np.float32))
    result = place.build(OpenvinoFp32())
    assert result.signature is not None
    assert place.signature.describe_fixed(result.signature) == "batch fixed at 1"
    (note,) = result.notes
    assert "batch is fixed at 1: OpenVINO cannot convert it otherwise (operator STFT (node spectrum): Shape of" in note
    with place.load(OpenvinoFp32(), result) as session:
        for feeds in place.feeds("all"):
            np.testing.assert_allclose(session.run(feeds)["y"], place.answer(feeds)["y"], rtol=1e-3, atol=1e-3)


def test_float64_runs_in_float32(tmp_path: Path) -> None:
    """OpenVINO has no float64 kernels, and failed on what NNCF made of such a model."""
    pytest.importorskip("nncf")
    rng = np.random.default_rng(3)
    constants = {"w1": rng.normal(0, 0.4, (16, 32)), "w2": rng.normal(0, 0.4, (32, 3))}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["m"], name="first"),
        helper.make_node("Tanh", ["m"], ["t"], name="tanh"),
        helper.make_node("MatMul", ["t", "w2"], ["y"], name="second"),
    ]
    inputs, outputs = [("x", TensorProto.DOUBLE, ["batch", 16])], [("y", TensorProto.DOUBLE, ["batch", 3])]
    place = Workplace(tmp_path, models.save(tmp_path / "m.onnx", nodes, inputs, outputs, constants))
    np.savez(place.samples, x=rng.standard_normal((40, 16)))
    for target, precision in ((OpenvinoFp32(), "f32"), (OpenvinoInt8(), "int8")):
        result = place.build(target, samples=True)
        assert result.signature is not None
        assert [spec.dtype for spec in (*result.signature.inputs, *result.signature.outputs)] == ["float32"] * 2
        assert any("float64 is float32 here" in note for note in result.notes)
        with place.load(target, result) as session:
            answers = [session.run(feeds) for feeds in place.feeds()]
            assert session.describe_execution()["precision"] == precision
        assert answers[0]["y"].dtype == np.float64
        fidelity = compare_outputs([place.answer(feeds) for feeds in place.feeds()], answers)
        assert fidelity.cosine is not None
        assert fidelity.cosine > 0.98


def test_two_conversions_of_a_graph_call_their_operators_alike(tmp_path):
    import openvino

    path = make_lstm(tmp_path / "lstm.onnx")
    first, second, other = (
        openvino.convert_model(each) for each in (path, path, make_attention(tmp_path / "attention.onnx"))
    )
    names = [node.get_friendly_name() for node in first.get_ordered_ops()]
    assert [node.get_friendly_name() for node in second.get_ordered_ops()] != names
    assert find_recurrent(first) != find_recurrent(second)
    assert copy_names(first, second)
    assert [node.get_friendly_name() for node in second.get_ordered_ops()] == names
    before = [node.get_friendly_name() for node in other.get_ordered_ops()]
    assert not copy_names(first, other)
    assert [node.get_friendly_name() for node in other.get_ordered_ops()] == before
