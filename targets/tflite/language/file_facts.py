"""What operators and constants a file consists of, and in which types its matrices are, read without loading it."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.targets.language.contract import StoredTensor
from modelwright.targets.readiness import require_import

_PRODUCT = "FULLY_CONNECTED"
_PRECISIONS = {"FLOAT32": "fp32", "INT8": "int8", "INT4": "int4"}
"""Type of a matrix -> as people read it, from the most bits to the fewest."""


def describe_file(path: Path) -> dict[str, Any]:
    """Returns the operators of a file's first graph, products by their matrices' type, and the fewest bits of these.

    `{"precision": "int8", "operators": {"FULLY_CONNECTED int8": 211, "MUL": 633, ...}}`
    """
    schema = require_import("ai_edge_litert.schema_py_generated", "tflite-run")
    operators = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    types = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = schema.Model.GetRootAs(data, 0)
        graph = model.Subgraphs(0)
        counts: Counter[str] = Counter()
        for index in range(graph.OperatorsLength()):
            node = graph.Operators(index)
            name = operators[model.OperatorCodes(node.OpcodeIndex()).BuiltinCode()]
            if name == _PRODUCT:
                name = f"{name} {_PRECISIONS[types[graph.Tensors(node.Inputs(1)).Type()]]}"
            counts[name] += 1
    found = [each for each in _PRECISIONS.values() if f"{_PRODUCT} {each}" in counts]
    return {"precision": found[-1] if found else None, "operators": dict(sorted(counts.items()))}


def list_tensors(path: Path) -> Iterator[StoredTensor]:
    """Yields the constants of all graphs of a file, those that several share once; their scales with each."""
    schema = require_import("ai_edge_litert.schema_py_generated", "tflite-run")
    seen: set[int] = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = schema.Model.GetRootAs(data, 0)
        graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
        for tensor in (graph.Tensors(index) for graph in graphs for index in range(graph.TensorsLength())):
            buffer, scales = model.Buffers(tensor.Buffer()), tensor.Quantization()
            size = 0 if tensor.Buffer() in seen else buffer.Size() or buffer.DataLength()
            seen.add(tensor.Buffer())
            if scales is not None:
                size += 4 * scales.ScaleLength() + 8 * scales.ZeroPointLength()
            if size:
                yield StoredTensor(name=tensor.Name().decode(), size_bytes=size)
