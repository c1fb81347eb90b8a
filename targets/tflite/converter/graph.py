"""An ONNX graph in a form that is easy to rewrite: constants as arrays, producers and consumers at hand.

Part of the converter that runs in its own environment: it imports onnx and numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class Graph:
    """A flat ONNX graph being rewritten.

    Attributes:
        nodes: In topological order.
        constants: Name -> value of every initializer.
        shapes: Name -> static shape, where inference found one.
        dtypes: Name -> ONNX element type, where inference found one.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.inputs = [value.name for value in model.graph.input if value.name not in self.constants]
        self.outputs = [value.name for value in model.graph.output]
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self._names = {name for node in self.nodes for name in (*node.input, *node.output, node.name)}
        self._names.update(self.constants, self.inputs, self.outputs)
        for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
            self._note_type(value)
        for name, array in self.constants.items():
            self._note_constant(name, array)

    def _note_type(self, value: onnx.ValueInfoProto) -> None:
        tensor = value.type.tensor_type
        if tensor.elem_type:
            self.dtypes[value.name] = tensor.elem_type
        if tensor.HasField("shape"):
            dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            if all(d >= 0 for d in dims):
                self.shapes[value.name] = tuple(dims)

    def _note_constant(self, name: str, array: Array) -> None:
        self.shapes[name] = array.shape
        self.dtypes[name] = helper.np_dtype_to_tensor_dtype(array.dtype)

    def new_name(self, stem: str) -> str:
        """Returns a name that the graph does not use yet."""
        name, number = stem, 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    def add_constant(self, stem: str, array: Array) -> str:
        """Adds an initializer and returns its name."""
        name = self.new_name(stem)
        self.constants[name] = array
        self._note_constant(name, array)
        return name

    def set_constant(self, name: str, array: Array) -> None:
        """Makes `name` an initializer of that value, or gives it another one."""
        self.constants[name] = array
        self._note_constant(name, array)

    def make_node(
        self, op_type: str, inputs: Sequence[str], output: str, *, stem: str, shape: Shape | None, **attributes: Any
    ) -> onnx.NodeProto:
        """Makes a node whose only output takes the first input's dtype."""
        if shape is not None:
            self.shapes[output] = shape
        if inputs[0] in self.dtypes:
            self.dtypes.setdefault(output, self.dtypes[inputs[0]])
        self._names.add(output)
        return helper.make_node(op_type, list(inputs), [output], name=self.new_name(stem), **attributes)

    def producers(self) -> dict[str, onnx.NodeProto]:
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Returns tensor -> the nodes that read it, each as often as it does; a branch's reads are its node's."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in (*node.input, *captured_names(node)):
                found.setdefault(name, []).append(node)
        return found

    def replace_input(self, old: str, new: str, nodes: Iterable[onnx.NodeProto] | None = None) -> None:
        """Lets nodes (all by default) read `new` where they read `old`, in their subgraphs too."""
        for node in self.nodes if nodes is None else nodes:
            for position, name in enumerate(node.input):
                if name == old:
                    node.input[position] = new
            for subgraph in _subgraphs(node):
                self.replace_input(old, new, subgraph.node)
                for value in subgraph.output:
                    value.name = new if value.name == old else value.name

    def drop_unused(self) -> None:
        """Removes nodes and constants that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(name for name in node.input if name)
                needed.update(captured_names(node))
                kept.append(node)
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in needed}

    def to_model(self) -> onnx.ModelProto:
        """Returns the graph as a model, with the shapes known so far as `value_info`."""
        model = onnx.ModelProto()
        model.ir_version = max(self._model.ir_version, 4)  # from 4 on, initializers need not be inputs
        model.opset_import.extend(self._model.opset_import)
        graph = model.graph
        graph.name = "model"
        graph.node.extend(self.nodes)
        graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in self.constants.items())
        graph.input.extend(self._value_info(name) for name in self.inputs)
        graph.output.extend(self._value_info(name) for name in self.outputs)
        ends = {*self.inputs, *self.outputs, *self.constants}
        made = [name for node in self.nodes for name in node.output]
        graph.value_info.extend(
            self._value_info(name) for name in made if name in self.shapes and name in self.dtypes and name not in ends
        )
        return model

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return max((o.version for o in self.to_opsets() if o.domain in ("", "ai.onnx")), default=1)

    def to_opsets(self) -> list[onnx.OperatorSetIdProto]:
        return list(self._model.opset_import)

    def _value_info(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self.dtypes.get(name, 0), self.shapes.get(name))


def captured_names(node: onnx.NodeProto) -> set[str]:
    """Returns the outer tensors that a node's subgraphs (If, Loop, Scan) read."""
    names: set[str] = set()
    for subgraph in _subgraphs(node):
        names.update(value.name for value in subgraph.output)
        for inner in subgraph.node:
            names.update(inner.input)
            names.update(captured_names(inner))
    return names


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    # Reading `attribute.g` of an attribute without one would give an empty graph.
    return [graph for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)]


def get_attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Returns a node's attribute as a Python value."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Runs shape inference; a model that it cannot follow keeps what it has."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # onnx raises its own and plain errors alike; the converter then says what is missing
        return model


def is_scalar(array: Array | None, value: float, tolerance: float = 1e-4) -> bool:
    """Says whether a constant is one number close to `value`."""
    return array is not None and array.size == 1 and abs(float(array.reshape(-1)[0]) - value) < tolerance
