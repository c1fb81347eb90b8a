"""Float64 models in float32: the same numbers, to float32's precision, and nothing double left where it must not be."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from modelwright.core.onnx.doubles import has_double_weights, narrow_doubles, narrow_inside
from modelwright.core.onnx.walk import iterate_tensors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))
DOUBLE, FLOAT = TensorProto.DOUBLE, TensorProto.FLOAT


def make_model(*, typed_output: bool = True) -> Any:
    """y = (x @ w) where x > 0 else the masks' lowest number; through a branch, a Cast and a ConstantOfShape."""

    def branch(name: str, value: float) -> Any:
        node = helper.make_node("Mul", ["m", f"{name}_factor"], [name])
        factor = numpy_helper.from_array(np.array(value), f"{name}_factor")
        return helper.make_graph(
            [node], name, [], [helper.make_tensor_value_info(name, DOUBLE, ["batch", 3])], [factor]
        )

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["yes"], ["b"], then_branch=branch("t", 2.0), else_branch=branch("e", 3.0)),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=DOUBLE),
        helper.make_node("ReduceSum", ["sizes"], ["size"]),
        helper.make_node("Add", ["b", "size"], ["s"]),
        helper.make_node("Greater", ["s", "zero"], ["above"]),
        helper.make_node("Where", ["above", "s", "lowest"], ["y"]),
        helper.make_node("Identity", ["y"], ["again"]),
    ]
    constants = {"w": RNG.normal(size=(4, 3)), "zero": np.array(8.5), "lowest": np.array([np.finfo(np.float64).min])}
    outputs = [helper.make_tensor_value_info(n, DOUBLE if typed_output else 0, ["batch", 3]) for n in ("y", "again")]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", DOUBLE, ["batch", 4])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def expect(model: Any) -> Any:
    (wanted, _) = ReferenceEvaluator(model).run(None, {"x": X})
    return np.where(wanted < -1e38, -np.finfo(np.float32).max, wanted)


def test_only_weights_make_a_double_model() -> None:
    model = make_model()
    assert has_double_weights(model)
    del model.graph.initializer[0]
    assert not has_double_weights(model), "a scalar or a mask alone is no layer"


@pytest.mark.parametrize("typed", [True, False])
def test_inside_only_keeps_inputs_and_outputs_as_they_are(typed: bool) -> None:
    model = make_model(typed_output=typed)
    wanted = expect(model)
    narrow_inside(model, ["y", "again"])
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [DOUBLE] * 3
    assert not any(tensor.data_type == DOUBLE for tensor in iterate_tensors(model))
    (found, again) = ReferenceEvaluator(model).run(None, {"x": X})
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_array_equal(found, again)


def test_all_of_it_takes_and_gives_float32() -> None:
    model = make_model()
    wanted = expect(model)
    narrow_doubles(model)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [FLOAT] * 3
    (found, _) = ReferenceEvaluator(model).run(None, {"x": X.astype(np.float32)})
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
