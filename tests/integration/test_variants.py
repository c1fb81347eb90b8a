"""Two real models in one comparison: the second is held against the first one's answers, and keeps its own figures."""

from __future__ import annotations

import json
from pathlib import Path

import models
import numpy as np
import onnx
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.artifact import open_artifact
from modelwright.harness import compare

ort = pytest.importorskip("onnxruntime", reason="the baseline")
MACS = 16 * 12 * 12 * (3 * 9) + 16 * 12 * 12 * 9 + 16 * 5
"""Of `models.make_cnn`: a convolution 3x3 of 3 to 16 channels, a depthwise one, and the head."""


def answer(path: Path, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": images})[0].argmax(axis=1)


def make_narrow(path: Path, teacher: Path) -> Path:
    """Keeps 12 of the 16 channels, so that some answers differ."""
    model = onnx.load(teacher)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.shape[0] == 16:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array[:12].copy(), tensor.name))
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        if attribute.name == "group":
            attribute.i = 12
    onnx.save(model, path)
    return path


@pytest.mark.slow
def test_a_variant_is_held_against_the_first_model(tmp_path: Path) -> None:
    teacher = models.make_cnn(tmp_path / "teacher.onnx")
    narrow = make_narrow(tmp_path / "narrow.onnx", teacher)
    samples = models.make_samples(tmp_path / "samples.npz", x=(3, 12, 12), labelled=False)
    judge = models.make_samples(tmp_path / "judge.npz", x=(3, 12, 12), labelled=False, count=100)
    with np.load(judge) as arrays:
        images = arrays["x"] + np.float32(0.01)
    np.savez(judge, x=images)
    found = compare(
        [teacher, narrow],
        samples=samples, evaluation=judge, out=tmp_path / "out", targets=["ort-fp32"], effort="quick",
    )  # fmt: skip
    rows = {row.target: row for row in found.measured}
    assert list(rows) == ["teacher/ort-fp32", "narrow/ort-fp32"]
    assert found.baseline == "teacher/ort-fp32"
    agreement = float((answer(teacher, images) == answer(narrow, images)).mean())
    assert 0.3 < agreement < 1, "the two differ on some samples"
    assert rows["teacher/ort-fp32"].agreement == 1
    assert rows["narrow/ort-fp32"].agreement == pytest.approx(agreement)
    assert [row.macs for row in rows.values()] == [MACS, MACS * 12 / 16]
    assert [row.num_parameters for row in rows.values()] == [
        sum(onnx.numpy_helper.to_array(tensor).size for tensor in onnx.load(path).graph.initializer)
        for path in (teacher, narrow)
    ]
    assert [variant.name for variant in found.variants] == ["teacher", "narrow"]
    assert any("against FP32 of teacher" in text for text in found.warnings)
    own = open_artifact(tmp_path / "out" / "variants" / "narrow" / "artifacts" / "ort-fp32")
    assert own.manifest.proof is not None
    assert own.manifest.proof.fidelity.cosine == pytest.approx(1, abs=1e-6), "there it is held against its own model"
    assert rows["narrow/ort-fp32"].cosine != pytest.approx(1, abs=1e-3)

    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [variant["source"]["path"] for variant in written["variants"]] == ["../teacher.onnx", "../narrow.onnx"]
    assert str(tmp_path) not in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(BadInputError, match="holds a comparison of"):
        compare(teacher, samples=samples, out=tmp_path / "out", targets=["ort-fp32"], effort="quick")


@pytest.mark.slow
def test_models_with_other_inputs_are_refused_before_anything_is_built(tmp_path: Path) -> None:
    teacher, two = models.make_cnn(tmp_path / "teacher.onnx"), models.make_two_by_two(tmp_path / "two.onnx")
    fewer = onnx.load(teacher)
    for tensor in fewer.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.shape[-1] == 5:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array[..., :4].copy(), tensor.name))
    fewer.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    onnx.save(fewer, tmp_path / "four.onnx")
    samples = models.make_samples(tmp_path / "samples.npz", x=(3, 12, 12), labelled=False)
    asked = {"samples": samples, "targets": ["ort-fp32"], "effort": "quick"}
    with pytest.raises(BadInputError, match=r"cannot be compared with teacher, whose inputs are others") as caught:
        compare([teacher, two], out=tmp_path / "out", **asked)
    assert caught.value.message.startswith("two: ")
    assert "same names" in (caught.value.hint or ""), "other names in the samples would no longer fit the first one"
    with pytest.raises(BadInputError, match=r"whose outputs are others: y is .*5\] there and .*4") as caught:
        compare([teacher, tmp_path / "four.onnx"], out=tmp_path / "other", **asked)
    assert caught.value.message.startswith("four: ")
    assert not [*tmp_path.glob("*/artifacts")]


@pytest.mark.slow
def test_a_variant_that_fails_is_a_row_and_samples_are_made_once(tmp_path: Path) -> None:
    teacher = models.make_cnn(tmp_path / "teacher.onnx")
    narrow = make_narrow(tmp_path / "narrow.onnx", teacher)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(teacher.read_bytes()[:200])
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        f"    open({str(tmp_path / 'calls')!r}, 'a').write('x')\n"
        "    yield from ({'x': row} for row in np.random.default_rng(1).random((64, 3, 12, 12), 'f4'))\n"
    )
    found = compare(
        [teacher, broken, narrow],
        samples=f"{tmp_path / 'data.py'}:make", out=tmp_path / "out", targets=["ort-fp32"], effort="quick",
    )  # fmt: skip
    rows = {row.target: row for row in found.measurements}
    assert [row.status for row in rows.values()] == ["measured", "measured", "failed"]
    missing = rows["broken/ort-fp32"]
    assert (missing.variant, missing.exit_code, missing.num_parameters) == ("broken", 3, None)
    assert (missing.reason or "").startswith("broken: ")
    assert [variant.name for variant in found.variants] == ["teacher", "narrow"]
    assert (tmp_path / "calls").read_text() == "x"
    with pytest.raises(BadInputError) as caught:
        compare([teacher, broken], samples=f"{tmp_path / 'data.py'}:make", out=tmp_path / "two", targets=["ort-fp32"])
    assert caught.value.message.startswith("broken: ")
    assert not [*(tmp_path / "two").glob("**/artifacts")], "refused before anything is built"
