"""TensorRT's graphs on small real models: by AutoCast, ONNX Runtime and the parser and builder of TensorRT for RTX."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from ort_bench import RNG, Bench, make_attention, make_cnn, make_lstm, make_model, random_weights
from rtx_builder import ask_rtx, require_rtx

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.shapes import ShapeRange
from modelwright.targets.graphs.dtypes import find_float_types
from modelwright.targets.graphs.emulation import round_half_results
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.legality import check_graph
from modelwright.targets.graphs.run import open_session
from modelwright.targets.quantization.autocast import DATA_LIMIT
from modelwright.targets.quantization.half import PrecisionGraph, make_fp16
from modelwright.targets.tensorrt.recipes import make_fp32, make_int8

pytest.importorskip("modelopt.onnx.autocast", reason="nvidia-modelopt is not installed")


def make_growing(*, ends: str = "MatMul") -> Any:
    """A chain whose values grow a million times and become small again; [n, 32] -> [n, 32]."""
    nodes = [
        helper.make_node(ends, ["x", "w1"], ["a"], "first"),
        helper.make_node("MatMul", ["a", "w2"], ["b"], "grow"),
        helper.make_node("MatMul", ["b", "w2"], ["c"], "grow_again"),
        helper.make_node("MatMul", ["c", "w3"], ["d"], "shrink"),
        helper.make_node("MatMul", ["d", "w3"], ["e"], "shrink_again"),
        helper.make_node(ends, ["e", "w1"], ["y"], "last"),
    ]
    turn = np.linalg.qr(RNG.standard_normal((32, 32)))[0].astype(np.float32)
    constants = {"w1": turn if ends == "MatMul" else np.float32(1), "w2": turn * 1000, "w3": turn / 1000}
    return make_model(nodes, constants, ("n", 32), ("n", 32))


class PrecisionBench(Bench):
    """A model on disk with samples, and what is asked of the functions under test."""

    def __init__(self, folder: Path, model: Any, *, external: bool = False) -> None:
        super().__init__(folder, model, 60, external=external)
        scratch = folder / "scratch"
        scratch.mkdir()
        (value,) = self.signature.inputs
        single, four = (tuple(batch if isinstance(size, str) else size for size in value.shape) for batch in (1, 4))
        shapes = {"x": ShapeRange(minimum=single, optimum=four, maximum=four)}
        self.asked = replace(self.request(folder, scratch), shapes=shapes)

    def cosine(self, graph: PrecisionGraph) -> float:
        """Mean cosine with FP32 on samples that no recipe saw."""
        before = open_session(load_model(self.path), self.asked.scratch)
        after = open_session(load_model(graph.emulation), self.asked.scratch)
        pairs = [
            (before.run(None, feeds)[0].ravel(), after.run(None, feeds)[0].ravel())
            for feeds in self.samples("evaluation").feeds()
        ]
        return float(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs]))


def make_folder(parent: Path, name: str) -> Path:
    (parent / name).mkdir()
    return parent / name


def load(graph: PrecisionGraph) -> Any:
    return load_model(graph.path)


def test_fp32_is_the_verified_model_itself(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_cnn(), external=True)
    graph = make_fp32(bench.asked)
    assert graph.path == bench.path, "its weights stay where they are found"
    assert graph.recipe["precision"] == "fp32"


@pytest.mark.parametrize(
    ("make", "compute"),
    [
        (make_cnn, {"Conv": {"float16": 3}, "Gemm": {"float16": 1}}),
        (make_attention, {"MatMul": {"float16": 6}}),
        (make_lstm, {"LSTM": {"float16": 1}, "Gemm": {"float16": 1}}),
    ],
)
def test_fp16_computes_in_float16_between_float32_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, compute: Any
) -> None:
    require_rtx()
    bench = PrecisionBench(tmp_path, make())
    graph = make_fp16(bench.asked)
    assert capsys.readouterr().out == "", "AutoCast's log belongs to no standard output"
    assert graph.recipe["compute_types"] == compute
    assert graph.recipe["measured_samples"] > 0
    model = load(graph)
    ends = (*model.graph.input, *model.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    assert bench.cosine(graph) > 0.9999
    answer = ask_rtx(graph.path)
    assert answer["built"], answer["errors"]
    read = [types for name, types in answer["types"].items() if "Cast" not in name]
    assert any("Half" in types for types in read)


@pytest.mark.parametrize(("opset", "external"), [(17, False), (17, True), (11, False), (7, False)])
def test_a_residual_cnn_runs_in_int8_and_float16(tmp_path: Path, opset: int, external: bool) -> None:
    require_rtx()
    bench = PrecisionBench(tmp_path, make_cnn(opset), external=external)
    graph = make_int8(bench.asked)
    assert graph.recipe["int8_layer_count"] == 3
    assert graph.recipe["int8_residuals"] == 1
    assert [entry["reason"] for entry in graph.recipe["float_layers"]] == [
        "a matrix of 10x16 is too small for INT8 to pay"
    ]
    assert graph.recipe["rest"]["compute_types"] == {"Conv": {"int8": 3}, "Gemm": {"float16": 1}}
    assert check_graph(load(graph)) == []
    assert bench.cosine(graph) > 0.998
    answer = ask_rtx(graph.path)
    assert answer["built"], answer["errors"]
    convolutions = [types for types in answer["types"].values() if types[:2] == ["Int8", "Int8"]]
    assert len(convolutions) == 3, answer["types"]


def test_a_transformer_is_smoothed_and_its_sums_stay_in_float16(tmp_path: Path) -> None:
    require_rtx()
    bench = PrecisionBench(tmp_path, make_attention())
    graph = make_int8(bench.asked)
    assert graph.recipe["graph"] == "transformer"
    assert graph.recipe["search"]["chosen"]["alpha"] is not None, "one channel is sixty times larger than the others"
    assert graph.recipe["int8_residuals"] == 0
    dense = find_float_types(load(graph)).compute
    assert sum(kinds.get("int8", 0) for kinds in dense.values()) == 4
    assert dense["MatMul"]["float16"] == 2, "the products of activations"
    assert bench.cosine(graph) > 0.998
    assert ask_rtx(graph.path)["built"]


def make_lopsided_chain() -> Any:
    """Eight layers; one channel before the sixth is a thousand times larger than the others; [n, 32] -> [n, 32]."""
    weights = [np.linalg.qr(RNG.standard_normal((32, 32)))[0].astype(np.float32) for _ in range(8)]
    weights[4][:, 0] *= 1000
    weights[5][0] /= 1000
    names = ["x", *(f"t{number}" for number in range(7)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[number], f"w{number}"], [names[number + 1]], f"layer{number}")
        for number in range(8)
    ]
    return make_model(nodes, {f"w{number}": weight for number, weight in enumerate(weights)}, ("n", 32), ("n", 32))


def test_a_layer_that_int8_ruins_goes_back_to_float(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_lopsided_chain())
    graph = make_int8(bench.asked)
    found = graph.recipe["search"]
    (kept,) = found["float_layers"]
    assert (kept["layer"], kept["reason"], kept["cost_us"]) == ("layer5", "sensitivity analysis", None)
    assert graph.recipe["float_layers"] == [{"layer": "layer5", "reason": "sensitivity analysis"}]
    assert find_float_types(load(graph)).count("int8") == 7
    assert bench.cosine(graph) > 0.998
    whole = [candidate for candidate in found["candidates"] if not candidate["float_layers"]]
    assert all(candidate["level"] in ("broken", "poor") for candidate in whole), "with it in INT8"


def test_large_activations_stay_in_float32_where_samples_show_them(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_growing())
    graph = make_fp16(bench.asked)
    assert graph.recipe["compute_types"] == {"MatMul": {"float16": 2, "float32": 4}}
    told = {entry["node"]: entry["reason"] for entry in graph.recipe["fp32_nodes"]}
    assert list(told) == ["grow", "grow_again", "shrink", "shrink_again"]
    assert all(re.fullmatch(r"values up to \S+ on the samples", reason) for reason in told.values())
    assert 1e6 < float(told["grow_again"].split()[3]) < 1e7
    assert graph.recipe["data_limit"] == DATA_LIMIT
    assert bench.cosine(graph) > 0.9999


def test_without_samples_fp16_says_what_it_could_not_see(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_growing())
    graph = make_fp16(replace(bench.asked, calibration=None, tuning=None))
    assert graph.recipe["data_limit"] is None
    assert graph.recipe["checked"] is None
    assert "no samples" in graph.notes[0]
    with pytest.raises(BuildFailedError, match=r"does not follow the FP32 model .*NaN or infinity") as caught:
        make_fp16(replace(bench.asked, calibration=None))
    assert caught.value.hint == "take the FP32 target of this runtime"
    assert bench.cosine(make_fp32(bench.asked)) > 0.9999


def test_a_network_that_is_too_large_for_float16_throughout_is_refused(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_growing(ends="Mul"))
    with pytest.raises(BuildFailedError, match=r"a request for FP16 that yields FP32: .*MatMul in float32") as caught:
        make_fp16(bench.asked)
    assert "take the FP32 target, or normalize the inputs" in (caught.value.hint or "")
    assert bench.cosine(make_fp32(bench.asked)) > 0.9999
    small = PrecisionBench(make_folder(tmp_path, "small"), make_growing())
    assert make_fp16(small.asked).recipe["compute_types"]["MatMul"]["float16"]


def test_onnx_runtime_sees_an_overflow_only_in_the_emulation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "down", to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "large"], ["big"], "grow"),
        helper.make_node("Mul", ["big", "large"], ["huge"], "grow_again"),
        helper.make_node("Mul", ["huge", "small"], ["back"], "shrink"),
        helper.make_node("Cast", ["back"], ["y"], "up", to=TensorProto.FLOAT),
    ]
    constants = {"large": np.float16(1000), "small": np.float16(0.001)}
    model = make_model(nodes, constants, ("n", 4), ("n", 4))
    feeds = {"x": np.ones((1, 4), np.float32)}
    assert np.isfinite(open_session(model, tmp_path).run(None, feeds)[0]).all(), "float32 between the casts"
    assert np.isinf(open_session(round_half_results(model), tmp_path).run(None, feeds)[0]).all()


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    bench = PrecisionBench(tmp_path, make_lstm())
    with pytest.raises(BuildFailedError, match=r"none of the model's 1 layers .* gains from INT8: .* head") as caught:
        make_int8(bench.asked)
    assert "FP16 target" in (caught.value.hint or "")
    assert bench.cosine(make_fp16(bench.asked)) > 0.999
    with pytest.raises(BuildFailedError, match="needs calibration samples") as caught:
        make_int8(replace(bench.asked, calibration=None))
    assert caught.value.hint == "give --samples FILE.npz"
    given = PrecisionBench(make_folder(tmp_path, "given"), make_cnn())
    assert make_int8(given.asked).recipe["int8_layer_count"]
    plain = make_model([helper.make_node("Tanh", ["x"], ["y"])], {}, ("n", 4), ("n", 4))
    without = PrecisionBench(make_folder(tmp_path, "plain"), plain)
    with pytest.raises(BuildFailedError, match="nothing to quantize") as caught:
        make_int8(without.asked)
    assert "FP16 target" in (caught.value.hint or "")
    assert without.cosine(make_fp16(without.asked)) > 0.999


@pytest.mark.filterwarnings("ignore")
def test_the_float_model_of_a_quantized_one_is_taken(tmp_path: Path) -> None:
    """What ONNX Runtime's quantizer makes by default is no graph for TensorRT, in whatever precision."""
    source, path = tmp_path / "source.onnx", tmp_path / "quantized.onnx"
    onnx.save(make_biased_cnn(), str(source))
    quantized = PrecisionBench(make_folder(tmp_path, "quantized"), quantize(source, path))
    with pytest.raises(BuildFailedError, match="TensorRT does not take this graph") as caught:
        make_fp32(quantized.asked)
    assert "give the float model that it was made from" in (caught.value.hint or "")
    with pytest.raises(BuildFailedError, match="TensorRT does not take this graph") as caught:
        make_int8(quantized.asked)
    assert "give the float model that it was made from" in (caught.value.hint or "")
    with pytest.raises(BuildFailedError, match="the model is quantized already") as caught:
        make_fp16(quantized.asked)
    assert caught.value.hint == "give the float model that it was made from"
    given = PrecisionBench(make_folder(tmp_path, "float"), onnx.load(str(source)))
    make_fp32(given.asked)
    assert make_int8(given.asked).recipe["int8_layer_count"]


def quantize(source: Path, path: Path, **options: Any) -> Any:
    """Quantizes with ONNX Runtime's own quantizer: its defaults, but for `options`."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static

    if options.pop("dynamic", False):
        quantize_dynamic(str(source), str(path))
        return onnx.load(str(path))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter([{"x": RNG.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(4)])

        def get_next(self) -> Any:
            return next(self._left, None)

    quantize_static(str(source), str(path), Reader(), **options)
    return onnx.load(str(path))


def symmetric(**changed: Any) -> dict[str, Any]:
    extra = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    return {"per_channel": True, "extra_options": extra | changed}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("options", "problems"),
    [
        ({}, {"zero point is not 0", "quantized bias"}),
        ({"quant_format": "QOperator"}, {"no operators on integers"}),
        ({"dynamic": True}, {"no operators on integers"}),
        ({"activation_type": "QInt16", **symmetric()}, {"int16"}),
        (symmetric(QuantizeBias=True), {"quantized bias"}),
        (symmetric(ActivationSymmetric=False), {"zero point is not 0"}),
        ({"activation_type": "QUInt8", **symmetric()}, {"uint8"}),
    ],
)
def test_what_onnx_runtimes_quantizer_makes_is_refused_as_by_the_real_parser(
    tmp_path: Path, options: dict[str, Any], problems: set[str]
) -> None:
    require_rtx()
    from onnxruntime.quantization import QuantFormat, QuantType

    for name, kind in (("quant_format", QuantFormat), ("activation_type", QuantType)):
        if name in options:
            options = {**options, name: kind[options[name]]}
    source, path = tmp_path / "source.onnx", tmp_path / "quantized.onnx"
    onnx.save(make_biased_cnn(), str(source))
    faults = check_graph(quantize(source, path, **options))
    told = " | ".join(fault.problem for fault in faults)
    assert all(problem in told for problem in problems), told
    answer = ask_rtx(path)
    if any(fault.effect == "rejected" for fault in faults):
        assert not answer["parsed"], "the parser takes what is called illegal"
        named = {node for node, _, _ in answer["errors"] if node}
        assert named <= {fault.node for fault in faults}, (named, faults)


@pytest.mark.filterwarnings("ignore")
def test_a_symmetric_graph_of_onnx_runtimes_quantizer_is_legal_for_both(tmp_path: Path) -> None:
    require_rtx()
    source, path = tmp_path / "source.onnx", tmp_path / "quantized.onnx"
    onnx.save(make_biased_cnn(), str(source))
    assert check_graph(quantize(source, path, **symmetric())) == []
    answer = ask_rtx(path)
    assert answer["built"], answer["errors"]
    given = PrecisionBench(make_folder(tmp_path, "sub"), onnx.load(str(path)))
    graph = make_int8(given.asked)
    assert graph.path == given.asked.model_path, "its own scales run as they are"
    assert graph.recipe["method"] == "the model's own scales"


def make_biased_cnn() -> Any:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b1"], ["c2"], "conv2"),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "w3"], ["y"], "head"),
    ]
    constants = {
        "w1": random_weights(16, 3, 3, 3),
        "b1": random_weights(16, 1)[:, 0],
        "w2": random_weights(16, 16, 1, 1),
        "w3": random_weights(16, 16),
    }
    return make_model(nodes, constants, ("n", 3, 12, 12), ("n", 16))
