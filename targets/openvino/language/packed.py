"""Matrices in blocks of few bits, as OpenVINO's CPU plugin fuses them into products and lookups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.targets.language.grids import Grids
from modelwright.targets.language.portable import LinearLayer, PortableModel
from modelwright.targets.quantization.blocks import Blocks, pack_nibbles
from modelwright.targets.readiness import require_import

_NIBBLE, _BYTE = 4, 8
_TOGETHER = (".q_proj", ".k_proj", ".v_proj")
"""Products of the same value that become one. Each by itself is small, and what a product costs besides its arithmetic
is not: SmolLM2-135M took 5 % less CPU time a token of 4 bits. The two of a gated feed-forward stay apart: an activation
is fused into one of them, and as one they gained nothing."""


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
    products = find_products(model, grids.model)
    for group in _group_products(products, grids):
        if len(group) > 1:
            packer.join(group, products, grids)
            continue
        (layer,) = group
        matrix = packer.pack(grids.round_layer(layer), layer.name)
        constant = products[layer.name].input_value(1)
        # All who read it: a table is looked up in, too.
        for reader in list(constant.get_target_inputs()):
            reader.replace_source_output(matrix)
    model.validate_nodes_and_infer_types()


def _group_products(products: Mapping[str, Any], grids: Grids) -> Iterator[list[LinearLayer]]:
    """Yields the layers, those together that can be one product: of one value, stored alike, without a bias.

    A bias is fused into its own product; behind a product that is split it would be an operator more.
    """
    groups: dict[Any, list[LinearLayer]] = {}
    for name, node in products.items():
        layer = grids.model.linear_layers[name]
        is_joined = name.endswith(_TOGETHER) and not _has_bias(node)
        groups.setdefault((layer.reads, grids.formats[name]) if is_joined else name, []).append(layer)
    yield from groups.values()


def _has_bias(node: Any) -> bool:
    return any(reader.get_node().get_type_name() == "Add" for reader in node.output(0).get_target_inputs())


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

    def join(self, layers: Sequence[LinearLayer], products: Mapping[str, Any], grids: Grids) -> None:
        """Makes one product of several that read the same value, whose columns are then split.

        Args:
            layers: At least two, stored alike.
            products: Name of a layer -> its product.
            grids: Where the integers come from.
        """
        first, *others = (grids.round_layer(layer) for layer in layers)
        zeros = [one.zero_points for one in (first, *others) if one.zero_points is not None]
        whole = replace(
            first,
            values=np.concatenate([first.values, *(one.values for one in others)]),
            scales=np.concatenate([first.scales, *(one.scales for one in others)]),
            zero_points=np.concatenate(zeros) if zeros else None,
        )
        # Begins with a name of the source, and says what else is in it.
        name = "+".join([layers[0].name, *(layer.name.rpartition(".")[2] for layer in layers[1:])])
        product = self._op.matmul(
            products[layers[0].name].input_value(0), self.pack(whole, name), False, True, name=name
        )
        widths = np.array([layer.columns for layer in layers], np.int64)
        parts = self._op.variadic_split(product, np.int64(-1), widths, name=f"{name}.split").outputs()
        for layer, part in zip(layers, parts, strict=True):
            node = products[layer.name]
            for reader in list(node.output(0).get_target_inputs()):
                reader.replace_source_output(part)
            part.get_tensor().set_names({layer.gives})

    def _store(self, values: Any, bits: int, shape: list[int], name: str) -> Any:
        flat = np.ascontiguousarray(values.reshape(-1))
        if bits == _BYTE:
            return self._op.constant(flat.reshape(shape), name=name)
        assert bits == _NIBBLE, f"no type of {bits} bits"
        # The tensor lends numpy's memory, and the constant the tensor's unless it is told not to.
        tensor = self._openvino.Tensor(pack_nibbles(flat), shape, self._openvino.Type.u4)
        return self._op.constant(tensor, name=name, shared_memory=False)
