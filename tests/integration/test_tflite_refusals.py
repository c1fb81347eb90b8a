"""What the TFLite targets refuse: each for its true reason, and with a hint that helps whoever follows it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import ModelwrightError, ToolchainMissingError
from modelwright.harness.building import build_targets
from modelwright.targets.tflite.environment import ensure_environment

pytestmark = pytest.mark.slow

FLOAT = TensorProto.FLOAT
RNG = np.random.default_rng(0)
OTHER_TARGET = ("ort-fp32", {})


@pytest.fixture(scope="module", autouse=True)
def _toolchain() -> None:
    try:
        ensure_environment(lambda line: None)
        import ai_edge_litert  # noqa: F401
        import onnxruntime  # noqa: F401
    except (ToolchainMissingError, ModuleNotFoundError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have what TFLite needs: {error}")
        pytest.skip(str(error))


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A model that a target refuses, and what helps.

    Attributes:
        make: Writes the model.
        samples: The samples: input name -> array.
        target: That refuses it.
        said: The message, as a pattern.
        hint: A part of the hint.
        cure: What the hint says to do: another target, and samples that replace some of these.
    """

    make: Callable[[Path], None]
    samples: dict[str, Any]
    target: str
    said: str
    hint: str
    cure: tuple[str, dict[str, Any]] = field(default=OTHER_TARGET)


def save(path: Path, nodes: list[Any], shape: list[Any], constants: dict[str, Any] | None = None, **kinds: Any) -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kinds.get("x", FLOAT), shape)],
        [helper.make_tensor_value_info("y", kinds.get("y", FLOAT), None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def make_unique(path: Path) -> None:
    nodes = [
        helper.make_node("Unique", ["x"], ["u", "", "back"], "only_once"),
        helper.make_node("Gather", ["u", "back"], ["f"]),
        helper.make_node("Reshape", ["f", "like"], ["y"]),
    ]
    save(path, nodes, [1, 4], {"like": np.array([1, 4])})


def make_branches(path: Path) -> None:
    """Two branches of different sizes, of which the input says which one runs."""

    def cut(name: str, end: str) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Slice", ["x", "start", end, "axis"], ["cut"]),
            helper.make_node("Relu", ["cut"], [name]),
        ]
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(name, FLOAT, None)])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "limit"], ["flag"]),
        helper.make_node(
            "If", ["flag"], ["part"], "choice", then_branch=cut("a", "two"), else_branch=cut("b", "three")
        ),
        helper.make_node("ReduceSum", ["part", "axis"], ["y"], keepdims=1),
    ]
    ends = {"start": np.array([0]), "two": np.array([2]), "three": np.array([3]), "axis": np.array([1])}
    save(path, nodes, [1, 4], {**ends, "limit": np.float32(0)})


def make_lengths(path: Path) -> None:
    save(path, [helper.make_node("ReduceMean", ["x", "axis"], ["y"])], ["n", "length"], {"axis": np.array([1])})


def make_weightless(path: Path) -> None:
    save(path, [helper.make_node("Relu", ["x"], ["y"])], ["n", 4])


def floats(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


REFUSALS = {
    "an operator": Refusal(
        make=make_unique,
        samples={"x": floats(24, 4)},
        target="tflite-fp32",
        said=r"TFLite cannot express operator Unique \(node only_once\)",
        hint="another runtime",
    ),
    "control flow": Refusal(
        make=make_branches,
        samples={"x": floats(24, 4)},
        target="tflite-fp32",
        said=r"operator If \(node choice\): its branches give outputs of different shapes .* only the inputs say which",
        hint="another runtime",
    ),
    "a length that nothing tells": Refusal(
        make=make_lengths,
        samples={"x": floats(1, 7)},
        target="tflite-fp32",
        said=r"TFLite needs fixed shapes, and x float32 \[n, length\] has dynamic ones",
        hint="give a few samples more",
        cure=("tflite-fp32", {"x": floats(24, 7)}),
    ),
    "nothing to quantize": Refusal(
        make=make_weightless,
        samples={"x": floats(24, 4)},
        target="tflite-fp16",
        said=r"nothing in the model can be quantized to fp16",
        hint="tflite-fp32 takes the model as it is",
        cure=("tflite-fp32", {}),
    ),
    "no samples to calibrate on": Refusal(
        make=make_weightless,
        samples={"x": floats(1, 4)},
        target="tflite-int8",
        said="needs samples to calibrate on",
        hint="give more, 100 or so",
        cure=("tflite-int8", {"x": floats(24, 4)}),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_true_and_its_hint_helps(tmp_path: Path, name: str) -> None:
    refusal = REFUSALS[name]
    refusal.make(tmp_path / "model.onnx")
    np.savez(tmp_path / "samples.npz", **refusal.samples)
    error = refuse(tmp_path, refusal.target)
    assert_says(error, refusal.said, refusal.hint)
    target, samples = refusal.cure
    np.savez(tmp_path / "samples.npz", **{**refusal.samples, **samples})
    built = build_targets(
        tmp_path / "model.onnx", samples=tmp_path / "samples.npz", out=tmp_path / "cured", targets=[target]
    )
    assert set(built.artifacts) == {target}


def refuse(folder: Path, target: str) -> ModelwrightError:
    try:
        built = build_targets(
            folder / "model.onnx", samples=folder / "samples.npz", out=folder / "refused", targets=[target]
        )
    except ModelwrightError as error:
        return error
    (absent,) = built.absent
    return absent.error


def assert_says(error: ModelwrightError, said: str, hint: str) -> None:
    assert re.search(said, error.message), error.message
    assert hint in str(error.hint)
    assert "?" not in error.message, "what is not known is not said to be called so"
