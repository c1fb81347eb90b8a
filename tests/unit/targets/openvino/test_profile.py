"""OpenVINO's counters, which are means of all inferences so far, as what one inference took."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.targets.openvino.profile import classify, find_times
from modelwright.targets.profiling import WARM_UPS


def make_layer(kind: str, kernel: str = "ref_any") -> Any:
    facts = {"layerType": kind, "runtimePrecision": "i8", "originalLayersNames": "", "primitiveType": kernel}
    told = {name: SimpleNamespace(get=lambda value=value: value) for name, value in facts.items()}
    return SimpleNamespace(get_rt_info=lambda: told)


def count(times_us: list[list[float]]) -> list[dict[str, float]]:
    """The counters after each inference that counts, in whole microseconds; of layers `0`, `1`, ..."""
    sums = [list(itertools.accumulate(layer)) for layer in times_us]
    return [
        {str(number): float(int(layer[index] / (index + 1))) for number, layer in enumerate(sums)}
        for index in range(WARM_UPS, len(times_us[0]))
    ]


def test_first_inferences_do_not_count() -> None:
    first, others = [9000.0] * WARM_UPS, [100.0] * 50
    times = find_times(count([first + others]), others)
    assert times["0"] == pytest.approx(100, abs=2)


def test_an_interrupted_inference_does_not_count() -> None:
    draw = random.Random(1)
    convolution, softmax = [100.0] * 52, [7.0] * 52
    for index in (9, 30, 31):
        (convolution if draw.random() < 0.5 else softmax)[index] += 20_000
    walls = [a + b for a, b in zip(convolution, softmax, strict=True)][WARM_UPS:]
    times = find_times(count([convolution, softmax]), walls)
    assert times == {"0": pytest.approx(100, abs=5), "1": pytest.approx(7, abs=5)}


def test_a_layer_that_was_not_counted_at_first_took_nothing_then() -> None:
    means = [{"a": 10.0}, {"a": 10.0, "b": 4.0}, {"a": 10.0, "b": 4.0}]
    assert find_times(means, [10.0, 10.0, 10.0])["a"] == pytest.approx(10)
    assert find_times(means, [10.0, 10.0, 10.0])["b"] >= 0


def test_what_holds_branches_has_no_precision_of_its_own() -> None:
    """OpenVINO gives an If the type of its condition: a network in BF16 was said to run in INT8."""

    assert classify(make_layer("If"), {}, frozenset()) == ("other", None)
    assert classify(make_layer("Eltwise"), {}, frozenset()) == ("other", "int8")


@pytest.mark.parametrize(
    ("kernel", "precision"), [("brgemm_avx512_I8", "int8"), ("brgemm_avx512_f32", "fp32"), ("brgemm_amx_bf16", "bf16")]
)
def test_weights_that_are_stored_in_integers_alone_multiply_in_floats(kernel: str, precision: str) -> None:
    """OpenVINO gives a matrix product the type of its weights, also where a float kernel widens them."""
    assert classify(make_layer("FullyConnected", kernel), {}, frozenset()) == ("compute", precision)
