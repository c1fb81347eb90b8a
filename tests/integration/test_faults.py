"""Whatever is raised, wherever: a row or a sentence with its reason, and everything finished is kept and written."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pytest

from modelwright.cli.printing import progress_of_a_comparison
from modelwright.core.errors import BuildFailedError, ModelwrightError
from modelwright.harness import building, compare, comparing, measure, request, writing
from modelwright.harness.meters.host_energy import Meter
from modelwright.harness.results import assemble
from modelwright.harness.results.file import read_results
from modelwright.harness.results.record import Comparison, Measurement
from modelwright.harness.run import measure_artifacts
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.runner import ArtifactRunner
from modelwright.harness.run.told import Executed
from modelwright.harness.verdict import judge
from modelwright.targets.building import build

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)

VICTIM = "ort-int8"
EFFORT = Effort(name="test", rounds=6, window_s=0.005)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    models.make_cnn(folder / "cnn.onnx")
    models.make_samples(folder / "samples.npz", count=32, x=(3, 12, 12))
    return folder


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "get_effort", lambda _name: EFFORT)
    monkeypatch.setattr("modelwright.harness.measuring.get_effort", lambda _name: EFFORT)
    # Profiles are taken when all else is over, of each artifact in one more process; none of these faults is theirs.
    monkeypatch.setattr(measure_artifacts, "_profile", lambda *_: None)


def run(place: Path, out: str = "out") -> Comparison:
    return compare(place / "cnn.onnx", samples=place / "samples.npz", out=place / out, targets=["ort-fp32", VICTIM])


def rows_of(place: Path, out: str = "out") -> dict[str, Measurement]:
    return {row.target: row for row in read_results(place / out / "results.json").measurements}


def raising(error: Exception, when: Callable[..., bool], act: Callable[..., Any]) -> Callable[..., Any]:
    def raises(*arguments: Any, **options: Any) -> Any:
        if when(*arguments):
            raise error
        return act(*arguments, **options)

    return raises


def is_victim(*arguments: Any) -> bool:
    """Whether one of the arguments is the victim's name, its runner or its target."""
    named = (getattr(argument, "name", argument) for argument in arguments)
    records = (getattr(getattr(argument, "record", None), "name", None) for argument in arguments)
    return any(isinstance(name, str) and name == VICTIM for name in (*named, *records))


PHASES = {
    "build": (building, "build"),
    "prove": (build, "prove"),
    "hindrance": (building, "find_hindrance"),
    "check": (measure_artifacts, "require_runnable"),
    "load": (ArtifactRunner, "open"),
    "window": (ArtifactRunner, "run_window"),
    "finish": (ArtifactRunner, "finish"),
    "gpu": (ArtifactRunner, "describe_gpu"),
    "assemble": (assemble, "_describe_row"),
}


@pytest.mark.parametrize(
    ("phase", "error"),
    [
        *((phase, KeyError("shape")) for phase in PHASES),
        ("prove", MemoryError()),
        ("window", OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_fault_costs_the_row_that_it_befell(
    place: Path, phase: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name = PHASES[phase]
    monkeypatch.setattr(owner, name, raising(error, is_victim, getattr(owner, name)))
    out = f"{phase}-{type(error).__name__}" if phase in ("prove", "build", "hindrance") else "out"
    comparison = run(place, out)
    rows = rows_of(place, out)
    assert rows["ort-fp32"].measured
    assert rows[VICTIM].status == "failed"
    said = {KeyError: "KeyError: 'shape'", MemoryError: "not enough memory", OSError: "no space left"}
    assert said[type(error)] in (rows[VICTIM].reason or "")
    assert rows[VICTIM].exit_code == (1 if isinstance(error, KeyError) else 5)
    if isinstance(error, KeyError):
        assert rows[VICTIM].hint == "this is a fault of modelwright: please report it with the lines above"
        assert "Traceback" in (rows[VICTIM].detail or "")
    assert comparison.verdict is not None
    assert comparison.verdict.ship == "ort-fp32"
    assert (place / out / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("value", [float("nan"), pytest.param(object(), marks=pytest.mark.slow), {1j}])
def test_a_row_that_cannot_be_written_is_a_failed_row(
    place: Path, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = ArtifactRunner.finish

    def tell_nonsense(runner: ArtifactRunner) -> Any:
        told = finish(runner)
        return type(told)(
            peak_memory_bytes=1,
            steady_memory_bytes=1,
            precision_executed=Executed(facts={"x": value}) if runner.name == VICTIM else told.precision_executed,
        )

    monkeypatch.setattr(ArtifactRunner, "finish", tell_nonsense)
    run(place)
    rows = rows_of(place)
    assert rows["ort-fp32"].measured
    assert rows[VICTIM].status == "failed"
    assert f"describing {VICTIM} failed" in (rows[VICTIM].reason or "")


class _Failing(Meter):
    name, scope = "failing", "nothing"

    def __init__(self, at: str) -> None:
        self._at, self._reads = at, 0

    def _start(self) -> None:
        if self._at == "start":
            raise RuntimeError("no start")

    def _read_j(self) -> float:
        self._reads += 1
        if self._at == "idle" or (self._at == "window" and self._reads > 4):
            raise KeyError("joules")
        return float(self._reads)


@pytest.mark.parametrize("at", [pytest.param("found", marks=pytest.mark.slow), "start", "idle", "window"])
def test_a_meter_costs_its_figure_only(place: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def find() -> Meter:
        if at == "found":
            raise RuntimeError("no sensor after all")
        return _Failing(at)

    monkeypatch.setattr(measure_artifacts, "find_meter", find)
    monkeypatch.setattr("modelwright.harness.meters.host_energy.IDLE_S", 0.0)
    monkeypatch.setattr("modelwright.harness.meters.host_energy.time.sleep", lambda _seconds: None)
    run(place)
    for row in rows_of(place).values():
        assert row.measured
        assert row.energy is None or row.energy.source != "measured:failing"


def test_without_a_verdict_the_figures_are_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_comparison: Comparison) -> None:
        raise ZeroDivisionError("no spread")

    with (
        monkeypatch.context() as patched,
        pytest.raises(writing.UnfinishedError, match="ZeroDivisionError: no spread") as caught,
        progress_of_a_comparison(as_json=False, details=False),
    ):
        patched.setattr(judge, "examine", fail)
        run(place)
    assert caught.value.exit_code == 1
    kept = read_results(place / "out" / "results.json")
    assert kept.verdict is not None
    assert "There is no verdict" in kept.verdict.sentence
    assert all(row.measured for row in kept.measurements)
    assert (place / "out" / "report.html").exists()
    printed = capsys.readouterr().out
    assert "ort-int8" in printed
    assert "There is no verdict" in printed
    with pytest.raises(writing.UnfinishedError):
        monkeypatch.setattr(judge, "examine", fail)
        measure([place / "out" / "artifacts" / "ort-fp32"])


def test_results_that_cannot_be_written_at_the_end_are_printed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = BuildFailedError("no space left on the disk", hint="it lies in /elsewhere instead")
    monkeypatch.setattr(comparing, "write_comparison", lambda *_, **__: [fault])
    with (
        pytest.raises(writing.UnfinishedError, match="no space left") as caught,
        progress_of_a_comparison(as_json=True, details=False),
    ):
        run(place)
    assert (caught.value.exit_code, caught.value.hint) == (5, fault.hint)
    printed = json.loads(capsys.readouterr().out)
    assert [row["status"] for row in printed["measurements"]] == ["measured", "measured"]


def test_a_listener_that_fails_costs_nothing(place: Path) -> None:
    class Gone:
        def start(self, task: str, text: str) -> None:
            raise OSError(errno.EIO, "the terminal is gone")

        say = advance = finish = start

    comparison = compare(
        place / "cnn.onnx", samples=place / "samples.npz", out=place / "out", targets=[VICTIM], progress=Gone()
    )
    assert len(comparison.measured) == 2


def test_an_own_error_is_told_as_it_is(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error: ModelwrightError = BuildFailedError("the vendor says no", hint="ask again")
    monkeypatch.setattr(building, "build", raising(error, is_victim, building.build))
    run(place)
    row = rows_of(place)[VICTIM]
    assert (row.reason, row.hint, row.exit_code) == ("the vendor says no", "ask again", 5)
