"""Plans of precisions: written and read as they were, and refused where they say what cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.records.plan import (
    PLAN_FILE,
    BitPlan,
    PlannedLayer,
    read_plan,
    require_layers,
    require_model,
    write_plan,
)

CONV = PlannedLayer(
    output="conv_out", node="/conv", operator="Conv", weight="conv.weight", weight_bits=8, activation_bits=8
)
MATMUL = PlannedLayer(
    output="fc_out", node="/fc", operator="MatMul", weight="fc.weight", weight_bits=4, activation_bits=None,
    group_size=32, simulated=True,
)  # fmt: skip
SCORES = PlannedLayer(output="scores", operator="MatMul", weight=None, weight_bits=None, activation_bits=6)
PLAN = BitPlan(
    onnx_sha256="a" * 64, model="net.onnx", origin="a hand", method="by hand", layers=(CONV, MATMUL, SCORES)
)  # fmt: skip
OPERATORS = {"conv_out": "Conv", "fc_out": "MatMul", "scores": "MatMul"}
WEIGHTS = ("conv.weight", "fc.weight")


def write_changed(folder: Path, place: tuple[Any, ...], value: Any) -> Path:
    """Writes the plan with another value in a place, and returns the file."""
    path = folder / PLAN_FILE
    write_plan(path, PLAN)
    data = json.loads(path.read_text())
    holder = data
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path.write_text(json.dumps(data))
    return path


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_plan(tmp_path / PLAN_FILE, PLAN)
    assert read_plan(tmp_path / PLAN_FILE) == PLAN


def test_what_a_plan_by_hand_may_leave_out(tmp_path: Path) -> None:
    path = tmp_path / "by_hand.json"
    layer = {"output": "y", "operator": "Gemm", "weight": "w", "weight_bits": 8, "activation_bits": None}
    path.write_text(
        json.dumps({"onnx_sha256": "b" * 64, "model": "m", "origin": "a hand", "method": "by hand", "layers": [layer]})
    )
    plan = read_plan(path)
    assert plan.layers[0].granularity == "channel"
    assert plan.layers[0].group_size is None
    assert not plan.layers[0].simulated


def test_bits_are_told_in_words() -> None:
    assert CONV.describe() == "8-bit weights, 8-bit activations"
    assert MATMUL.describe() == "4-bit weights, float activations"
    assert SCORES.describe() == "6-bit activations"
    assert replace(CONV, weight_bits=None, activation_bits=None).describe() == "float"
    two = replace(PLAN, layers=(CONV, replace(CONV, output="other")))
    assert two.summarize() == "2 layers: 2 with 8-bit weights, 8-bit activations"


@pytest.mark.parametrize(
    ("place", "value", "key", "expected"),
    [
        (("layers", 0, "weight_bits"), 9, "layers[0].weight_bits", "from 2 to 8"),
        (("layers", 0, "weight_bits"), 1, "layers[0].weight_bits", "from 2 to 8"),
        (("layers", 0, "activation_bits"), "8", "layers[0].activation_bits", "from 2 to 8"),
        (("layers", 0, "activation_bits"), 8.5, "layers[0].activation_bits", "from 2 to 8"),
        (("layers", 0, "granularity"), "row", "layers[0].granularity", "channel, tensor"),
        (("layers", 1, "group_size"), 0, "layers[1].group_size", "from 2 to"),
        (("layers", 0, "output"), "", "layers[0].output", "1 to 1000"),
        (("layers", 0, "output"), "x" * 2000, "layers[0].output", "1 to 1000"),
        (("layers",), [], "layers", ""),
        (("layers", 0, "bits"), 8, "layers[0].bits", "unknown key"),
        (("schema",), 2, "schema", ""),
        (("onnx_sha256",), "abc", "onnx_sha256", "SHA-256"),
        (("layers", 2, "weight_bits"), 8, "layers[2].weight_bits", "has no weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, place: tuple[Any, ...], value: Any, key: str, expected: str) -> None:
    path = write_changed(tmp_path, place, value)
    with pytest.raises(BadInputError) as caught:
        read_plan(path)
    assert str(path) in caught.value.message
    assert key in caught.value.message
    assert expected in caught.value.message


def test_a_layer_is_planned_once(tmp_path: Path) -> None:
    path = write_changed(tmp_path, ("layers", 1, "output"), "conv_out")
    with pytest.raises(BadInputError, match=r"'conv_out' is there more than once"):
        read_plan(path)


def test_the_folder_of_a_plan_is_told_the_file(tmp_path: Path) -> None:
    write_plan(tmp_path / PLAN_FILE, PLAN)
    with pytest.raises(BadInputError) as caught:
        read_plan(tmp_path)
    assert caught.value.hint == f"give {tmp_path / PLAN_FILE}"


def test_another_result_of_a_mix_is_told_the_plan_beside_it(tmp_path: Path) -> None:
    write_plan(tmp_path / PLAN_FILE, PLAN)
    other = tmp_path / "mix.json"
    other.write_text('{"layers": []}')
    with pytest.raises(BadInputError, match=r"mix\.json") as caught:
        read_plan(other)
    assert str(caught.value.hint).endswith(f"a plan beside it: {tmp_path / PLAN_FILE}")


@pytest.mark.parametrize("text", ["[]", "{", '{"layers": NaN}', "[" * 10_000])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / PLAN_FILE
    path.write_text(text)
    with pytest.raises(BadInputError, match=PLAN_FILE):
        read_plan(path)


def test_a_plan_is_for_one_model() -> None:
    require_model(PLAN, Path("plan.json"), "a" * 64)
    with pytest.raises(BadInputError, match=r"is for another model: net\.onnx \(aaaaaaaaaaaa\.\.\.\)"):
        require_model(PLAN, Path("plan.json"), "c" * 64)


def test_layers_that_the_model_has_not_are_refused() -> None:
    require_layers(PLAN, OPERATORS, WEIGHTS)
    with pytest.raises(BadInputError, match=r"layers\[1\]\.output: .* no node that gives 'fc_out'") as caught:
        require_layers(PLAN, {"conv_out": "Conv", "fc_output": "MatMul", "scores": "MatMul"}, WEIGHTS)
    assert "did you mean fc_output" in str(caught.value.hint)
    with pytest.raises(BadInputError, match=r"layers\[1\]\.operator: 'fc_out' comes from Gemm, not from MatMul"):
        require_layers(PLAN, OPERATORS | {"fc_out": "Gemm"}, WEIGHTS)
    with pytest.raises(BadInputError, match=r"layers\[1\]\.weight: the model has no constant 'fc\.weight'"):
        require_layers(PLAN, OPERATORS, ("conv.weight",))
