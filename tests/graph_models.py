"""Small ONNX models for tests of what rewrites graphs."""

from typing import Any

import numpy as np
from onnx import helper, numpy_helper


def make_model(
    nodes: list[Any],
    constants: dict[str, Any],
    *,
    shape: tuple[int | str, ...] = ("n", 4),
    output: str = "y",
    opset: int = 13,
    ir_version: int = 8,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, shape)],
        [helper.make_tensor_value_info(output, 1, None)],
        [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model


def random_array(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
