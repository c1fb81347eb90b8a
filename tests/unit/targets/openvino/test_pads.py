"""The pads that ONNX's `auto_pad` of a ConvTranspose stands for, by ONNX's formula worked out by hand."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from modelwright.core.onnx.facts import read_attribute
from modelwright.targets.openvino.pads import has_open_pads, write_pads


def make_model(kernel: int, **attributes: object) -> onnx.ModelProto:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1, 1, kernel, kernel], [1.0] * kernel**2)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)
    image = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, "h", "w"]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", image[:1], image[1:], [weight]))


@pytest.mark.parametrize(
    ("kernel", "attributes", "pads"),
    [
        (3, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, [1, 1, 0, 0]),
        (3, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, [0, 0, 1, 1]),
        (4, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, [1, 1, 1, 1]),
        (3, {"auto_pad": "SAME_UPPER", "dilations": [2, 2]}, [2, 2, 2, 2]),
        (3, {"strides": [2, 1], "auto_pad": "SAME_LOWER", "output_padding": [1, 0]}, [1, 1, 1, 1]),
        (2, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, [0, 0, 0, 0]),
    ],
)
def test_same_is_written_as_numbers(kernel: int, attributes: dict[str, object], pads: list[int]) -> None:
    model = make_model(kernel, **attributes)
    assert has_open_pads(model)
    write_pads(model)
    (node,) = model.graph.node
    assert list(read_attribute(node, "pads", None)) == pads
    assert read_attribute(node, "auto_pad", None) is None
    assert not has_open_pads(model)


@pytest.mark.parametrize("attributes", [{}, {"auto_pad": "VALID"}, {"pads": [1, 1, 1, 1]}])
def test_what_is_told_stays(attributes: dict[str, object]) -> None:
    model = make_model(3, **attributes)
    before = model.SerializeToString()
    assert not has_open_pads(model)
    write_pads(model)
    assert model.SerializeToString() == before
