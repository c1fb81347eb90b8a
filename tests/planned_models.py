"""A small attention block and plans for it, to see what runtimes execute of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import models
import numpy as np
from onnx import TensorProto, helper

from modelwright.core.files import hash_file
from modelwright.core.records.plan import BitPlan, PlannedLayer, write_plan

WIDTH, TOKENS, CLASSES, COUNT = 32, 16, 10, 200
LAYERS: Mapping[str, tuple[str, str | None]] = {
    "p": ("Conv", "wp"), "q": ("MatMul", "wq"), "k": ("MatMul", "wk"), "v": ("MatMul", "wv"),
    "s": ("MatMul", None), "av": ("MatMul", None), "o": ("MatMul", "wo"), "m": ("MatMul", "wi"),
    "m2": ("MatMul", "wj"), "y": ("Gemm", "wc"),
}  # fmt: skip
"""Output -> operator and weight. `q`, `k` and `v` make attention's operands, `s` its scores, `av` what it gives."""


def make_attention(path: Path) -> Path:
    """Patches, one head of attention, two layers with a residual, and a classifier; x [n, 3, 16, 16] -> y [n, 10]."""
    rng = np.random.default_rng(0)

    def draw(*shape: int, scale: float = WIDTH**-0.5) -> Any:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    constants = {
        "wp": draw(WIDTH, 3, 4, 4, scale=0.2),
        **{name: draw(WIDTH, WIDTH) for name in ("wq", "wk", "wv", "wo")},
        "wi": draw(WIDTH, 2 * WIDTH),
        "bi": draw(2 * WIDTH, scale=0.1),
        "wj": draw(2 * WIDTH, WIDTH, scale=0.125),
        "wc": draw(WIDTH, CLASSES, scale=1.0),
        "bc": draw(CLASSES, scale=0.1),
        "scale": np.float32(WIDTH**-0.5),
        "shape": np.array([0, WIDTH, TOKENS], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "wp"], ["p"], "patches", strides=[4, 4], kernel_shape=[4, 4]),
        node("Reshape", ["p", "shape"], ["flat"], "flat"),
        node("Transpose", ["flat"], ["h"], "tokens", perm=[0, 2, 1]),
        *(node("MatMul", ["h", f"w{name}"], [name], f"to_{name}") for name in "qkv"),
        node("Transpose", ["k"], ["kt"], "turned", perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["s"], "scores"),
        node("Mul", ["s", "scale"], ["scaled"], "scaled"),
        node("Softmax", ["scaled"], ["a"], "attention", axis=-1),
        node("MatMul", ["a", "v"], ["av"], "context"),
        node("MatMul", ["av", "wo"], ["o"], "project"),
        node("Add", ["o", "h"], ["h2"], "residual"),
        node("MatMul", ["h2", "wi"], ["m"], "expand"),
        node("Add", ["m", "bi"], ["mb"], "expand_bias"),
        node("Relu", ["mb"], ["mr"], "active"),
        node("MatMul", ["mr", "wj"], ["m2"], "contract"),
        node("Add", ["m2", "h2"], ["h3"], "residual2"),
        node("ReduceMean", ["h3"], ["pooled"], "pool", axes=[1], keepdims=0),
        node("Gemm", ["pooled", "wc", "bc"], ["y"], "head"),
    ]
    inputs = [("x", TensorProto.FLOAT, ["n", 3, 16, 16])]
    return models.save(path, nodes, inputs, [("y", TensorProto.FLOAT, ["n", CLASSES])], constants)


def make_images(path: Path) -> Path:
    rng = np.random.default_rng(1)
    strengths = np.linspace(0.5, 2.0, COUNT, dtype=np.float32)[:, None, None, None]
    np.savez(path, x=rng.standard_normal((COUNT, 3, 16, 16)).astype(np.float32) * strengths)
    return path


def plan_attention(path: Path, model: Path, bits: Mapping[str, tuple[int | None, int | None]], **other: Any) -> Path:
    """Writes a plan: output -> bits of weights and activations; further facts of a layer by its output."""
    layers = [
        PlannedLayer(
            output=output, node=output, operator=LAYERS[output][0], weight=LAYERS[output][1], weight_bits=weight,
            activation_bits=activation, **other.get(output, {}),
        )
        for output, (weight, activation) in bits.items()
    ]  # fmt: skip
    plan = BitPlan(
        onnx_sha256=hash_file(model), model=model.name, origin="a hand", method="by hand", layers=tuple(layers)
    )
    write_plan(path, plan)
    return path
