"""Why INT8 does not pay, from profiles with known answers."""

from __future__ import annotations

from typing import Any

import documents
import pytest

from modelwright.core.onnx.quantized import OWN_SCALES
from modelwright.core.records.codec import encode
from modelwright.core.records.operators import OperatorProfile, Remedy
from modelwright.targets.profiling import TimedOperator, make_profile

REMEDIES = {
    "HardSwish": Remedy(
        type="HardSwish", reason="has no integer kernel", change="replace HardSwish by Relu before training"
    ),
    "LayerNormalization": Remedy(type="LayerNormalization", reason="has no integer kernel"),
}


def profile(*rows: tuple[str, str, str | None, int, float], between_us: float = 0.0) -> OperatorProfile:
    """Of (type, kind, precision, how many, what each takes)."""
    operators = [
        TimedOperator(
            name=f"{kind}{n}",
            type=name,
            kind=kind,
            precision=precision,
            nodes=(f"{name}_{n}",),
            times_us=[time_us],  # type: ignore[arg-type]
        )
        for name, kind, precision, count, time_us in rows
        for n in range(count)
    ]
    total_us = sum(count * time_us for _, _, _, count, time_us in rows)
    return make_profile("a script", operators, [total_us + between_us], REMEDIES)


FP32 = profile(("Conv", "compute", "fp32", 10, 90), ("HardSwish", "other", "fp32", 10, 10))
ISLANDS = profile(
    ("QLinearConv", "compute", "int8", 10, 40),
    ("HardSwish", "other", "fp32", 10, 40),
    ("QuantizeLinear", "conversion", None, 10, 12),
    ("DequantizeLinear", "conversion", None, 10, 8),
)


def warnings(ratio: float, int8: OperatorProfile | None, fp32: OperatorProfile | None = FP32, **more: Any) -> list[str]:
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0, operators=encode(fp32)),
        documents.make_row(
            "ort-int8", "ONNX Runtime INT8", latency_ms=1 / ratio, ratio=ratio, agreement=1.0, operators=encode(int8),
            **more,
        ),
    ]  # fmt: skip
    return [text for text in documents.judge(documents.make_document(rows)).warnings if "INT8" in text]


def test_islands_and_conversions_are_named_with_the_cure() -> None:
    (text,) = warnings(0.9, ISLANDS)
    assert "slower than FP32: it runs at 0.90 of its speed" in text
    assert (
        "INT8 does not pay because 40 % of its time goes into 10 HardSwish in FP32 and 20 % into 20 conversions of "
        "types and layouts (QuantizeLinear and DequantizeLinear)"
    ) in text
    assert "HardSwish has no integer kernel: replace HardSwish by Relu before training." in text
    assert "most likely" not in text.lower()


def test_what_could_be_reached_at_most_is_told_where_it_is_little() -> None:
    # 60 % of the time is no integers: without the rest it would be 0.6 / 0.6 times as fast.
    (text,) = warnings(0.6, ISLANDS)
    assert "if its integer operators took no time at all, it would be 1.00 times as fast as ONNX Runtime FP32" in text
    (text,) = warnings(0.9, ISLANDS)
    assert "no time at all" not in text


def test_kernels_that_are_no_faster_are_told_by_shares() -> None:
    # 90 % of FP32's time against 80 % of INT8's, at 0.7 of the speed: 0.7 * 0.9 / 0.8.
    int8 = profile(("QLinearConv", "compute", "int8", 8, 100), ("HardSwish", "other", "fp32", 2, 100))
    (text,) = warnings(0.7, int8)
    assert "its convolutions and matrix products run at about 0.79 of their speed in FP32" in text


def test_an_artifact_that_is_all_integers_is_not_complained_of() -> None:
    whole = profile(("QLinearConv", "compute", "int8", 10, 100), ("QuantizeLinear", "conversion", None, 1, 10))
    assert warnings(2.5, whole) == []
    assert warnings(1.5, whole) == [], "it is faster, and nothing in it could be"
    (text,) = warnings(1.0, whole, profile(("Conv", "compute", "fp32", 10, 100)))
    assert "does not fuse" in text, "the profile blames nothing, so the likely causes stand"


@pytest.mark.parametrize(("ratio", "told"), [(1.3, True), (1.9, True), (2.1, False)])
def test_a_small_gain_is_explained_where_integers_are_not_most_of_the_time(ratio: float, told: bool) -> None:
    found = warnings(ratio, ISLANDS)
    assert bool(found) == told
    if told:
        assert f"is only {ratio:.2f} times as fast as FP32" in found[0]
        assert "INT8 gains little because 40 % of its time" in found[0]


def test_layers_that_a_recipe_keeps_are_named_by_their_nodes() -> None:
    int8 = profile(("QLinearConv", "compute", "int8", 5, 10), ("Conv", "compute", "fp32", 2, 100))
    (text,) = warnings(0.9, int8)
    assert "The recipe leaves 2 Conv in floats (Conv_0 and Conv_1)." in text
    (text,) = warnings(0.9, int8, recipe={"method": OWN_SCALES})
    assert "The model's own scales leave 2 Conv in floats (Conv_0 and Conv_1)." in text, "no recipe decided anything"
    (text,) = warnings(0.9, int8, settings={"threads": 1, "options": {"graph-level": "disabled", "spinning": False}})
    assert "With graph-level=disabled the runtime leaves 2 Conv in floats (Conv_0 and Conv_1)." in text
    (text,) = warnings(0.9, int8, settings={"threads": 1, "options": {"spinning": False}})
    assert "The recipe leaves 2 Conv" in text, "how threads wait changes nothing of what runs"


def test_what_nothing_is_known_against_is_named_all_the_same() -> None:
    int8 = profile(("MatMulInteger", "compute", "int8", 5, 10), ("LayerNormalization", "other", "fp32", 2, 100))
    (text,) = warnings(0.9, int8)
    assert "LayerNormalization has no integer kernel." in text


def test_operators_too_small_to_be_called_are_told() -> None:
    small = profile(("QLinearConv", "compute", "int8", 40, 2.0), between_us=60.0)
    (text,) = warnings(0.9, small, None)
    assert "its 40 operators take 2.0 µs each, about as long as it takes to call them" in text
    large = profile(("QLinearConv", "compute", "int8", 40, 200.0), between_us=60.0)
    assert "to call them" not in warnings(0.9, large, None)[0]


def test_where_another_int8_pays_it_is_named() -> None:
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0, operators=encode(FP32)),
        documents.make_row("ort-int8", "ONNX Runtime INT8", latency_ms=1.2, ratio=0.8, agreement=1.0,
                           operators=encode(ISLANDS)),
        documents.make_row("openvino-int8", "OpenVINO INT8", latency_ms=0.5, ratio=2.0, agreement=1.0),
    ]  # fmt: skip
    text = next(text for text in documents.judge(documents.make_document(rows)).warnings if "does not pay" in text)
    assert "OpenVINO INT8 does pay here: it is 2.00 times as fast as ONNX Runtime FP32." in text


def test_what_does_not_pay_in_its_own_runtime_is_no_cure() -> None:
    """It beats another runtime's FP32; the sentence before has just said that it does not pay."""
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0, operators=encode(FP32)),
        documents.make_row("ort-int8", "ONNX Runtime INT8", latency_ms=1.2, ratio=0.8, agreement=1.0,
                           operators=encode(ISLANDS)),
        documents.make_row("openvino-bf16", "OpenVINO BF16", latency_ms=0.4, ratio=2.5, agreement=1.0),
        documents.make_row("openvino-int8", "OpenVINO INT8", latency_ms=0.5, ratio=2.0, agreement=1.0),
    ]  # fmt: skip
    told = documents.judge(documents.make_document(rows)).warnings
    assert not any("OpenVINO INT8 does pay" in text for text in told), told


def test_int8_without_a_float_of_its_runtime_is_held_against_fp32() -> None:
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0),
        documents.make_row("tflite-int8", "TFLite INT8", latency_ms=1.4, ratio=0.7, agreement=1.0,
                           operators=encode(ISLANDS)),
    ]  # fmt: skip
    text = next(text for text in documents.judge(documents.make_document(rows)).warnings if "does not pay" in text)
    assert "TFLite INT8 is slower than ONNX Runtime FP32: it runs at 0.70 of its speed" in text
    assert "of their speed in FP32" not in text, "operators of two runtimes are not compared"


def test_floats_that_are_meant_to_be_are_no_islands() -> None:
    """Of weights alone in integers: what multiplies is float on purpose."""
    floats = profile(("MatMulNBits", "compute", "fp32", 10, 90))
    (text,) = warnings(0.9, floats, precision="int8-weights")
    assert "in FP32" not in text


@pytest.mark.parametrize("target", ["ort-int8-weights", "ort-int4-weights"])
def test_weights_alone_are_not_said_to_lack_kernels(target: str) -> None:
    """They are multiplied in floats on purpose."""
    rows = [
        documents.make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0, operators=encode(FP32)),
        documents.make_row(target, "ONNX Runtime weights", latency_ms=1.2, ratio=0.8, agreement=1.0,
                           operators=encode(FP32)),
    ]  # fmt: skip
    told = [text for text in documents.judge(documents.make_document(rows)).warnings if "weights is slower" in text]
    assert len(told) == 1
    assert "save time only where a model waits for its weights" in told[0]
    assert "kernel" not in told[0]
