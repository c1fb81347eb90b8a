"""Several launches of several artifacts, with runners that take scripted times."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.artifact import Artifact
from modelwright.harness.run import measure_artifacts as module
from modelwright.harness.run.effort import EFFORTS, Effort
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import Measured, measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.told import Executed, Finished, Opened, RanWith
from modelwright.profiles import load_profile

EFFORT = Effort(name="test", launches=3, rounds=5, window_s=0.0)


class Scripted:
    """Stands in for `ArtifactRunner`; notes what is asked of it."""

    events: list[tuple[str, str]]
    fails: dict[tuple[str, str], int]

    def __init__(self, name: str, *_: Any, **__: Any) -> None:
        self.name, self.device = name, "cpu"
        self._loads = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, what: str) -> None:
        self.events.append((what, self.name))
        if self.fails.get((what, self.name)) == self._loads:
            raise MeasurementInvalidError(f"{self.name} crashed in launch {self._loads}")

    def open(self, samples: object) -> Opened:
        self._loads += 1
        self._note("open")
        return Opened(
            seal="0" * 64, import_ms=1.0, load_ms=float(self._loads), first_inference_ms=1.0, runtime_bytes=1,
            settings=RanWith(),
        )  # fmt: skip

    def run_window(self, window_s: float) -> Window:
        self._note("window")
        return Window(latencies_ms=[float(self._loads)], inferences=1, elapsed_s=0.001)

    def finish(self) -> Finished:
        self._note("finish")
        return Finished(peak_memory_bytes=self._loads, steady_memory_bytes=1, precision_executed=Executed())

    def describe_gpu(self) -> None:
        self._note("describe")

    def close(self) -> None:
        self.events.append(("close", self.name))


def run(monkeypatch: pytest.MonkeyPatch, names: str, **fails: int) -> tuple[dict[str, Measured], list[tuple[str, str]]]:
    """Measures; `fails` is like `window_b=2`: artifact b fails there in its second launch."""
    monkeypatch.setattr(Scripted, "events", [], raising=False)
    asked = {(what, name): launch for key, launch in fails.items() for what, name in [key.split("_")]}
    monkeypatch.setattr(Scripted, "fails", asked, raising=False)
    for name, stub in (
        ("ArtifactRunner", Scripted),
        ("find_meter", lambda: None),
        ("require_fit", lambda *_: None),
        ("require_runnable", lambda *_: None),
        ("verify_files", lambda *_: None),
        ("choose_device", lambda *_: "cpu"),
        ("settle", lambda _artifact, settings: settings),
    ):
        monkeypatch.setattr(module, name, stub)
    host = load_profile("desktop-i5-10400")
    artifacts = {name: Artifact(directory=Path(name), manifest=None, seal="") for name in names}  # type: ignore[arg-type]
    taken = measure_artifacts(artifacts, MeasureSettings(effort=EFFORT), host, host, samples=None)
    return dict(taken.by_name), Scripted.events


def test_each_launch_loads_another_one_first_and_closes_all(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, events = run(monkeypatch, "abc")
    assert [name for what, name in events if what == "open"] == [*"abc", *"bca", *"cab"]
    alive = set()
    for what, name in events:
        if what == "open":
            alive.add(name)
        elif what == "close":
            alive.remove(name)
        elif what == "window":
            assert alive == set("abc"), "all are alive together"
    assert not alive
    for result in measured.values():
        assert result.failure is None
        assert {index: window.latencies_ms[0] for index, window in result.windows.items()} == {
            index: 1 + index // 5 for index in range(15)
        }


def test_what_is_told_once_is_of_the_first_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, events = run(monkeypatch, "ab")
    assert measured["b"].opened is not None
    assert measured["b"].opened.load_ms == 1.0
    assert measured["b"].finished is not None
    assert measured["b"].finished.peak_memory_bytes == 1
    assert [what for what, name in events if name == "b" and what in ("finish", "describe")] == ["finish", "describe"]


@pytest.mark.parametrize("where", ["open_b", "window_b"])
def test_one_that_fails_in_its_second_launch_ends_alone(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    measured, events = run(monkeypatch, "abc", **{where: 2})
    assert "b crashed in launch 2" in str(measured["b"].failure)
    assert len(measured["b"].windows) == 5
    assert [len(measured[name].windows) for name in "ac"] == [15, 15]
    assert [name for what, name in events if what == "open"].count("b") == 2


def test_nothing_that_loads_ends_after_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, events = run(monkeypatch, "a", open_a=1)
    assert measured["a"].failure is not None
    assert [what for what, _ in events].count("open") == 1


def test_efforts_take_the_rounds_that_they_say() -> None:
    assert {name: (effort.launches, effort.total_rounds) for name, effort in EFFORTS.items()} == {
        "quick": (1, 12), "standard": (3, 30), "strict": (5, 60),
    }  # fmt: skip
