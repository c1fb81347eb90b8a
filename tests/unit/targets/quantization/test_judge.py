"""Candidates of a search are held against FP32 on single steps, and over many where a model has a state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_search import SIGNATURE

from modelwright.core.outputs.chain_runs import record_chains
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.contract import BuildRequest
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


def make_request(tmp_path: Path, tuning: str | None, calibration: str | None) -> BuildRequest:
    import onnx
    from onnx import helper

    value, result = (helper.make_tensor_value_info(name, 1, ["n", 2]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g", [value], [result])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")

    def open_part(part: Any) -> Any:
        return None if part is None else open_samples(SampleRef(path=tmp_path / "s.npz", part=part), SIGNATURE)

    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32))
    return BuildRequest(
        model_path=tmp_path / "m.onnx",
        signature=SIGNATURE,
        directory=tmp_path,
        machine=Machine(name="box", architecture="x86_64", instruction_sets=frozenset(), cores=2),
        calibration=open_part(calibration),
        tuning=open_part(tuning),
        reference=None,
        scratch=tmp_path,
        shared=tmp_path,
        progress=lambda line: None,
    )


@pytest.mark.parametrize(("tuning", "part", "count"), [("tuning", "tuning", 5), (None, "calibration", 15)])
def test_the_judge_asks_fp32_itself_where_nobody_did(tmp_path: Path, tuning: str | None, part: str, count: int) -> None:
    pytest.importorskip("onnxruntime")
    judge = Judge.of_request(make_request(tmp_path, tuning, "calibration"))
    assert judge is not None
    assert judge.to_dict() == {"part": part, "samples": count}
    figures = judge.judge(lambda feeds: ({"y": inputs["x"] ** 2} for inputs in feeds))
    assert figures.error == pytest.approx(0.0, abs=1e-12)
    assert figures.samples == count


def test_without_samples_there_is_no_judge(tmp_path: Path) -> None:
    assert Judge.of_request(make_request(tmp_path, None, None)) is None
