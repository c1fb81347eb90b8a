"""Sources that are quantized already: their own scales run as they are, and nothing is quantized a second time."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from bench import Bench
from onnx import TensorProto, helper
from refusing import refused

from modelwright.core.onnx.quantized import find_own_scales
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.artifact import Artifact
from modelwright.targets.contract import RunSettings
from modelwright.targets.table import get_target


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """With two layers between pairs of Q/DQ, as training for INT8 exports them."""
    made = Bench(tmp_path, x=(4,))
    models.quantize_by_pairs(made.model)
    return made


def load_many(bench: Bench) -> dict[str, Any]:
    """Returns as many samples as take a profiler some microseconds."""
    return {"x": np.tile(np.load(bench.samples)["x"], (200, 1))}


def run(artifact: Artifact, feeds: Mapping[str, Any]) -> tuple[np.ndarray, set[str]]:
    """Returns the answer of an artifact, and the precisions of the operators that did its products."""
    manifest = artifact.manifest
    target = get_target(manifest.target)
    settings = RunSettings(threads=1, profiled=True)
    with target.load(artifact.directory, manifest.model_file, manifest.recipe, manifest.signature, settings) as session:
        answer = session.run(feeds)["y"]
        profile = session.profile_operators(feeds)
    assert profile is not None
    products = ("Gemm", "MatMul", "FullyConnected")
    return answer, {each.precision for each in profile.operators if any(word in each.type for word in products)}


@pytest.mark.parametrize("target", ["ort-int8", pytest.param("openvino-int8", marks=pytest.mark.slow)])
def test_the_scales_of_the_source_run_in_integers(bench: Bench, target: str) -> None:
    artifact = bench.build(target).artifacts[target]
    recipe = artifact.manifest.recipe
    assert (recipe["method"], recipe["activations"]) == ("the model's own scales", 2)
    assert "search" not in recipe
    assert any("nothing was quantized" in note for note in artifact.manifest.notes)
    feeds = load_many(bench)
    answer, precisions = run(artifact, feeds)
    assert "int8" in precisions
    with ReferenceModel(bench.model) as model:
        expected = model.run(feeds)["y"]
    # Rounding to the model's own steps leaves the same integers, but for one that falls on the edge of a step.
    assert np.abs(answer - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("target", ["ort-fp32", pytest.param("openvino-fp32", marks=pytest.mark.slow)])
def test_what_is_called_fp32_computes_in_floats_what_the_graph_says(bench: Bench, target: str) -> None:
    artifact = bench.build(target).artifacts[target]
    assert any("computed in floats" in note for note in artifact.manifest.notes)
    feeds = load_many(bench)
    answer, precisions = run(artifact, feeds)
    assert precisions == {"fp32"}
    with ReferenceModel(bench.model) as model:
        np.testing.assert_allclose(answer, model.run(feeds)["y"], rtol=1e-5, atol=1e-5)
    for language in ("python", "cpp"):
        program = get_target(target).write_snippet(
            language, artifact.manifest.model_file, artifact.manifest.recipe, artifact.manifest.signature, RunSettings()
        )
        assert ("disable_quant_qdq" if target == "ort-fp32" else "LP_TRANSFORMS_MODE") in program


@pytest.mark.parametrize(
    "target",
    [
        "ort-int8-dynamic",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("ort-int8-weights", "openvino-int4-weights", "tflite-int8", "tflite-int8-dynamic")
        ),
    ],
)
def test_what_could_only_quantize_again_refuses_and_names_what_does_not(bench: Bench, target: str) -> None:
    hint = refused(lambda: bench.build(target), "would quantize a second time: the model is quantized already")
    assert "ort-" in hint or "openvino-int8" in hint
    bench.build("ort-int8")


@pytest.mark.slow
def test_scales_that_are_taken_while_running_are_those_of_dynamic_int8(bench: Bench) -> None:
    constants = {"i": np.full((4, 4), 3, np.int8)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "i", "z"], ["product"]),
        helper.make_node("Cast", ["product"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "s"], ["y"]),
    ]
    bench.save(nodes, constants, width=4)
    hint = refused(lambda: bench.build("ort-int8"), "would quantize a second time")
    assert hint.startswith("ort-int8-dynamic runs it with its own scales")
    artifact = bench.build("ort-int8-dynamic").artifacts["ort-int8-dynamic"]
    assert artifact.manifest.recipe["integer_operators"] == ["DynamicQuantizeLinear", "MatMulInteger"]


@pytest.mark.slow
@pytest.mark.parametrize("maker", ["onnxruntime", "nncf"])
def test_what_vendors_quantizers_write_is_recognized_whole(tmp_path: Path, maker: str) -> None:
    bench = Bench(tmp_path, x=(3, 12, 12))
    models.make_cnn(bench.model)
    source = bench.folder / "quantized.onnx"
    feeds = [{"x": row[None]} for row in np.load(bench.samples)["x"][:8]]
    _QUANTIZERS[maker](bench.model, source, feeds)
    own = find_own_scales(onnx.load(source))
    assert own is not None
    assert own.activations >= 3, "one of each layer's input at least"
    for target in ("ort-int8", "openvino-int8"):
        artifact = bench.build(target, source=source).artifacts[target]
        assert artifact.manifest.recipe["activations"] == own.activations
        assert artifact.manifest.source.num_parameters == 16 * 27 + 16 + 16 * 9 + 80 + 5


def _quantize_by_onnxruntime(source: Path, path: Path, feeds: list[dict[str, Any]]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Any:
            return next(self._left, None)

    quantize_static(
        str(source),
        str(path),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _quantize_by_nncf(source: Path, path: Path, feeds: list[dict[str, Any]]) -> None:
    import nncf

    with contextlib.redirect_stdout(None):
        made = nncf.quantize(onnx.load(str(source)), nncf.Dataset(feeds), subset_size=len(feeds))
    onnx.save(made, str(path))


_QUANTIZERS = {"onnxruntime": _quantize_by_onnxruntime, "nncf": _quantize_by_nncf}
