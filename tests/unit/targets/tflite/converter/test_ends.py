"""Which operators make a file's outputs: from the last one with weights on, and nothing that others read too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from modelwright.targets.tflite.converter.ends import mark_ends

CLASSIFIER = ["CONV_2D x c", "RELU c r", "MEAN r m", "FULLY_CONNECTED m f", "SOFTMAX f y"]
RESIDUAL = ["CONV_2D x a", "CONV_2D a b", "ADD a,b y"]
FEATURES = ["CONV_2D x y", "CONV_2D y c", "RELU c z"]
DETECTOR = [
    "CONV_2D x c", "CONV_2D c boxes", "CONV_2D c scores", "SLICE boxes xy", "SLICE boxes wh", "SUB xy,wh low",
    "LOGISTIC scores p", "CONCATENATION low,p y",
]  # fmt: skip


def find(lines: list[str], outputs: str) -> list[str]:
    tensors: dict[str, int] = {}

    def number(names: str) -> list[int]:
        return [tensors.setdefault(name, len(tensors)) for name in names.split(",")]

    parts = [line.split() for line in lines]
    operators = [SimpleNamespace(inputs=number(read), outputs=number(made)) for _, read, made in parts]
    readers: dict[int, list[int]] = {}
    for position, op in enumerate(operators):
        for tensor in op.inputs:
            readers.setdefault(tensor, []).append(position)
    graph = SimpleNamespace(operators=operators, outputs=number(outputs))
    return [parts[position][2] for position in sorted(mark_ends(graph, [part[0] for part in parts], readers))]


@pytest.mark.parametrize(
    ("lines", "outputs", "ends"),
    [
        (CLASSIFIER, "y", ["f", "y"]),
        (RESIDUAL, "y", ["b", "y"]),  # what the block reads too keeps its scales
        (FEATURES, "y,z", ["c", "z"]),  # an output that a convolution reads is no end
        (DETECTOR, "y", ["boxes", "scores", "xy", "wh", "low", "p", "y"]),
        (["ADD x,x a", "MUL a,a y"], "y", ["a", "y"]),
        (["CONV_2D x y", "RELU x nobody"], "y", ["y"]),
    ],
)
def test_known_ends(lines: list[str], outputs: str, ends: list[str]) -> None:
    assert find(lines, outputs) == ends
