"""TensorRT's layer times as operators, with known answers."""

from __future__ import annotations

import pytest

from modelwright.targets.tensorrt.layers import Layer
from modelwright.targets.tensorrt.profile import classify, read_runs


def layer(kind: str, *reads: str, name: str = "a") -> Layer:
    return Layer(name=name, kind=kind, reads=reads, writes=("fp32",), nodes=(f"{name}_node",))


@pytest.mark.parametrize(
    ("kind", "reads", "answer"),
    [
        ("CaskConvolution", ("int8", "fp32"), ("compute", "int8")),
        ("gemm", ("fp16",), ("compute", "fp16")),
        ("correlation", ("int8",), ("compute", "int8")),
        ("kgen", ("fp32",), ("other", "fp32")),
        ("PointWiseV2", ("fp16",), ("other", "fp16")),
        ("Reformat", ("int8",), ("conversion", None)),
        ("NoOp", (), ("conversion", None)),
        ("Quantize", ("fp32",), ("conversion", None)),
    ],
)
def test_what_a_layer_is(kind: str, reads: tuple[str, ...], answer: tuple[str, str | None]) -> None:
    assert classify(layer(kind, *reads)) == answer


def test_a_layer_takes_its_time_in_every_inference_and_an_unknown_one_is_told_too() -> None:
    runs = [{"a": 5.0, "b": 1.0}, {"a": 7.0}]
    known, unknown = read_runs(runs, [layer("gemm", "int8")])
    assert (known.type, known.precision, known.nodes, list(known.times_us)) == ("gemm", "int8", ("a_node",), [5, 7])
    assert (unknown.type, unknown.precision, list(unknown.times_us)) == ("b", None, [1, 0])
