"""A copy of a network whose layers compute with few bits, in floats.

Weights are rounded in the file, activations as it runs. The numbers are those of integer arithmetic with exact sums:
each operand is on its grid (`grids.py`), products are added in FP32, biases and all other operators stay float. Which
kernel of which vendor computes what is not asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelwright.harness.mixing.calibration import Rounding
from modelwright.harness.mixing.grids import Grid
from modelwright.harness.mixing.network import Layer
from modelwright.targets.graphs.rewrite import rebuild_model
from modelwright.targets.readiness import require_import

PREFIX = "mix/"
"""Begins the names of all tensors that are added."""
Bits = Mapping[str, int | None]
"""Layer's output -> its bits; None, or no entry, leaves it in float."""


class RoundedNodes:
    """Makes the nodes that round what layers read, each tensor and grid once.

    Attributes:
        constants: Name -> tensor, of all constants that the nodes read.
    """

    def __init__(self, rounding: Rounding) -> None:
        self._rounding = rounding
        self._onnx = require_import("onnx", "onnx")
        self._made: dict[tuple[str, Grid], str] = {}
        self.constants: dict[str, Any] = {}

    def round_layer(self, node: Any, layer: Layer, bits: int) -> tuple[list[Any], Any]:
        """Returns the nodes that round what a layer reads, and a copy of the layer that reads it rounded."""
        nodes: list[Any] = []
        copy = self._onnx.NodeProto()
        copy.CopyFrom(node)
        for place, tensor in layer.activations.items():
            grid = self._rounding.grid(layer, tensor, bits)
            if (tensor, grid) not in self._made:
                nodes += self._round_activation(tensor, grid)
            copy.input[place] = self._made[tensor, grid]
        if layer.operand:
            name = f"{PREFIX}{layer.operand}/{bits}/{layer.channel_axis}"
            if name not in self.constants:
                values = self._rounding.weight(layer, bits)
                self.constants[name] = self._onnx.numpy_helper.from_array(values, name)
            copy.input[layer.place] = name
        return nodes, copy

    def _round_activation(self, tensor: str, grid: Grid) -> list[Any]:
        base = f"{PREFIX}{tensor}/{grid.bits}/{len(self._made)}"
        low, high = grid.ends
        scale, least, most = (
            self._constant(f"{base}/{name}", value)
            for name, value in (("scale", grid.scale), ("low", low), ("high", high))
        )
        names = [f"{base}/{step}" for step in ("scaled", "whole", "clipped", "rounded")]
        self._made[tensor, grid] = names[-1]
        make = self._onnx.helper.make_node
        return [
            make("Div", [tensor, scale], [names[0]], f"{base}/Div"),
            make("Round", [names[0]], [names[1]], f"{base}/Round"),
            make("Clip", [names[1], least, most], [names[2]], f"{base}/Clip"),
            make("Mul", [names[2], scale], [names[3]], f"{base}/Mul"),
        ]

    def _constant(self, name: str, value: float) -> str:
        self.constants[name] = self._onnx.numpy_helper.from_array(np.float32(value).reshape(()), name)
        return name


def simulate(rounding: Rounding, bits: Bits) -> Any:
    """Returns a copy of the network that computes each layer with its bits."""
    network = rounding.network
    layers = {layer.output: layer for layer in network.layers}
    rounded = RoundedNodes(rounding)
    nodes: list[Any] = []
    for node in network.model.graph.node:
        layer = layers.get(node.output[0]) if len(node.output) else None
        width = None if layer is None else bits.get(layer.output)
        if layer is None or width is None:
            nodes.append(node)
            continue
        made, copy = rounded.round_layer(node, layer, width)
        nodes += [*made, copy]
    return rebuild_model(network.model, nodes, rounded.constants)
