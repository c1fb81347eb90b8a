"""The rules of the verdict, on documents whose answer is known."""

import math
from typing import Any

import documents
import pytest

from modelwright.harness.results.speed import Speeds
from modelwright.harness.results.statistics import SpeedRatio

judge, make_row, make_document = documents.judge, documents.make_row, documents.make_document


def pair(ratio: float, **changes: Any) -> dict[str, Any]:
    """FP32 and an INT8 that runs `ratio` times as fast."""
    fields = {"accuracy": 0.99, "agreement": 1.0, "size_bytes": 6_000_000} | changes
    spread = fields.pop("spread", 0.01)
    return make_document(
        [
            make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=10, accuracy=0.99, agreement=1.0),
            make_row("ort-int8", "ONNX Runtime INT8", latency_ms=10 / ratio, ratio=ratio, spread=spread, **fields),
        ],
        count=1000,
        labels=fields["accuracy"] is not None,
    )


def test_int8_wins_where_it_is_fastest_among_those_that_keep_the_accuracy() -> None:
    verdict = judge(documents.images())
    assert verdict.ship == "openvino-int8"
    assert verdict.pareto == ("tflite-int8", "openvino-int8")
    assert verdict.order[:3] == ("tflite-int8", "openvino-int8", "openvino-bf16")
    assert verdict.order[-1] == "ort-int8-dynamic"
    assert verdict.quality == "accuracy"
    assert "Ship OpenVINO INT8: 4.60 times as fast as ONNX Runtime FP32" in verdict.sentence
    assert "accuracy unchanged (98.9 %)" in verdict.sentence
    assert "loses 4.2 points of accuracy (15 of 360 samples)" in verdict.sentence
    assert ("tflite-fp16", "tflite-fp32") in verdict.indistinguishable


def test_a_float_of_the_same_speed_beats_int8() -> None:
    verdict = judge(documents.transformer())
    assert verdict.ship == "openvino-bf16"
    assert verdict.pareto == ("openvino-bf16",)
    assert "OpenVINO BF16 is as fast as INT8 here and loses nothing." in verdict.sentence
    assert verdict.indistinguishable == (("openvino-int8", "openvino-bf16"),)
    assert verdict.order[-2:] == ("tensorrt-fp16", "tflite-int8")
    assert any(text.startswith("OpenVINO INT8 is not faster than BF16 here") for text in verdict.warnings)
    slow = next(text for text in verdict.warnings if text.startswith("ONNX Runtime INT8 is slower than FP32"))
    assert "0.82 of its speed" in slow
    assert any("agreement 81.0 %" in text for text in verdict.warnings)


def test_a_float_ships_even_where_int8_of_the_same_speed_and_quality_is_smaller() -> None:
    document = pair(3.0)
    document["measurements"].append(
        make_row("ort-fp16", "ONNX Runtime FP16", latency_ms=10 / 3, ratio=3.0, accuracy=0.99, agreement=1.0)
    )
    verdict = judge(document)
    assert verdict.ship == "ort-fp16"
    assert "ONNX Runtime FP16 is as fast as INT8 here and loses nothing." in verdict.sentence


def test_one_sample_is_no_loss() -> None:
    one = judge(pair(2.0, accuracy=0.989))
    assert one.pareto == ("ort-int8",), "FP32 is slower and better by one sample only: a tie"
    assert "1 of 1000 samples fewer than FP32" in one.sentence
    five = judge(pair(2.0, accuracy=0.985))
    assert five.pareto == ("ort-int8", "ort-fp32")
    assert five.ship == "ort-int8", "half a point may be lost"


@pytest.mark.parametrize(("accuracy", "ship"), [(0.98, "ort-int8"), (0.979, "ort-fp32")])
def test_a_point_of_accuracy_is_the_limit(accuracy: float, ship: str) -> None:
    assert judge(pair(2.0, accuracy=accuracy)).ship == ship


@pytest.mark.parametrize(
    ("agreement", "ship", "relaxed"),
    [(0.99, "ort-int8", False), (0.985, "ort-int8", True), (0.979, "ort-fp32", False)],
)
def test_without_labels_the_agreement_decides(agreement: float, ship: str, relaxed: bool) -> None:
    document = pair(2.0, accuracy=None, agreement=agreement)
    document["measurements"][0]["accuracy"] = None
    verdict = judge(document)
    assert verdict.quality == "agreement"
    assert verdict.ship == ship
    assert any("lowered to 98 %" in text for text in verdict.warnings) is relaxed


def test_equal_accuracy_with_other_answers_is_not_shipped() -> None:
    assert judge(pair(2.0, agreement=0.89)).ship == "ort-fp32"
    assert judge(pair(2.0, agreement=0.90)).ship == "ort-int8"


@pytest.mark.parametrize(("asked", "ship"), [({}, "ort-fp32"), ({"max_drop": 3.0}, "ort-int8")])
def test_who_says_what_may_be_lost_is_held_to_no_other_loss(asked: dict[str, float], ship: str) -> None:
    lost = {"by": "accuracy", "measure": "accuracy", "fp32": 0.99, "artifact": 0.97, "points": 2.0, "count": 1000}
    assert judge(pair(2.0, accuracy=0.97, drop=lost) | {"limits": asked}).ship == ship


def test_a_metric_of_the_users_is_in_the_sentence() -> None:
    lost = {"by": "metric", "measure": "m.py:map", "fp32": 0.374, "artifact": 0.371, "points": 0.3, "count": 1000}
    verdict = judge(pair(2.0, agreement=0.97, drop=lost) | {"limits": {"max_drop": 0.5}})
    assert verdict.ship == "ort-int8"
    assert "m.py:map 0.371 (FP32 0.374)" in verdict.sentence


def test_what_misses_a_limit_is_not_shipped() -> None:
    verdict = judge(pair(2.0, limits_missed=["size 6 MB is over 5"]))
    assert verdict.ship == "ort-fp32"
    assert "Ship ONNX Runtime FP32" in verdict.sentence
    assert "ONNX Runtime INT8 is faster" in verdict.sentence


def test_fp32_is_shipped_when_nothing_is_faster_and_the_smaller_one_is_named() -> None:
    verdict = judge(pair(1.0))
    assert verdict.ship == "ort-fp32"
    assert "nothing measured here is faster" in verdict.sentence
    assert "ONNX Runtime INT8 is as fast and smaller (6.00 MB instead of 23.4 MB)" in verdict.sentence


@pytest.mark.parametrize(
    ("ratio", "ci95", "same", "faster"),
    [
        (1.5, (0.9, 2.5), True, False),
        (1.01, (1.005, 1.015), True, False),
        (1.015, (1.005, 1.03), False, True),
        (0.5, (0.4, 0.6), False, False),
        (1.019, None, True, False),
        (1.03, None, False, True),
    ],
)
def test_same_speed(ratio: float, ci95: tuple[float, float] | None, same: bool, faster: bool) -> None:
    found = SpeedRatio(ratio=ratio, ci95=ci95)
    assert (found.is_same, found.is_faster) == (same, faster)


def test_pairs_are_compared_within_rounds() -> None:
    """Each round is disturbed by up to 8 times; only paired by round do the two differ by exactly 5 %."""
    noise = [math.log(1 + 7 * (index % 5) / 4) for index in range(25)]
    document = make_document(
        [
            make_row("ort-fp32", "A", latency_ms=3.0),
            make_row(
                "openvino-bf16", "B", latency_ms=1.0, round_log_ratios=[value + math.log(1.05) for value in noise]
            ),
            make_row("openvino-int8", "C", latency_ms=0.5, round_log_ratios=noise),
        ]
    )
    comparison = documents.read(document)
    fast, slow = comparison.find("openvino-bf16"), comparison.find("openvino-int8")
    assert fast is not None
    assert slow is not None
    found = Speeds(comparison).ratio(fast, slow)
    assert found is not None
    assert found.ratio == pytest.approx(1.05)
    assert found.ci95 == pytest.approx((1.05, 1.05), rel=0.016), "what a single process differs by is left"


def test_rounds_are_matched_by_their_number() -> None:
    """The second target missed round 0; matched by position instead, the ratios would be wild."""
    logs = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    document = make_document(
        [
            make_row("ort-fp32", "A", latency_ms=1.0, rounds=6) | {"rounds": [0, 1, 2, 3, 4, 5]},
            make_row("x-fp16", "B", latency_ms=1.0) | {"round_log_ratios": logs, "rounds": [0, 1, 2, 3, 4, 5]},
            make_row("y-fp16", "C", latency_ms=1.0) | {"round_log_ratios": logs[1:], "rounds": [1, 2, 3, 4, 5]},
        ]
    )
    comparison = documents.read(document)
    found = Speeds(comparison).ratio(comparison.measurements[1], comparison.measurements[2])
    assert found is not None
    assert found.ratio == 1.0
    assert found.ci95 == pytest.approx((1.0, 1.0), abs=0.02)


def test_pairs_know_the_launch_of_each_round() -> None:
    """In launches of their own the two differ by 0, 10 and 20 %: three observations, not thirty."""
    rounds = {"rounds": list(range(30)), "launches": [index // 10 for index in range(30)]}
    logs = [0.1 * (index // 10) for index in range(30)]
    document = make_document(
        [
            make_row("ort-fp32", "A", latency_ms=1.0) | rounds,
            make_row("x-fp16", "B", latency_ms=1.0) | rounds | {"round_log_ratios": logs},
            make_row("y-fp16", "C", latency_ms=1.0) | rounds | {"round_log_ratios": [0.0] * 30},
        ]
    )
    comparison = documents.read(document)
    found = Speeds(comparison).ratio(comparison.measurements[1], comparison.measurements[2])
    assert found is not None
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.ci95 is not None
    half = 2.776 * math.sqrt((2 * 0.01 + 2 * 5e-5) / 4 / 3)
    assert found.ci95 == pytest.approx((math.exp(0.1 - half), math.exp(0.1 + half)))


def test_interval_covers_the_truth() -> None:
    """With scatter of 10 % over 25 rounds the interval of the median is about 9 % wide, and contains the ratio."""
    document = pair(1.5, spread=0.1)
    document["measurements"][1]["speedup"] = None
    comparison = documents.read(document)
    found = Speeds(comparison).ratio(comparison.measurements[1], comparison.measurements[0])
    assert found is not None
    assert found.ci95 is not None
    low, high = found.ci95
    assert low < 1.5 < high
    assert 1.03 < high / low < 1.25


def test_verdict_is_the_same_every_time() -> None:
    assert judge(documents.images()) == judge(documents.images())


def test_one_target() -> None:
    verdict = judge(documents.single())
    assert verdict.ship == "ort-fp32"
    assert "only target that was measured" in verdict.sentence
    assert verdict.indistinguishable == ()


def test_nothing_measured() -> None:
    rows = [documents.make_unmeasured("ort-fp32", "A", "failed", "crash")]
    verdict = judge(make_document(rows))
    assert verdict.ship is None
    assert verdict.sentence == "Nothing was measured, so there is nothing to recommend (1 failed)."
    assert judge(make_document([])).ship is None


def test_without_any_quality_only_fp32_is_shipped() -> None:
    document = pair(2.0, accuracy=None, agreement=None)
    document["measurements"][0] |= {"accuracy": None, "agreement": None}
    verdict = judge(document)
    assert verdict.quality is None
    assert verdict.ship == "ort-fp32"
    assert any("No quality figure" in text for text in verdict.warnings)


def test_without_the_baseline_the_fastest_of_quality_is_shipped() -> None:
    document = pair(2.0)
    document["measurements"][0] = documents.make_unmeasured("ort-fp32", "A", "failed", "crash")
    assert judge(document).ship == "ort-int8"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("samples", "random"), True, "random numbers"),
        (("samples", "evaluation", "count"), 40, "judged on 40 samples only: one sample is 2.5 points"),
        (("settings", "rounds"), 5, "Only 5 rounds were measured, in one launch"),
        (("environment", "virtual_machine"), True, "virtual machine"),
    ],
)
def test_cautions(path: tuple[str, ...], value: object, words: str) -> None:
    document = pair(2.0)
    document["environment"]["virtual_machine"] = False
    assert not any(words in text for text in judge(document).warnings)
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert any(words in text for text in judge(document).warnings)


@pytest.mark.parametrize(("mean", "told"), [(2.3, False), (3.0, True), (8.0, True)])
def test_a_speed_up_that_interruptions_made_is_told(mean: float, told: bool) -> None:
    """Of 10 ms nearly every inference is interrupted, and its median shows it; of 2 ms one in three."""
    document = pair(5.0)
    document["environment"]["virtual_machine"] = True
    slow, fast = document["measurements"]
    slow["latency_ms"] |= {"mean": 10.5, "p50": 10.0}
    fast["latency_ms"] |= {"mean": mean, "p50": 2.0}
    warnings = judge(document).warnings
    found = [text for text in warnings if text.startswith("Other processes had the processor")]
    assert len(found) == told
    assert any("speed-ups were measured in turns and hold" in text for text in warnings) is not told
    if told:
        assert f"ONNX Runtime INT8 took {mean / 2:.1f} times its median, one of ONNX Runtime FP32 1.1 times" in found[0]
        assert f"ONNX Runtime INT8 is {10.5 / mean:.2f} times as fast as ONNX Runtime FP32, not 5.00 times" in found[0]


def test_energy_caution_only_for_estimates() -> None:
    assert any("estimates" in text for text in judge(pair(2.0)).warnings)
    document = pair(2.0)
    for row in document["measurements"]:
        row["energy"]["source"] = "measured:rapl"
    assert not any("estimates" in text for text in judge(document).warnings)


def test_a_float_that_ran_in_another_precision_is_named() -> None:
    document = pair(2.0)
    document["measurements"][0]["precision_executed"] = {"precision": "bf16"}
    assert any("ONNX Runtime FP32 ran in BF16" in text for text in judge(document).warnings)


@pytest.mark.parametrize(
    ("sets", "executed", "words"),
    [
        (["avx2"], "int8", "no INT8 dot product"),
        (["avx512_vnni"], "f32", "ran it in FP32"),
        ([], "int8", "does not fuse"),
    ],
)
def test_slow_int8_is_explained(sets: list[str], executed: str, words: str) -> None:
    document = pair(0.7, precision_executed={"precision": executed})
    document["environment"]["instruction_sets"] = sets
    assert any("slower than FP32" in text and words in text for text in judge(document).warnings)


# Several models: another one has answers of its own.


FOLLOWED = {
    "name": "y",
    "is_float": True,
    "cosine_mean": 0.9,
    "cosine_min": 0.5,
    "max_abs_error": 1.0,
    "relative_l2_error": 0.4,
    "r_squared": 0.8,
    "equal_share": None,
    "nonfinite": 0,
    "reference_nonfinite": 0,
    "shape_fault": None,
    "layout": None,
    "is_constant": False,
}


def of_two(count: int, *, agreement: float, accuracy: float, **changes: Any) -> dict[str, Any]:
    """A teacher, and a student of three times its speed."""
    outputs = [FOLLOWED] * changes.pop("outputs", 1)
    fidelity = documents.make_fidelity(count, outputs, agreement)
    rows = [
        make_row("teacher/ort-fp32", "FP32 of teacher", latency_ms=9, accuracy=0.85, agreement=1.0),
        make_row(
            "student/ort-fp32", "FP32 of student", latency_ms=3, ratio=3.0, accuracy=accuracy, agreement=agreement,
            fidelity=fidelity,
        ),
    ]  # fmt: skip
    names = ["teacher", "student"]
    for row, name in zip(rows, names, strict=True):
        row |= {"variant": name, "precision": "fp32", "runtime": "ort", "is_float": True}
    source = make_document([])["source"]
    return make_document(
        rows, count=count, labels=True, baseline="teacher/ort-fp32",
        variants=[{"name": name, "source": source, "macs": 1000.0} for name in names], **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "accuracy", "agreement", "ship"),
    [
        (1000, 0.85, 0.87, "student"),  # 1.96 * sqrt(0.13 / 1000) = 2.2 points
        (1000, 0.845, 0.87, "student"),
        (1000, 0.835, 0.87, "teacher"),  # a point and a half is lost
        (100, 0.85, 0.87, "teacher"),  # 7.1 points: chance decides
        (100, 0.85, 0.95, "student"),  # most answers are the teacher's
        (100, 1.0, 0.87, "teacher"),
    ],
)
def test_another_model_ships_by_labels_that_are_enough(
    count: int, accuracy: float, agreement: float, ship: str
) -> None:
    verdict = judge(of_two(count, accuracy=accuracy, agreement=agreement))
    assert verdict.ship == f"{ship}/ort-fp32"


def test_what_chance_may_make_of_another_model_is_said() -> None:
    shipped = judge(of_two(1000, accuracy=0.847, agreement=0.87)).sentence
    assert "3 of 1000 samples fewer than FP32 (on as many others the difference may be 2.2 points another)" in shipped
    refused = judge(of_two(100, accuracy=0.85, agreement=0.87)).sentence
    assert (
        "FP32 of student is faster (3.00 times) but gives other answers on 100 samples so often that its accuracy "
        in (refused)
    )
    assert "7.1 points off by chance" in refused


def test_labels_of_one_output_say_nothing_of_the_others() -> None:
    assert judge(of_two(1000, accuracy=0.85, agreement=0.87, outputs=2)).ship == "teacher/ort-fp32"


def test_only_the_first_models_fp32_is_what_others_are_held_against() -> None:
    """The fastest FP32 that was measured was taken, and shipped whatever it answers, where the baseline has none."""
    document = of_two(1000, accuracy=0.2, agreement=0.2)
    document["measurements"][0] |= {"precision": "int8", "is_float": False}
    assert judge(document).ship == "teacher/ort-fp32"
    document = of_two(1000, accuracy=0.2, agreement=0.2)
    lost = documents.make_unmeasured("teacher/ort-fp32", "A", "failed", "crash") | {"variant": "teacher"}
    document["measurements"] = [lost, document["measurements"][1] | {"accuracy_fp32": 0.85}]
    assert judge(document).ship is None
