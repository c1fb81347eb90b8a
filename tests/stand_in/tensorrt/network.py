"""Networks, and the parser that makes them of ONNX."""

from __future__ import annotations

from typing import Any

from .types import DATA_TYPES, ErrorCode, ILogger


class ITensor:
    def __init__(self, value: Any) -> None:
        kind = value.type.tensor_type
        self.name = value.name
        self.dtype = DATA_TYPES[kind.elem_type]
        self.shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in kind.shape.dim)
        self.is_shape_tensor = False


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.model: Any = None
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]

    def fill(self, model: Any) -> None:
        constants = {tensor.name for tensor in model.graph.initializer}
        self.model = model
        self._inputs = [ITensor(value) for value in model.graph.input if value.name not in constants]
        self._outputs = [ITensor(value) for value in model.graph.output]
        # Reshape to a shape that is an input makes that input a shape tensor.
        shapes = {node.input[1] for node in model.graph.node if node.op_type in ("Reshape", "Expand")}
        for tensor in self._inputs:
            tensor.is_shape_tensor = tensor.name in shapes

    def list_data_dependent(self) -> set[str]:
        """Returns the tensors whose shapes the values of the inputs decide, and not only their shapes."""
        found: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type in ("NonMaxSuppression", "NonZero", "Unique") or found.intersection(node.input):
                found.update(node.output)
        return found


class ParserError:
    def __init__(self, index: int, node: Any) -> None:
        self._index, self._node = index, node

    def code(self) -> Any:
        return ErrorCode.INVALID_NODE

    def desc(self) -> str:
        return 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'

    def file(self) -> str:
        return "onnxOpCheckers.cpp"

    def line(self) -> int:
        return 998

    def func(self) -> str:
        return "checkFallbackPluginImporter"

    def node(self) -> int:
        return self._index

    def node_name(self) -> str:
        return str(self._node.name)

    def node_operator(self) -> str:
        return str(self._node.op_type)


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        import onnx

        loaded = onnx.load(model)
        self._errors = [
            ParserError(index, node)
            for index, node in enumerate(loaded.graph.node)
            if node.domain not in ("", "ai.onnx")
        ]
        if self._errors:
            return False
        self._network.fill(loaded)
        return True
