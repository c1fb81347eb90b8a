"""Models as users have them: what runtimes compute wrongly unless asked for otherwise, and what a proof must see."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.fidelity import compare_outputs, explain_broken, find_scores
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.machine import Machine
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.exporters import export
from modelwright.targets.contract import BuildRequest, BuildResult, RunSettings, Session
from modelwright.targets.openvino.target import OpenvinoFp32, OpenvinoInt8
from modelwright.targets.ort.target import OrtFp32, OrtInt8
from modelwright.targets.tflite.converter.prepare import finish_outputs, prepare_graph

RNG = np.random.default_rng(0)
MACHINE = Machine(
    name="vnni", architecture="x86_64", instruction_sets=frozenset({"avx512f", "avx512_vnni", "avx2"}), cores=1
)


def weight(*shape: int) -> Any:
    return (RNG.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)


def save_model(path: Path, nodes: list[Any], constants: dict[str, Any], shape: list[Any], result: list[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info("y", 1, result)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_tabular(path: Path) -> Path:
    """Three layers with a batch norm between: what scikit-learn's and Keras' tabular models look like."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"], "first", transB=1),
        helper.make_node("Relu", ["h1"], ["r1"], "relu"),
        helper.make_node("BatchNormalization", ["r1", "g", "o", "m", "v"], ["n1"], "norm"),
        helper.make_node("Gemm", ["n1", "w2", "b2"], ["h2"], "second", transB=1),
        helper.make_node("Relu", ["h2"], ["r2"], "relu2"),
        helper.make_node("Gemm", ["r2", "w3", "b3"], ["y"], "third", transB=1),
    ]
    constants = {"w1": weight(256, 64), "w2": weight(128, 256), "w3": weight(10, 128)}
    constants |= {"b1": weight(256), "b2": weight(128), "b3": weight(10)}
    constants |= {"g": np.linspace(0.5, 1.5, 256, dtype=np.float32), "o": weight(256)}
    constants |= {"m": np.full(256, 0.3, np.float32), "v": np.full(256, 0.5, np.float32)}
    return save_model(path, nodes, constants, ["batch", 64], ["batch", 10])


def save_lstm(path: Path) -> Path:
    """Two LSTMs of a fixed batch of one, the sequence first."""
    nodes = []
    constants: dict[str, Any] = {"first": np.array([1]), "last": np.array([0])}
    source = "x"
    for number, width in ((1, 8), (2, 64)):
        constants |= {f"w{number}": weight(1, 256, width), f"r{number}": weight(1, 256, 64)}
        names = [source, f"w{number}", f"r{number}"]
        nodes += [
            helper.make_node("LSTM", names, [f"all{number}"], f"lstm{number}", hidden_size=64),
            helper.make_node("Squeeze", [f"all{number}", "first"], [f"h{number}"], f"squeeze{number}"),
        ]
        source = f"h{number}"
    nodes += [
        helper.make_node("ReduceMean", ["h2"], ["mean"], "mean", axes=[0], keepdims=0),
        helper.make_node("Gemm", ["mean", "head"], ["y"], "head_gemm"),
    ]
    return save_model(path, nodes, {**constants, "head": weight(64, 10)}, [8, 1, 8], [1, 10])


def save_regression(path: Path) -> Path:
    """One value a sample, far from zero: what a cosine cannot see."""
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["c"], "second", transB=1),
        helper.make_node("Squeeze", ["c", "last"], ["y"], "squeeze"),
    ]
    constants = {"w1": weight(32, 16), "b1": weight(32), "w2": weight(1, 32) * 5, "b2": np.full(1, 20, np.float32)}
    return save_model(path, nodes, {**constants, "last": np.array([1])}, ["batch", 16], ["batch"])


class Bench:
    """A model with samples, built for one target and judged as the tool judges."""

    def __init__(self, folder: Path, model: Path, samples: Any) -> None:
        np.savez(folder / "samples.npz", x=samples.astype(np.float32))
        exported = export(model, folder / "exported.onnx")
        self.folder, self.model, self.signature = folder, exported.model_path, exported.signature

    def samples(self, part: Any) -> SampleSet:
        return open_samples(SampleRef(path=self.folder / "samples.npz", part=part), self.signature)

    def reference(self, part: Any) -> list[dict[str, Any]]:
        with self.load(OrtFp32(), "exported.onnx", self.folder) as session:
            return [session.run(feeds) for feeds in self.samples(part).feeds()]

    def build(self, target: Any) -> BuildResult:
        for name in ("out", "scratch"):
            (self.folder / name).mkdir()
        request = BuildRequest(
            model_path=self.model,
            signature=self.signature,
            directory=self.folder / "out",
            machine=MACHINE,
            calibration=self.samples("calibration"),
            tuning=self.samples("tuning"),
            reference=self.reference("tuning"),
            scratch=self.folder / "scratch",
            shared=self.folder,
            progress=lambda _line: None,
        )
        result = target.build(request)
        assert isinstance(result, BuildResult)
        return result

    @contextlib.contextmanager
    def load(self, target: Any, file: str, folder: Path, recipe: Any = None) -> Iterator[Session]:
        with target.load(folder, file, recipe or {}, self.signature, RunSettings()) as session:
            yield session

    def judge(self, target: Any, result: BuildResult) -> tuple[Any, dict[str, Any]]:
        with self.load(target, result.model_file, self.folder / "out", result.recipe) as session:
            outputs = [session.run(feeds) for feeds in self.samples("evaluation").feeds()]
            return compare_outputs(self.reference("evaluation"), outputs), session.describe_execution()


def test_openvino_int8_follows_a_tabular_model(tmp_path: Path) -> None:
    """OpenVINO's fused kernel of several quantized layers gave noise here on one thread."""
    pytest.importorskip("nncf")
    bench = Bench(tmp_path, save_tabular(tmp_path / "m.onnx"), RNG.random((80, 64)))
    result = bench.build(OpenvinoInt8())
    fidelity, executed = bench.judge(OpenvinoInt8(), result)
    assert explain_broken(fidelity) is None
    assert fidelity.cosine is not None
    assert fidelity.cosine >= 0.99
    assert executed["precision"] == "int8"
    assert executed["compute_nodes"]["i8"] == 3


def test_openvino_cuts_off_what_auto_pad_of_a_deconvolution_says(tmp_path: Path) -> None:
    """It made 27 of 13 here, where ONNX has 26."""
    nodes = [helper.make_node("ConvTranspose", ["x", "w"], ["y"], "up", strides=[2, 2], auto_pad="SAME_LOWER")]
    model = save_model(tmp_path / "m.onnx", nodes, {"w": weight(3, 4, 3, 3)}, ["n", 3, "h", 13], ["n", 4, "h2", 26])
    bench = Bench(tmp_path, model, RNG.random((40, 3, 13, 13)))
    fidelity, _ = bench.judge(OpenvinoFp32(), bench.build(OpenvinoFp32()))
    assert explain_broken(fidelity) is None


def test_openvino_int8_judges_an_lstm_as_it_is_read_from_its_file(tmp_path: Path) -> None:
    """In memory a quantized LSTM ran right; from its file its recurrent kernel was given the wrong scales."""
    pytest.importorskip("nncf")
    bench = Bench(tmp_path, save_lstm(tmp_path / "m.onnx"), np.abs(RNG.standard_normal((80, 8, 1, 8))))
    result = bench.build(OpenvinoInt8())
    fidelity, _ = bench.judge(OpenvinoInt8(), result)
    assert explain_broken(fidelity) is None
    assert fidelity.cosine is not None
    assert fidelity.cosine >= 0.98


def test_a_regression_is_judged_by_its_values(tmp_path: Path) -> None:
    bench = Bench(tmp_path, save_regression(tmp_path / "m.onnx"), RNG.standard_normal((80, 16)))
    result = bench.build(OrtInt8())
    fidelity, _ = bench.judge(OrtInt8(), result)
    assert fidelity.cosine is not None
    assert 0.99 < fidelity.cosine < 1.0
    reference = bench.reference("evaluation")
    still = [{"y": value["y"] * 0 + 20.5} for value in reference]
    assert compare_outputs(reference, still).cosine == pytest.approx(0.0, abs=0.5)
    assert "the same on all" in (explain_broken(compare_outputs(reference, still)) or "")


@pytest.mark.parametrize(("dtype", "words"), [(np.float16, "float16"), (np.int8, "quantized already")])
def test_weights_that_are_no_float32_are_named(tmp_path: Path, dtype: Any, words: str) -> None:
    weights = (weight(8, 8) * 50).astype(dtype)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(np.float16 if dtype == np.float16 else np.float32))
    nodes = [helper.make_node("Cast", ["x"], ["c"], "cast", to=kind)]
    constants = {"w": weights, "scale": np.float32(0.1)}
    if dtype == np.int8:
        nodes.append(helper.make_node("DequantizeLinear", ["w", "scale"], ["d"], "dequantize"))
    nodes += [
        helper.make_node("MatMul", ["c", "d" if dtype == np.int8 else "w"], ["m"], "product"),
        helper.make_node("Cast", ["m"], ["y"], "back", to=1),
    ]
    if dtype == np.float16:
        del constants["scale"]
    model = save_model(tmp_path / "m.onnx", nodes, constants, ["batch", 8], ["batch", 8])
    bench = Bench(tmp_path, model, RNG.standard_normal((40, 8)))
    with pytest.raises(BuildFailedError) as caught:
        bench.build(OrtInt8())
    assert words in caught.value.message
    assert "float" in (caught.value.hint or "")


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_wrong_scale_is_no_match(factor: float) -> None:
    reference = [{"y": RNG.standard_normal((1, 8))} for _ in range(8)]
    scaled = [{"y": value["y"] * factor} for value in reference]
    assert "noise" in (explain_broken(compare_outputs(reference, scaled, find_roles(reference))) or "")


def test_classes_and_flags_agree_by_their_values() -> None:
    reference = [{"class": np.array([number % 3])} for number in range(10)]
    found = [{"class": np.array([number % 3 if number else 2])} for number in range(10)]
    assert compare_outputs(reference, found).agreement == pytest.approx(0.9)
    flags = [{"flags": np.array([[True, False]])}]
    assert compare_outputs(flags, [{"flags": np.array([[True, True]])}]).agreement == pytest.approx(0.5)


def test_the_number_of_detections_may_differ_where_it_depends_on_the_values() -> None:
    kept = [np.arange(12).reshape(4, 3)[:rows] for rows in (4, 3, 4, 2)]
    reference = [{"boxes": value.astype(np.float32), "selected": value} for value in kept]
    found = [{name: value[:3] for name, value in outputs.items()} for outputs in reference]
    fidelity = compare_outputs(reference, found)
    assert [output.shape_fault for output in fidelity.outputs] == [None, None]
    assert fidelity.outputs[0].cosine_mean is not None
    assert 0.7 < fidelity.outputs[0].cosine_mean < 1.0
    assert fidelity.outputs[1].equal_share == pytest.approx(33 / 39)
    fixed = compare_outputs(reference[::2], found[::2])  # always 4 in FP32, 3 here: another shape
    assert fixed.outputs[0].shape_fault == "expected [4, 3], got [3, 3]"


def test_a_copy_of_a_value_that_the_model_reads_on_is_that_value_in_tflite() -> None:
    """onnx2tf gave the copy's name to what it copies, and the other reader found nothing: "Input tensor lacks data"."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "project"),
        helper.make_node("Identity", ["h"], ["y"], "copy"),
        helper.make_node("ReduceMean", ["h"], ["level"], "mean", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "copied",
        [helper.make_tensor_value_info("x", 1, [1, 8])],
        [helper.make_tensor_value_info("y", 1, [1, 8]), helper.make_tensor_value_info("level", 1, [])],
        [numpy_helper.from_array(weight(8, 8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    finished, inputs, outputs = finish_outputs(prepare_graph(model, {"x": (1, 8)}))
    makers = {name: node for node in finished.graph.node for name in node.output}
    assert makers[outputs["y"]].op_type != "Identity"
    x = RNG.standard_normal((1, 8)).astype(np.float32)
    expected = ReferenceEvaluator(model).run(["y", "level"], {"x": x})
    found = ReferenceEvaluator(finished).run([outputs["y"], outputs["level"]], {inputs["x"]: x})
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    np.testing.assert_allclose(np.reshape(found[1], ()), expected[1], rtol=1e-5, atol=1e-6)


def test_outputs_that_the_model_reads_itself_reach_tflite() -> None:
    """An embedding that a head reads, and one value under two names: onnx2tf would rename what others still read."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["embedding"], "project"),
        helper.make_node("Relu", ["embedding"], ["y"], "relu"),
        helper.make_node("Identity", ["y"], ["again"], "copy"),
    ]
    names = ("embedding", "y", "again")
    graph = helper.make_graph(
        nodes,
        "outputs",
        [helper.make_tensor_value_info("x", 1, [1, 8])],
        [helper.make_tensor_value_info(name, 1, [1, 8]) for name in names],
        [numpy_helper.from_array(weight(8, 8), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    finished, inputs, outputs = finish_outputs(prepare_graph(model, {"x": (1, 8)}))
    assert outputs["y"] == outputs["again"] != outputs["embedding"]
    made = {name: node for node in finished.graph.node for name in node.output}
    assert made[outputs["embedding"]].op_type != "Identity"
    x = RNG.standard_normal((1, 8)).astype(np.float32)
    expected = dict(zip(names, ReferenceEvaluator(model).run(list(names), {"x": x}), strict=True))
    found = ReferenceEvaluator(finished).run(list(outputs.values()), {inputs["x"]: x})
    for name, value in zip(outputs, found, strict=True):
        np.testing.assert_allclose(value.reshape(1, 8), expected[name], rtol=1e-5)


def test_scores_go_before_embeddings_and_boxes() -> None:
    outputs = {"boxes": np.zeros((1, 9, 4)), "embedding": np.zeros((1, 64)), "class_logits": np.zeros((1, 5))}
    assert find_scores(outputs) == "class_logits"
    assert find_scores({"boxes": np.zeros((1, 9, 4)), "scores": np.zeros((1, 9, 3))}) == "scores"


@pytest.mark.slow
def test_a_module_serves_as_a_source_and_a_scripted_one_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    lines = ["import torch", "net = torch.nn.Linear(4, 2)", "def scripted():", "    return torch.jit.script(net)"]
    (tmp_path / "nets.py").write_text("\n".join(lines))
    np.savez(tmp_path / "s.npz", input=RNG.standard_normal((8, 4)).astype(np.float32))
    samples = SampleRef(path=tmp_path / "s.npz")
    exported = export(f"{tmp_path / 'nets.py'}:net", tmp_path / "net.onnx", samples=samples)
    assert [spec.name for spec in exported.signature.inputs] == ["input"]
    with pytest.raises(BadInputError, match="TorchScript"):
        export(f"{tmp_path / 'nets.py'}:scripted", tmp_path / "scripted.onnx", samples=samples)
