"""A streaming GRU as PyTorch writes one out: a step of products, sums and gates, its state in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import models
import numpy as np
from onnx import TensorProto, helper

WIDTH, HIDDEN, ANSWERS = 16, 32, 4


def make_gru_step(path: Path, *, state: str = "h", next_state: str = "hn", keep: float = 1.0) -> Path:
    """x [batch, 16], h [batch, 32] -> y [batch, 4], hn [batch, 32]; the state remembers some ten steps.

    Args:
        path: Where to write it.
        state: The name of the input.
        next_state: The name of the output.
        keep: What is left of what a step keeps of its state; less than 1 is a model that forgets too soon.
    """
    rng = np.random.default_rng(0)

    def weight(*shape: int, size: float) -> Any:
        return (rng.standard_normal(shape) * size).astype(np.float32)

    constants = {
        "wz": weight(WIDTH, HIDDEN, size=0.25),
        "uz": weight(HIDDEN, HIDDEN, size=0.1),
        "bz": np.full(HIDDEN, 2.0, np.float32),
        "wc": weight(WIDTH, HIDDEN, size=0.4),
        "uc": weight(HIDDEN, HIDDEN, size=0.1),
        "wy": weight(HIDDEN, ANSWERS, size=0.5),
        "one": np.ones(1, np.float32),
        "keep": np.full(1, keep, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "wz"], ["xz"], name="x_gate"),
        node("MatMul", [state, "uz"], ["hz"], name="h_gate"),
        node("Add", ["xz", "hz"], ["xhz"]),
        node("Add", ["xhz", "bz"], ["az"]),
        node("Sigmoid", ["az"], ["z"]),
        node("MatMul", ["x", "wc"], ["xc"], name="x_candidate"),
        node("MatMul", [state, "uc"], ["hc"], name="h_candidate"),
        node("Add", ["xc", "hc"], ["ac"]),
        node("Tanh", ["ac"], ["c"]),
        node("Mul", ["z", state], ["held"]),
        node("Mul", ["held", "keep"], ["kept"]),
        node("Sub", ["one", "z"], ["nz"]),
        node("Mul", ["nz", "c"], ["taken"]),
        node("Add", ["kept", "taken"], [next_state]),
        node("MatMul", [next_state, "wy"], ["y"], name="head"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["batch", WIDTH]), (state, TensorProto.FLOAT, ["batch", HIDDEN])]
    outputs = [("y", TensorProto.FLOAT, ["batch", ANSWERS]), (next_state, TensorProto.FLOAT, ["batch", HIDDEN])]
    return models.save(path, nodes, inputs, outputs, constants)


def make_stream(path: Path, model: Path, *, state: str = "h", next_state: str = "hn", count: int = 200) -> Path:
    """What each step of a stream begins with: its input, and the state that FP32 left."""
    from modelwright.core.outputs.reference import ReferenceModel

    rng = np.random.default_rng(1)
    x = rng.standard_normal((count, WIDTH)).astype(np.float32)
    # Louder and quieter passages, so that the state moves.
    x *= (1.2 + np.sin(np.arange(count) / 9))[:, None].astype(np.float32)
    fed, states = np.zeros((1, HIDDEN), np.float32), []
    with ReferenceModel(model, threads=1) as reference:
        for row in x:
            states.append(fed[0])
            fed = reference.run({"x": row[None], state: fed})[next_state]
    np.savez(path, x=x, **{state: np.stack(states)})
    return path
