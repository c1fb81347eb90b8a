"""How much each node of a graph multiplies: what says whether most of a network runs in the precision asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.onnx.facts import ONNX_DOMAINS, read_attribute
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import Amount, decode, encode
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.dtypes import name_layer
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.run import extra_outputs, open_session
from modelwright.targets.readiness import require_import

Shape = npt.NDArray[np.int64]
WORK_SHAPES: Mapping[str, tuple[int | str, ...]] = {
    "Conv": (1, "output"),
    "ConvTranspose": (0, 1),
    "Gemm": (0, "output"),
    "MatMul": (0, "output"),
    "LSTM": (0, 1, 2),
    "GRU": (0, 1, 2),
    "RNN": (0, 1, 2),
}
"""Operator -> the tensors whose shapes decide its work: positions of inputs, or its first output."""


def measure_work(model: Any, feeds: Feeds, scratch: Path) -> dict[str, float]:
    """Returns node -> multiplications of one inference, of the nodes that a network spends its time in.

    ONNX Runtime says the shapes of a real inference: they decide the work, and inference of shapes does not get past
    operators that compute them.

    Args:
        model: A model with its weights; outputs are added to it while this runs. Nodes in subgraphs are left out.
        feeds: One inference's inputs.
        scratch: For the intermediate file of a large model.
    """
    onnx = require_import("onnx", "onnx")
    nodes = [node for node in model.graph.node if node.op_type in WORK_SHAPES and node.domain in ONNX_DOMAINS]
    needed = {node.output[0]: [name_operand(node, where) for where in WORK_SHAPES[node.op_type]] for node in nodes}
    names = list(dict.fromkeys(name for tensors in needed.values() for name in tensors))
    if not names:
        return {}
    outputs = [f"shape_{number}_of_work" for number in range(len(names))]
    readers = [onnx.helper.make_node("Shape", [name], [out]) for name, out in zip(names, outputs, strict=True)]
    with extra_outputs(model, outputs, readers, onnx.TensorProto.INT64):
        session = open_session(model, scratch)
    shapes = dict(zip(names, session.run(outputs, dict(feeds)), strict=True))
    return {
        name_layer(node.name, node.output[0]): count_multiplications(
            node, [shapes[name] for name in needed[node.output[0]]]
        )
        for node in nodes
    }


def count_in_child(path: str, samples: dict[str, Any], signature: dict[str, Any], scratch: str) -> float:
    """Child side of `count_macs`."""
    feeds = next(open_samples(decode(SampleRef, samples), decode(Signature, signature), checked=True).feeds(1))
    return sum(measure_work(load_model(Path(path)), feeds, Path(scratch)).values())


def count_macs(path: Path, samples: SampleRef, signature: Signature, scratch: Path) -> float:
    """Returns the multiplications of one inference of a model, in a child process.

    Args:
        path: The ONNX model.
        samples: Whose first one it is run on.
        signature: Of the model.
        scratch: For intermediate files.

    Raises:
        BuildFailedError: The model does not run.
    """
    found = run_in_child(
        "modelwright.targets.graphs.work:count_in_child",
        {"path": str(path), "samples": encode(samples), "signature": encode(signature), "scratch": str(scratch)},
        purpose=f"counting what {path.name} multiplies",
    )
    return decode(Amount, found, where="a count of multiplications")


def name_operand(node: Any, where: int | str) -> str:
    """Returns the tensor that one of `WORK_SHAPES` stands for."""
    if isinstance(where, int):
        return str(node.input[where])
    return next(str(name) for name in node.output if name)


def count_multiplications(node: Any, shapes: Sequence[Shape]) -> float:
    """Returns how often a node multiplies, by the shapes that `WORK_SHAPES` asks for."""
    first, second = shapes[0], shapes[1]
    if node.op_type == "Conv":  # each output sums over a kernel and the channels of its group
        return float(np.prod(first[1:]) * np.prod(second))
    if node.op_type == "ConvTranspose":  # each input goes into a kernel of outputs
        return float(np.prod(first) * np.prod(second[1:]))
    if node.op_type in ("Gemm", "MatMul"):
        turned = node.op_type == "Gemm" and read_attribute(node, "transA", 0)
        return float(first[0 if turned else -1] * np.prod(second))
    # A recurrent layer multiplies input and state by its weights, at every step.
    return float(np.prod(first[:2]) * (np.prod(second) + np.prod(shapes[2])))
