"""Matrices in blocks of few bits, as OpenVINO's CPU plugin fuses them into products and lookups."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.targets.language.grids import Grids
from modelwright.targets.language.portable import LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks, pack_nibbles
from modelwright.targets.readiness import require_import

_NIBBLE, _BYTE = 4, 8


def pack_matrices(openvino: Any, model: Any, grids: Grids) -> None:
    """Replaces the matrices of a float model by integers, scales and zero points; a table that the head shares, once.

    Args:
        openvino: The vendor's package.
        model: The stateful float model; it is changed.
        grids: Where the integers come from; every block is whole.

    Raises:
        BuildFailedError: A matrix is not where it is expected; names the layer.
    """
    packer = MatrixPacker(openvino)
    for layer, node in find_products(model, grids.model).items():
        matrix = packer.pack(grids.round_layer(grids.model.linear_layers[layer]), layer)
        constant = node.input_value(1)
        # All who read it: a table is looked up in, too.
        for reader in list(constant.get_target_inputs()):
            reader.replace_source_output(matrix)
    model.validate_nodes_and_infer_types()


def find_products(model: Any, portable: PortableModel) -> dict[str, Any]:
    """Returns name of a linear layer -> OpenVINO's product with its matrix, a constant [columns, rows].

    Raises:
        BuildFailedError: There is none.
    """
    products = [node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul"]
    makers = {name: node for node in products for name in node.get_output_tensor(0).names}
    return {name: _require_product(makers.get(layer.gives), layer) for name, layer in portable.linear_layers.items()}


def _require_product(node: Any, layer: LinearLayer) -> Any:
    if node is not None and node.get_attributes()["transpose_b"]:
        matrix = node.input_value(1)
        if matrix.get_node().get_type_name() == "Constant" and list(matrix.get_shape()) == [layer.columns, layer.rows]:
            return node
    raise BuildFailedError(
        f"OpenVINO turned the product with {layer.weight} into something else, so that its matrix cannot be packed",
        hint="openvino-fp32 and openvino-bf16 take the model as it is",
    )


class MatrixPacker:
    """Writes the expression of a matrix in blocks.

    Args:
        openvino: The vendor's package.
    """

    def __init__(self, openvino: Any) -> None:
        self._openvino, self._op = openvino, require_import("openvino.opset15", "openvino")

    def pack(self, blocks: Blocks, name: str) -> Any:
        """Returns the output that is the float matrix [columns, rows].

        Args:
            blocks: The matrix; one block a column makes scales of columns.
            name: Of the layer.
        """
        op, (columns, count, size) = self._op, blocks.values.shape
        shape = [columns, count, size] if count > 1 else [columns, size]
        ends = [*shape[:-1], 1]
        middle = 2 ** (blocks.bits - 1)
        zeros = np.full((columns, count), middle, np.uint8) if blocks.zero_points is None else blocks.zero_points
        integers = op.convert(self._store(blocks.values, blocks.bits, shape, f"{name}.values"), "f16")
        zero = op.convert(self._store(zeros, blocks.bits, ends, f"{name}.zero_points"), "f16")
        scale = op.constant(blocks.scales.reshape(ends).astype(np.float16), name=f"{name}.scales")
        whole = op.multiply(op.subtract(integers, zero), scale)
        if count > 1:
            whole = op.reshape(whole, op.constant(np.array([columns, count * size], np.int64)), special_zero=False)
        return op.convert(whole, "f32").output(0)

    def _store(self, values: Any, bits: int, shape: list[int], name: str) -> Any:
        flat = np.ascontiguousarray(values.reshape(-1))
        if bits == _BYTE:
            return self._op.constant(flat.reshape(shape), name=name)
        assert bits == _NIBBLE, f"no type of {bits} bits"
        # The tensor lends numpy's memory, and the constant the tensor's unless it is told not to.
        tensor = self._openvino.Tensor(pack_nibbles(flat), shape, self._openvino.Type.u4)
        return self._op.constant(tensor, name=name, shared_memory=False)
