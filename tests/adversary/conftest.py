"""What the attacks share, and their figures at the end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import models
from tally import Tally

from modelwright.harness import measuring, request
from modelwright.harness.building import build_targets
from modelwright.harness.run.effort import Effort

for package in ("onnx", "onnxruntime"):
    pytest.importorskip(package)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, samples, and artifacts built from them in `built/`."""
    folder = tmp_path_factory.mktemp("adversary")
    models.make_cnn(folder / "cnn.onnx")
    models.make_two_by_two(folder / "two.onnx")
    models.make_samples(folder / "samples.npz", count=32, x=(3, 12, 12))
    build_targets(
        folder / "cnn.onnx", samples=folder / "samples.npz", out=folder / "built", targets=["ort-fp32", "ort-int8"]
    )
    return folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in no time: what is asked here is not how fast anything is."""
    effort = Effort(name="test", rounds=1, window_s=0.001)
    for module in (request, measuring):
        monkeypatch.setattr(module, "get_effort", lambda _name: effort)


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Iterator[Callable[[str], Tally]]:
    """Makes the tally of a kind of attack; the test fails where one was missed or crashed."""
    tallies: list[Tally] = []

    def make(name: str) -> Tally:
        tallies.append(Tally(name=name))
        return tallies[-1]

    yield make
    for one in tallies:
        record_property("adversary", one.summarize())
        print(one.summarize())
        assert one.counts.total() > 0, f"nothing was tried: {one.name}"
        assert not one.failures, "\n".join([one.summarize(), *one.failures[:20]])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the figures of all attacks, also of those that were run by other workers."""
    figures = [
        str(text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, text in report.user_properties
        if name == "adversary"
    ]
    if figures:
        terminalreporter.section("attacks", sep="-")
    for line in sorted(set(figures)):
        terminalreporter.line(line)
