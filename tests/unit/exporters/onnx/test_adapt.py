"""What is changed in the copy of a foreign model, and that its numbers stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.errors import BadInputError
from modelwright.exporters.onnx import versions
from modelwright.exporters.onnx.adapt import adapt_model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4)).astype(np.float32)


def run(path: Path, **more: Any) -> Any:
    return ReferenceEvaluator(onnx.load(path)).run(None, {"x": X, **more})[0]


def save_overridable(path: Path, *, ir_version: int = 8) -> Path:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])]
    inputs = [("x", 1, ["batch", 4]), ("w", 1, [4, 3]), ("b", 1, ["batch", 3])]
    constants = {"w": RNG.normal(size=(4, 3)).astype(np.float32), "b": np.ones((1, 3), np.float32)}
    return models.save(path, nodes, inputs, [("y", 1, ["batch", 3])], constants, ir_version=ir_version)


def test_weights_that_are_inputs_too_become_constants(tmp_path: Path) -> None:
    path = save_overridable(tmp_path / "m.onnx")
    before = run(path)
    (note,) = adapt_model(path, {"x"})
    assert "2 weights listed as inputs too (w, b)" in note
    assert [value.name for value in onnx.load(path).graph.input] == ["x"]
    np.testing.assert_array_equal(run(path), before)


def test_one_that_the_samples_feed_stays_an_input_and_loses_its_default(tmp_path: Path) -> None:
    path = save_overridable(tmp_path / "m.onnx")
    before = run(path, b=np.full((5, 3), 7, np.float32))
    notes = adapt_model(path, {"x", "b"})
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["x", "b"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]
    assert len(notes) == 2
    assert "1 input with a default value (b)" in notes[1]
    np.testing.assert_array_equal(run(path, b=np.full((5, 3), 7, np.float32)), before)


def test_a_file_with_nothing_to_change_keeps_its_bytes(tmp_path: Path) -> None:
    for path in (models.make_cnn(tmp_path / "m.onnx"), save_overridable(tmp_path / "old.onnx", ir_version=3)):
        before = path.read_bytes()
        assert adapt_model(path, {"x"}) == []
        assert path.read_bytes() == before


def save_sparse(path: Path, *, size: int = 3) -> Path:
    """y = x @ W + c, both sparse: one as an initializer, one as a Constant node."""

    def sparse(name: str, at: list[int], values: list[float], dims: list[int]) -> Any:
        tensor = numpy_helper.from_array(np.array(values, np.float32), name)
        return helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.array(at, np.int64), f"{name}_at"), dims)

    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["m"]),
        helper.make_node("Constant", [], ["c"], sparse_value=sparse("", [1], [5.0], [3])),
        helper.make_node("Add", ["m", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["batch", 4])],
        [helper.make_tensor_value_info("y", 1, ["batch", 3])],
        sparse_initializer=[sparse("W", [0, 5], [2.0, -3.0], [4, size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_sparse_weights_become_dense(tmp_path: Path) -> None:
    path = save_sparse(tmp_path / "m.onnx")
    (note,) = adapt_model(path, {"x"})
    assert "2 sparse weights dense in our copy (W, c)" in note
    dense = np.zeros((4, 3), np.float32)
    dense.reshape(-1)[[0, 5]] = 2, -3
    np.testing.assert_allclose(run(path), X @ dense + np.array([0, 5, 0], np.float32), rtol=1e-6)


def test_sparse_weights_that_would_fill_the_memory_stay_sparse(tmp_path: Path) -> None:
    path = save_sparse(tmp_path / "m.onnx", size=10**12)
    (note,) = adapt_model(path, {"x"})
    assert "would take up to 64000.0 GB" in note
    assert onnx.load(path).graph.sparse_initializer


@pytest.fixture
def reads_ir_13_and_opset_26(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "_is_read", lambda ir_version, opset: ir_version <= 13 and opset <= 26)


def save_newest(path: Path, operator: str = "Relu", **attributes: Any) -> Path:
    """What `onnx.save` writes of a model of one operator when nobody says anything about versions."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 28)], ir_version=14), path)
    return path


@pytest.mark.usefixtures("reads_ir_13_and_opset_26")
@pytest.mark.skipif(onnx.IR_VERSION < 14, reason="this onnx writes no versions that ONNX Runtime lacks")
@pytest.mark.parametrize(("operator", "attributes"), [("Relu", {}), ("Cast", {"to": 1}), ("Celu", {"alpha": 0.5})])
def test_versions_that_the_runtime_lacks_are_lowered(tmp_path: Path, operator: str, attributes: dict[str, Any]) -> None:
    path = save_newest(tmp_path / "m.onnx", operator, **attributes)
    before = run(path)
    notes = adapt_model(path, {"x"})
    model = onnx.load(path)
    assert (model.ir_version, model.opset_import[0].version) == (13, 26)
    assert [note.split(" in our copy")[0] for note in notes] == [
        "IR version 14 lowered to 13",
        "opset 28 lowered to 26",
    ]
    np.testing.assert_array_equal(run(path), before)


@pytest.mark.usefixtures("reads_ir_13_and_opset_26")
@pytest.mark.skipif(onnx.IR_VERSION < 14, reason="this onnx writes no versions that ONNX Runtime lacks")
def test_an_operator_that_the_older_opset_lacks_is_named(tmp_path: Path) -> None:
    path = save_newest(tmp_path / "m.onnx", "SwiGLU")
    with pytest.raises(BadInputError, match=r"does not know SwiGLU; it reads up to 26") as caught:
        adapt_model(path, {"x"})
    assert "opset 26 or earlier" in (caught.value.hint or "")
    save_newest(path, "Sigmoid")
    model = onnx.load(path)
    model.opset_import[0].version = 26
    onnx.save(model, path)
    assert not any("opset" in note for note in adapt_model(path, {"x"}))
