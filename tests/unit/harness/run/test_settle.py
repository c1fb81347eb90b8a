"""How a tuned artifact is run: as it was tuned, unless the user says otherwise; and what is said of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.tuned import Tuned
from modelwright.harness.run import settle as module
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.settle import explain_tuned, explain_unlike, read_settings, settle

EFFORT = get_effort("quick")
HERE = "AMD EPYC, 4 cores"


def make_artifact(target: str = "ort-int8", **tuned: Any) -> Artifact:
    facts = {"goal": "latency", "threads": 2, "options": {"spinning": False}, "ratio": 1.2, "ci95": (1.1, 1.3)}
    more = {"over": "1 thread", "trials": 9, "device": HERE, "versions": {}, "created": "2026-11-27"}
    record = Tuned(**{**facts, **more, **tuned}) if tuned is not None else None
    manifest: Any = SimpleNamespace(target=target, tuned=record)
    return Artifact(directory=Path(target), manifest=manifest, seal="")


def make_plain(target: str = "ort-fp32") -> Artifact:
    manifest: Any = SimpleNamespace(target=target, tuned=None)
    return Artifact(directory=Path(target), manifest=manifest, seal="")


@pytest.fixture(autouse=True)
def _cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "available_cores", lambda: 4)


def told(artifact: Artifact, **asked: Any) -> tuple[int | None, int | None, dict[str, Any]]:
    found = settle(artifact, MeasureSettings(effort=EFFORT, **asked))
    return found.threads, found.requests, dict(found.options[artifact.manifest.target])


def test_an_artifact_runs_as_it_was_tuned() -> None:
    assert told(make_artifact()) == (2, 1, {"spinning": False})
    assert told(make_artifact(threads=1, requests=3)) == (1, 3, {"spinning": False})
    assert told(make_plain()) == (1, 1, {})


def test_what_the_user_says_goes_before_it() -> None:
    assert told(make_artifact(), threads=3) == (3, 1, {"spinning": False})
    options = {"ort-int8": {"spinning": True, "arena": False}}
    assert told(make_artifact(), options=options) == (2, 1, {"spinning": True, "arena": False})
    assert told(make_artifact(), tuned=False) == (1, 1, {})


def test_it_gets_no_more_threads_than_there_are() -> None:
    assert told(make_artifact(threads=64)) == (4, 1, {"spinning": False})
    assert told(make_artifact(threads=2, requests=8)) == (2, 2, {"spinning": False})


def test_settings_that_its_runtime_does_not_have_are_refused() -> None:
    with pytest.raises(BadInputError, match="no setting 'plugin'"):
        told(make_artifact(options={"plugin": "/tmp/x.so"}))
    with pytest.raises(BadInputError, match="no setting 'spinning'"):
        told(make_artifact("openvino-int8"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("spinning", "is no setting"),
        ("spining=true", "none of the targets has a setting 'spining'"),
        ("spinning=maybe", "--setting spinning=maybe: give true or false"),
        ("tflite-int8:xnnpack=true", "is not among the targets"),
        ("openvino-int8:spinning=true", "none of the targets has a setting 'spinning'"),
    ],
)
def test_settings_that_are_none_are_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_settings([text], ["ort-int8", "openvino-int8"])


def test_settings_go_to_the_targets_that_have_them() -> None:
    texts = ["denormals-as-zero=on", "ort-fp32:graph-level=basic"]
    assert read_settings(texts, ["ort-int8", "ort-fp32", "openvino-int8", "unheard-of"]) == {
        "ort-int8": {"denormals-as-zero": True},
        "ort-fp32": {"denormals-as-zero": True, "graph-level": "basic"},
        "openvino-int8": {"denormals-as-zero": True},
    }


def test_it_is_said_where_it_does_not_run_as_it_was_tuned_or_was_tuned_elsewhere() -> None:
    asked = MeasureSettings(effort=EFFORT)
    artifact = make_artifact()
    assert explain_tuned(artifact, settle(artifact, asked), HERE) is None
    assert "another machine" in (explain_tuned(artifact, settle(artifact, asked), "Raspberry Pi 5, 4 cores") or "")
    other = explain_tuned(artifact, settle(artifact, MeasureSettings(effort=EFFORT, threads=1)), HERE)
    assert other == "tuned to run with 2 threads, spinning=false, and measured with 1 thread, spinning=false"
    assert explain_tuned(make_plain(), settle(make_plain(), asked), HERE) is None


def test_it_is_said_where_artifacts_run_differently() -> None:
    asked = MeasureSettings(effort=EFFORT)
    alike = {"a": settle(make_plain(), asked), "b": settle(make_plain("ort-int8"), asked)}
    assert explain_unlike(alike) is None
    sentence = explain_unlike(alike | {"c": settle(make_artifact(), asked)}) or ""
    assert "a, b: 1 thread; c: 2 threads, spinning=false" in sentence
