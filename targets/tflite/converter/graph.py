"""An ONNX graph in a form that is easy to rewrite: constants as arrays, producers and consumers at hand.

Part of the converter that runs in its own environment: it imports onnx, numpy, and of the project what needs no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from modelwright.core.onnx.facts import find_inputs, find_opset
from modelwright.core.onnx.walk import captured_names, iterate_graphs, own_names, read_names, rename_reads

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
        notes: What the user should know of what was done to it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.nodes: list[onnx.NodeProto] = list(model.graph.node)
        self.constants: dict[str, Array] = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }
        self.inputs = [value.name for value in find_inputs(model.graph)]
        self.outputs = [value.name for value in model.graph.output]
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, int] = {}
        self.notes: list[str] = []
        # Those of subgraphs as well: a name of theirs would hide a new one that they are to read.
        self._names = {name for graph in iterate_graphs(model) for name in own_names(graph)}
        self._names.update(node.name for node in self.nodes)
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

    def replace_input(self, old: str, new: str) -> None:
        """Lets all nodes read `new` where they read `old`, in their subgraphs too."""
        rename_reads(self.nodes, old, new)

    def drop_unused(self) -> None:
        """Removes nodes and constants that no output needs."""
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(read_names(node))
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
        return find_opset(self._model)

    def to_opsets(self) -> list[onnx.OperatorSetIdProto]:
        return list(self._model.opset_import)

    def _value_info(self, name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, self.dtypes.get(name, 0), self.shapes.get(name))


def infer(model: onnx.ModelProto) -> onnx.ModelProto:
    """Runs shape inference; a model that it cannot follow keeps what it has."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # onnx raises its own and plain errors alike; the converter then says what is missing
        return model


def is_scalar(array: Array | None, value: float, tolerance: float = 1e-4) -> bool:
    """Says whether a constant is one number close to `value`."""
    return array is not None and array.size == 1 and abs(float(array.reshape(-1)[0]) - value) < tolerance
