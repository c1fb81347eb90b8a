"""Models that INT8 breaks, each in another way: small, with samples, and with what a user would look at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
from onnx import TensorProto, helper

Array = Any
FLOAT = TensorProto.FLOAT
make = helper.make_node


@dataclass(frozen=True, kw_only=True)
class Breaker:
    """A model, inputs for it, and how closely its answers have to be followed.

    Attributes:
        model: Its file.
        draw: Gives so many inputs, of a seed.
        score: FP32's answers and a candidate's -> what is kept of them: 1 is all.
        least: Under it a user would call the artifact broken.
    """

    model: Path
    draw: Callable[[int, int], Mapping[str, Array]]
    score: Callable[[Array, Array], float]
    least: float


def agree(expected: Array, found: Array) -> float:
    """Returns the share of samples that get FP32's class."""
    return float((expected.argmax(-1) == found.argmax(-1)).mean())


def follow(expected: Array, found: Array) -> float:
    """Returns R squared of the channel (the last axis) that follows worst, over all that precedes it."""
    wanted, have = (np.asarray(each, np.float64).reshape(-1, each.shape[-1]) for each in (expected, found))
    return float((1 - ((have - wanted) ** 2).mean(0) / wanted.var(0)).min())


def follow_rows(expected: Array, found: Array) -> float:
    """The same of [batch, channels, rows]."""
    return follow(np.swapaxes(expected, 1, 2), np.swapaxes(found, 1, 2))


def _images(*shape: int, scale: float = 1.0) -> Callable[[int, int], Mapping[str, Array]]:
    def draw(count: int, seed: int) -> Mapping[str, Array]:
        rng = np.random.default_rng(seed)
        coarse = rng.standard_normal((count, *shape[:1], *(1 for _ in shape[1:])))
        return {"x": (scale * (rng.standard_normal((count, *shape)) + coarse)).astype(np.float32)}

    return draw


def _weights(rng: Any, *shape: int) -> Array:
    return rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))


def _save(path: Path, nodes: Any, inputs: Any, outputs: Any, arrays: Mapping[str, Array]) -> Path:
    """Writes a model; `arrays` of floats become float32."""
    kept = {name: np.asarray(value) for name, value in arrays.items()}
    kept = {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in kept.items()}
    return models.save(path, nodes, inputs, outputs, kept)


def _body(rng: Any, source: str, count: int, arrays: dict[str, Array]) -> tuple[list[Any], str]:
    """Returns tame convolutions of 8 channels: work beside which a layer is a small part of the whole."""
    nodes: list[Any] = []
    for number in range(count):
        arrays[f"body{number}"] = _weights(rng, 8, 8, 3, 3) * 1.4
        nodes += [
            make("Conv", [source, f"body{number}"], [f"t{number}"], f"body{number}", pads=[1] * 4),
            make("Relu", [f"t{number}"], [f"tr{number}"], f"body_relu{number}"),
        ]
        source = f"tr{number}"
    return nodes, source


def one_channel(path: Path) -> Breaker:
    """One channel between two convolutions is 1,000 times as large as the others, and no more important."""
    rng = np.random.default_rng(0)
    first, second = _weights(rng, 8, 8, 3, 3), _weights(rng, 8, 8, 3, 3)
    first[0] *= 1000
    second[:, 0] /= 1000
    arrays = {"w0": _weights(rng, 8, 3, 3, 3), "w1": first, "w2": second, "w3": _weights(rng, 10, 8) * 3}
    body, last = _body(rng, "ar", 6, arrays)
    nodes = [
        make("Conv", ["x", "w0"], ["a"], "stem", pads=[1] * 4),
        make("Relu", ["a"], ["ar"], "stem_relu"),
        *body,
        make("Conv", [last, "w1"], ["b"], "loud", pads=[1] * 4),
        make("Relu", ["b"], ["br"], "loud_relu"),
        make("Conv", ["br", "w2"], ["c"], "reader", pads=[1] * 4),
        make("Relu", ["c"], ["cr"], "reader_relu"),
        make("GlobalAveragePool", ["cr"], ["p"], "pool"),
        make("Flatten", ["p"], ["f"], "flatten"),
        make("Gemm", ["f", "w3"], ["y"], "head", transB=1),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 3, 12, 12])], [("y", FLOAT, ["n", 10])], arrays)
    return Breaker(model=path, draw=_images(3, 12, 12), score=follow, least=0.85)


def tiny_softmax(path: Path) -> Breaker:
    """Attention over 256 places that all get about 1/256; 8 bits of [0, 1] have a step of 1/255."""
    rng = np.random.default_rng(1)
    arrays = {name: _weights(rng, 16, 16).T for name in ("wq", "wk", "wv", "wo")} | {"eighth": np.float64(0.25)}
    nodes = [
        make("MatMul", ["x", "wq"], ["q"], "query"),
        make("MatMul", ["x", "wk"], ["k"], "key"),
        make("MatMul", ["x", "wv"], ["v"], "value"),
        make("Transpose", ["k"], ["kt"], "turn", perm=[0, 2, 1]),
        make("MatMul", ["q", "kt"], ["s0"], "scores"),
        make("Mul", ["s0", "eighth"], ["s"], "scaled"),
        make("Softmax", ["s"], ["shares"], "shares", axis=-1),
        make("MatMul", ["shares", "v"], ["mixed"], "mix"),
        make("MatMul", ["mixed", "wo"], ["o"], "out"),
        make("ReduceMean", ["o"], ["y"], "pool", axes=[1], keepdims=0),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 256, 16])], [("y", FLOAT, ["n", 16])], arrays)

    def draw(count: int, seed: int) -> Mapping[str, Array]:
        rng = np.random.default_rng(seed)
        return {"x": (rng.standard_normal((count, 256, 16)) + rng.standard_normal((count, 1, 16))).astype(np.float32)}

    return Breaker(model=path, draw=draw, score=follow, least=0.85)


def boxes_and_scores(path: Path) -> Breaker:
    """Boxes in pixels and scores in one tensor [n, 4 + 3, 64]: one scale for both leaves two values of a score."""
    rng = np.random.default_rng(2)
    arrays = {
        "w0": _weights(rng, 8, 3, 3, 3),
        "w1": _weights(rng, 8, 8, 3, 3),
        "wb": _weights(rng, 4, 8, 1, 1) * 60,
        "bb": np.array([320.0, 320.0, 120.0, 120.0]),
        "ws": _weights(rng, 3, 8, 1, 1) * 4,
        "bs": np.full(3, -1.0),
        "shape": np.array([0, 7, 64], np.int64),
    }
    nodes = [
        make("Conv", ["x", "w0"], ["a"], "stem", pads=[1] * 4, strides=[2, 2]),
        make("Relu", ["a"], ["ar"], "stem_relu"),
        make("Conv", ["ar", "w1"], ["b"], "body", pads=[1] * 4),
        make("Relu", ["b"], ["br"], "body_relu"),
        make("Conv", ["br", "wb", "bb"], ["boxes"], "boxes"),
        make("Conv", ["br", "ws", "bs"], ["logits"], "logits"),
        make("Sigmoid", ["logits"], ["scores"], "scores"),
        make("Concat", ["boxes", "scores"], ["both"], "both", axis=1),
        make("Reshape", ["both", "shape"], ["y"], "rows"),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 3, 16, 16])], [("y", FLOAT, ["n", 7, 64])], arrays)
    return Breaker(model=path, draw=_images(3, 16, 16), score=follow_rows, least=0.85)


def residual_outliers(path: Path) -> Breaker:
    """A residual stream in which a few channels are hundreds of times the others, as in transformers."""
    rng = np.random.default_rng(3)
    big = np.zeros(16)
    big[[2, 9]] = [400.0, -250.0]
    arrays: dict[str, Array] = {"big": big, "head": _weights(rng, 10, 16).T}
    nodes = [make("Add", ["x", "big"], ["h0"], "loud")]
    for block in range(2):
        arrays |= {
            f"g{block}": np.where(big, 0.05, 1.0),
            f"b{block}": np.zeros(16),
            f"u{block}": _weights(rng, 64, 16).T * 2,
            f"d{block}": _weights(rng, 16, 64).T,
        }
        nodes += [
            make("LayerNormalization", [f"h{block}", f"g{block}", f"b{block}"], [f"n{block}"], f"norm{block}", axis=-1),
            make("MatMul", [f"n{block}", f"u{block}"], [f"up{block}"], f"up{block}"),
            make("Relu", [f"up{block}"], [f"r{block}"], f"relu{block}"),
            make("MatMul", [f"r{block}", f"d{block}"], [f"down{block}"], f"down{block}"),
            make("Add", [f"h{block}", f"down{block}"], [f"h{block + 1}"], f"sum{block}"),
        ]
    nodes += [
        make("Sub", ["h2", "big"], ["quiet"], "quiet"),
        make("ReduceMean", ["quiet"], ["pooled"], "pool", axes=[1], keepdims=0),
        make("MatMul", ["pooled", "head"], ["y"], "head"),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 8, 16])], [("y", FLOAT, ["n", 10])], arrays)
    return Breaker(model=path, draw=_images(8, 16), score=follow, least=0.85)


def huge_row(path: Path) -> Breaker:
    """A table with one row 1,000 times the others, which hardly any sample looks up."""
    rng = np.random.default_rng(4)
    table = rng.standard_normal((200, 16))
    table[7] *= 1000
    arrays = {
        "table": table,
        "w0": _weights(rng, 32, 16).T,
        "w1": _weights(rng, 64, 32).T * 1.4,
        "w2": _weights(rng, 32, 64).T * 1.4,
        "w3": _weights(rng, 10, 32).T * 3,
    }
    nodes = [
        make("Gather", ["table", "x"], ["e"], "lookup"),
        make("ReduceMean", ["e"], ["m"], "mean", axes=[1], keepdims=0),
        make("MatMul", ["m", "w0"], ["h"], "hidden"),
        make("Relu", ["h"], ["r"], "relu"),
        make("MatMul", ["r", "w1"], ["h1"], "hidden1"),
        make("Relu", ["h1"], ["r1"], "relu1"),
        make("MatMul", ["r1", "w2"], ["h2"], "hidden2"),
        make("Relu", ["h2"], ["r2"], "relu2"),
        make("MatMul", ["r2", "w3"], ["y"], "head"),
    ]
    _save(path, nodes, [("x", TensorProto.INT64, ["n", 6])], [("y", FLOAT, ["n", 10])], arrays)

    def draw(count: int, seed: int) -> Mapping[str, Array]:
        tokens = np.random.default_rng(seed).integers(8, 200, (count, 6))
        tokens[0, 0] = 7
        return {"x": tokens.astype(np.int64)}

    return Breaker(model=path, draw=draw, score=agree, least=0.85)


def big_bias(path: Path) -> Breaker:
    """Biases a thousand times the products that they are added to, taken off again two layers later."""
    rng = np.random.default_rng(5)
    last = _weights(rng, 6, 8) * 3
    middle, offset = _weights(rng, 8, 8, 1, 1), np.full(8, 2000.0)
    arrays = {
        "w0": _weights(rng, 8, 3, 3, 3),
        "b0": offset,
        "w1": middle,
        "b1": -middle[:, :, 0, 0] @ offset,
        "w2": last,
        "b2": np.zeros(6),
    }
    body, last = _body(rng, "br", 3, arrays)
    nodes = [
        make("Conv", ["x", "w0", "b0"], ["a"], "raised", pads=[1] * 4),
        make("Relu", ["a"], ["ar"], "raised_relu"),
        make("Conv", ["ar", "w1", "b1"], ["b"], "lowered"),
        make("Relu", ["b"], ["br"], "lowered_relu"),
        *body,
        make("GlobalAveragePool", [last], ["p"], "pool"),
        make("Flatten", ["p"], ["f"], "flatten"),
        make("Gemm", ["f", "w2", "b2"], ["y"], "head", transB=1),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 3, 12, 12])], [("y", FLOAT, ["n", 6])], arrays)
    return Breaker(model=path, draw=_images(3, 12, 12), score=follow, least=0.85)


def uneven_depthwise(path: Path) -> Breaker:
    """Depthwise convolutions whose channels lie between 1/100 and 100, evened out by what reads them."""
    rng = np.random.default_rng(6)
    sizes = np.logspace(-2, 2, 16)
    arrays: dict[str, Array] = {"w0": _weights(rng, 8, 3, 3, 3), "head": _weights(rng, 10, 16) * 3}
    arrays["w1"] = _weights(rng, 16, 8, 1, 1) * 1.4
    body, last = _body(rng, "sr", 6, arrays)
    nodes = [make("Conv", ["x", "w0"], ["s"], "stem", pads=[1] * 4), make("Relu", ["s"], ["sr"], "stem_relu"), *body]
    nodes += [make("Conv", [last, "w1"], ["c0"], "widen"), make("Relu", ["c0"], ["h0"], "widen_relu")]
    for block in range(2):
        arrays |= {
            f"d{block}": _weights(rng, 16, 1, 3, 3) * sizes[:, None, None, None],
            f"p{block}": _weights(rng, 16, 16, 1, 1) / sizes[None, :, None, None],
        }
        nodes += [
            make("Conv", [f"h{block}", f"d{block}"], [f"e{block}"], f"depth{block}", pads=[1] * 4, group=16),
            make("Relu", [f"e{block}"], [f"er{block}"], f"depth_relu{block}"),
            make("Conv", [f"er{block}", f"p{block}"], [f"q{block}"], f"point{block}"),
            make("Relu", [f"q{block}"], [f"h{block + 1}"], f"point_relu{block}"),
        ]
    nodes += [
        make("GlobalAveragePool", ["h2"], ["g"], "pool"),
        make("Flatten", ["g"], ["f"], "flatten"),
        make("Gemm", ["f", "head"], ["y"], "head", transB=1),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 3, 12, 12])], [("y", FLOAT, ["n", 10])], arrays)
    return Breaker(model=path, draw=_images(3, 12, 12), score=follow, least=0.85)


def small_divisor(path: Path) -> Breaker:
    """A division by something between 0.01 and 5: the small ones are what 8 bits round to nothing."""
    rng = np.random.default_rng(7)
    arrays = {
        "w0": _weights(rng, 16, 8).T,
        "w1": _weights(rng, 16, 8).T,
        "w2": _weights(rng, 4, 16).T,
        "least": np.float64(0.01),
    }
    nodes = [
        make("MatMul", ["x", "w0"], ["top"], "top"),
        make("MatMul", ["x", "w1"], ["raw"], "bottom"),
        make("Mul", ["raw", "raw"], ["square"], "square"),
        make("Add", ["square", "least"], ["bottom"], "least"),
        make("Div", ["top", "bottom"], ["ratio"], "ratio"),
        make("Tanh", ["ratio"], ["bounded"], "bounded"),
        make("MatMul", ["bounded", "w2"], ["y"], "head"),
    ]
    _save(path, nodes, [("x", FLOAT, ["n", 8])], [("y", FLOAT, ["n", 4])], arrays)
    return Breaker(model=path, draw=_images(8), score=follow, least=0.85)


BREAKERS = (
    one_channel,
    tiny_softmax,
    boxes_and_scores,
    residual_outliers,
    huge_row,
    big_bias,
    uneven_depthwise,
    small_divisor,
)
