"""What a search writes: sentences that say what was measured, a table no spreadsheet runs, a page nothing gets into."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from modelwright.core.records.codec import encode, read_record
from modelwright.harness.results.record import Environment
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.tuning.cost import SAMPLE_UNIT
from modelwright.harness.tuning.page import render_tuning
from modelwright.harness.tuning.record import Configuration, Final, Trial, Tuning
from modelwright.harness.tuning.schema import describe_tuning
from modelwright.harness.tuning.sizes import rank_sizes
from modelwright.harness.tuning.wording import describe_found, name_cost
from modelwright.harness.tuning.writing import PAGE, RESULT, TABLE, render_trials, write_tuning

START = Configuration(artifact="ort-fp32")
OWN = Configuration(artifact="ort-int8")
CHOSEN = Configuration(artifact="ort-int8", threads=2, options={"spinning": False})
HOSTILE = "</style><script>alert(1)</script>\x1b[31m"


def ratio(low: float, high: float) -> SpeedRatio:
    return SpeedRatio(ratio=(low * high) ** 0.5, ci95=(low, high))


def make(finals: tuple[Final, ...] = (), **changes: Any) -> Tuning:
    trials = (
        Trial(number=0, configuration=START, outcome="start", score=0.0, cost=2.0, rounds=6),
        Trial(number=1, configuration=OWN, outcome="better", incumbent=0, gain=ratio(1.9, 2.1), score=0.7, cost=1.0),
        Trial(number=2, configuration=CHOSEN, outcome="failed", incumbent=1, reason="=HYPERLINK(1)"),
    )
    facts: dict[str, Any] = {
        "timestamp": "2026-11-27T00:00:00+00:00", "source": "m.onnx", "goal": "latency", "unit": "ms",
        "environment": Environment(device="a CPU, 2 cores"), "space": 12, "trials": trials, "stopped": "it ended",
        "sentence": "Said.", "finals": finals,
    }  # fmt: skip
    return Tuning(**(facts | changes))


ROWS = (
    Final(role="start", configuration=START, cost=2.0),
    Final(role="own defaults", configuration=OWN, cost=1.0, over_start=ratio(1.9, 2.1)),
    Final(role="found", configuration=CHOSEN, cost=0.9, over_start=ratio(2.1, 2.3), over_defaults=ratio(1.05, 1.15)),
)


def test_the_winner_is_told_with_both_ratios() -> None:
    told = describe_found(make(ROWS), ROWS[2])
    assert told.startswith("Run ort-int8, 2 threads, spinning=false: 2.20 (2.10-2.30) times as fast as ort-fp32")
    assert "measured anew after the search" in told
    assert "The settings alone are worth 1.10x (1.05-1.15) over ort-int8, 1 thread" in told


def test_the_artifact_without_its_settings() -> None:
    told = describe_found(make(ROWS), ROWS[1])
    assert told.startswith("Run ort-int8, 1 thread: 2.00 (1.90-2.10) times")
    assert told.endswith("No setting of it is faster than the default beyond doubt.")


def test_where_nothing_is_better_the_defaults_are_kept() -> None:
    rows = (ROWS[0], Final(role="found", configuration=CHOSEN, over_start=ratio(0.98, 1.03)))
    told = describe_found(make(rows), rows[0])
    assert "nothing is faster than ort-fp32, 1 thread with the default settings beyond doubt" in told
    assert "came to 1.00x (0.98-1.03)" in told
    assert describe_found(make(), ROWS[0]).startswith("Nothing that was tried is faster than ort-fp32")


def test_where_nothing_was_tried_nothing_is_said_to_be_slower() -> None:
    found = make(trials=make().trials[:1], stopped="the budget of 1s is spent")
    assert describe_found(found, ROWS[0]) == (
        "Nothing but ort-fp32, 1 thread with the default settings was run: the budget of 1s is spent. Give more of it; "
        "the same command goes on."
    )


@pytest.mark.parametrize(
    ("goal", "words"), [("throughput", "times the samples a second of"), ("energy", "for the energy of one with")]
)
def test_each_goal_has_its_words(goal: str, words: str) -> None:
    assert words in describe_found(make(ROWS, goal=goal), ROWS[2])


def test_an_estimate_is_called_one() -> None:
    found = make(ROWS, goal="energy", unit="J", estimated="65 W by the data sheet")
    assert "by an estimate, no meter" in describe_found(found, ROWS[2])
    page = render_tuning(found)
    assert "are estimates (65 W by the data sheet), not measurements" in page
    charts = page.split("<svg")[1:]
    assert charts
    assert all("the start (estimated)" in chart for chart in charts)
    assert page.count("an inference (estimated)") == 2 + len(ROWS), "over both tables, and beside each figure"
    assert [row["unit"] for row in csv.DictReader(io.StringIO(render_trials(found)))] == ["J (estimated)"] * 3
    metered = make(ROWS, goal="energy", unit="J")
    assert "estimate" not in render_tuning(metered) + render_trials(metered)


def test_throughput_is_samples_a_second() -> None:
    found = make(ROWS, goal="throughput", unit=SAMPLE_UNIT)
    page = render_tuning(found)
    assert name_cost(found) == "throughput"
    assert "500 samples/s" in page, "2 ms a sample"
    assert "1000 samples/s" in page
    assert "ms a sample" not in page


def test_the_smallest_is_told_beside_the_others() -> None:
    sizes = {"ort-fp32": 4_000_000, "ort-int8": 1_000_000, "tflite-int8": 2_000_000}
    artifacts: Any = {name: SimpleNamespace(manifest=SimpleNamespace(size_bytes=size)) for name, size in sizes.items()}
    trials, best = rank_sizes(artifacts)
    assert best == OWN
    assert [trial.outcome for trial in trials] == ["start", "better", "not better"]
    assert trials[1].gain == SpeedRatio(ratio=4.0)
    assert trials[2].gain == SpeedRatio(ratio=0.5)
    found = make(goal="size", unit="bytes", trials=trials, best=best)
    assert describe_found(found, Final(role="found", configuration=best)) == (
        "ort-int8 is the smallest, 1.00 MB; ort-fp32 4.00 MB; tflite-int8 2.00 MB."
    )
    page = render_tuning(found)
    assert "3 artifacts; it ended." in page
    assert "nothing is measured for it" in page
    assert "in the same rounds" not in page
    assert "in the same rounds" in render_tuning(make(ROWS))


def test_every_trial_is_a_row_and_none_a_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(render_trials(make()))))
    assert [row["outcome"] for row in rows] == ["start", "better", "failed"]
    assert rows[1]["ratio_low"] == "1.9"
    assert rows[2]["settings"] == "spinning=false"
    assert rows[2]["reason"] == "'=HYPERLINK(1)"


def test_the_page_shows_all_and_lets_nothing_in() -> None:
    page = render_tuning(make(ROWS, source=HOSTILE, notes=(HOSTILE,), best=CHOSEN, changed=True))
    assert "<script" not in page
    assert "\x1b" not in page
    for text in ("Measured anew", "Every trial", "What each setting came to", "2.20x (2.10-2.30)"):
        assert text in page
    drawings = page.split("<svg")[1:]
    assert len(drawings) == 3, "the trials twice, and the artifact; all else is alike in what was measured"
    for drawing in drawings:
        ET.fromstring("<svg" + drawing.split("</svg>")[0] + "</svg>")


def test_a_search_without_a_measured_trial_has_a_page_too() -> None:
    failed = Trial(number=0, configuration=START, outcome="failed", reason="no kernel")
    assert "no kernel" in render_tuning(make(trials=(failed,)))


def test_files_are_read_back(tmp_path: Path) -> None:
    found = make(ROWS, best=CHOSEN)
    write_tuning(tmp_path, found)
    assert {path.name for path in tmp_path.iterdir()} == {RESULT, TABLE, PAGE}
    assert read_record(Tuning, tmp_path / RESULT, what="a search") == found
    assert json.loads((tmp_path / RESULT).read_text())["schema"] == 1


def test_what_is_written_fits_the_schema() -> None:
    schema = describe_tuning()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(encode(make(ROWS, best=CHOSEN)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(encode(make(ROWS)) | {"goal": "beauty"}, schema)
    for name, part in schema["$defs"].items():
        for key, value in part.get("properties", {}).items():
            assert value.get("description"), f"{name}.{key} says nothing"
