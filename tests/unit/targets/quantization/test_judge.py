"""Candidates of a search are held against FP32 on single steps, and over many where a model has a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.outputs.chain_runs import record_chains
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.quantization.goal import Level
from modelwright.targets.quantization.judge import Judge, count_samples

STATES = (State(output="hn", input="h"),)


class Leak:
    """Holds a share of its state and adds its input."""

    output_names = ("y", "hn")

    def __init__(self, keep: float) -> None:
        self._keep = np.float32(keep)

    def run(self, feeds: Any) -> dict[str, Any]:
        state = self._keep * feeds["h"] + feeds["x"]
        return {"y": state[:, :2], "hn": state}

    def stream(self, feeds: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return (self.run(each) for each in feeds)

    def at_once(self, feeds: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return iter([self.run(each) for each in list(feeds)])


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    x = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    model: Any = Leak(0.98)
    state, states = np.zeros((1, 4), np.float32), []
    for row in x:
        states.append(state[0])
        state = model.run({"x": row[None], "h": state})["hn"]
    np.savez(tmp_path / "s.npz", x=x, h=np.stack(states))
    inputs = tuple(TensorSpec(name=name, dtype="float32", shape=(1, 4)) for name in ("x", "h"))
    samples = open_samples(SampleRef(path=tmp_path / "s.npz"), Signature(inputs=inputs, outputs=()))
    reference = [model.run(feeds) for feeds in samples.feeds()]
    roles = find_roles(reference, states=["hn"], tasks={"y": "regression"})
    chain, ends = record_chains(model, samples, STATES, roles, most=2, judged=25)
    assert chain.reason is None
    return Judge(samples=samples, part="tuning", reference=reference, roles=roles, chain=chain, chain_ends=ends)


def test_a_state_that_goes_astray_is_no_good_candidate(judge: Judge) -> None:
    assert judge.judge(Leak(0.98).stream).level is Level.GOOD
    figures = judge.judge(Leak(0.95).stream)
    assert figures.level < Level.GOOD
    assert figures.finding is not None
    assert "after 50 chained steps" in figures.finding


def test_what_takes_all_inputs_at_once_is_judged_on_single_steps(judge: Judge) -> None:
    figures = judge.judge(Leak(0.95).at_once)
    assert figures.level is Level.GOOD
    assert figures.finding is not None
    assert "chained" not in figures.finding


def test_a_few_samples_are_not_chained(judge: Judge) -> None:
    assert judge.judge(Leak(0.95).stream, 8).level is Level.GOOD


@pytest.mark.parametrize(
    ("available", "work", "expected"),
    [(256, 1e6, 256), (1000, 1e6, 256), (40, 1e6, 40), (256, 4e9, 64), (256, 1.6e9, 100), (256, 0.0, 64)],
)
def test_more_samples_judge_what_works_less(available: int, work: float, expected: int) -> None:
    assert count_samples(available, work) == expected
