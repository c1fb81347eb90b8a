"""What a model's own state becomes when it is fed back: in FP32, and in what was built of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs import chain_runs
from modelwright.core.outputs.chain_runs import compare_chains, explain_step, record_chains
from modelwright.core.outputs.chains import Chain, ChainProof, Roundings, explain_chain_broken, join_chain, run_chain
from modelwright.core.outputs.fidelity import compare_outputs, explain_broken
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import find_roles
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples

STATES = (State(output="hn", input="h"),)
WIDTH = 6
Step = Callable[[Any, Any], Any]


class Recurrence:
    """A model whose next state is a function of its input and its state; it answers with half of the state."""

    output_names = ("y", "hn")

    def __init__(self, step: Step) -> None:
        self._step = step

    def run(self, feeds: Any) -> dict[str, Any]:
        state = np.asarray(self._step(feeds["x"], feeds["h"]), np.float32)
        return {"y": state[:, :3] * np.float32(0.5), "hn": state}


def leak(keep: float) -> Step:
    return lambda x, h: keep * h + x


def open_stream(folder: Path, *, count: int = 80) -> SampleSet:
    x = np.random.default_rng(0).standard_normal((count, WIDTH)).astype(np.float32)
    state, states = np.zeros(WIDTH, np.float32), []
    for row in x:
        states.append(state)
        state = np.float32(0.9) * state + row
    np.savez(folder / "s.npz", x=x, h=np.stack(states))
    inputs = tuple(TensorSpec(name=name, dtype="float32", shape=(1, WIDTH)) for name in ("x", "h"))
    return open_samples(SampleRef(path=folder / "s.npz"), Signature(inputs=inputs, outputs=()))


def record(samples: SampleSet, step: Step, **changes: Any) -> tuple[Chain, Any, Any]:
    model: Any = Recurrence(step)
    answers = [model.run(feeds) for feeds in samples.feeds()]
    roles = find_roles(answers, states=["hn"])
    with np.errstate(over="ignore"):
        chain, ends = record_chains(model, samples, STATES, roles, **changes)
    return chain, ends, roles


def test_each_step_is_fed_with_the_state_of_the_one_before(tmp_path: Path) -> None:
    samples = open_stream(tmp_path, count=4)
    fed: list[Any] = []
    model = Recurrence(leak(0.9))

    def run(feeds: Any) -> Any:
        fed.append(feeds)
        return model.run(feeds)

    outputs = list(run_chain(run, samples, STATES, 2, steps=6))
    np.testing.assert_array_equal(fed[0]["h"], samples.sample(2)["h"])
    for step in range(1, 6):
        np.testing.assert_array_equal(fed[step]["h"], outputs[step - 1]["hn"])
        np.testing.assert_array_equal(fed[step]["x"], samples.sample((2 + step) % 4)["x"])


def test_roundings_are_small_and_spare_what_is_no_number() -> None:
    value = np.array([[1.0, -2.0, 0.0, np.inf, np.nan]], np.float32)
    moved = Roundings()(value)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, value, atol=5e-6)
    assert (moved[0, :3] != value[0, :3]).all()
    integers = np.array([1, 2])
    assert Roundings()(integers) is integers


def test_fp32_follows_itself(tmp_path: Path) -> None:
    samples = open_stream(tmp_path)
    chain, ends, roles = record(samples, leak(0.9))
    assert chain.reason is None
    assert (len(chain.starts), chain.steps, chain.judged) == (8, 50, 10)
    proof = compare_chains(Recurrence(leak(0.9)).run, samples, chain, roles, ends)
    assert (proof.chains, proof.reason) == (8, None)
    assert proof.fidelity is not None
    assert proof.fidelity.samples == 80
    assert proof.fidelity.task is not None
    assert proof.fidelity.task.severity == 0.0
    assert decode(ChainProof, encode(proof)) == proof
    assert decode(Chain, encode(chain)) == chain


@pytest.mark.parametrize(("keep", "broken"), [(0.899, False), (0.0, True), (0.985, True)])
def test_what_a_step_does_not_show_a_chain_does(tmp_path: Path, keep: float, broken: bool) -> None:
    samples = open_stream(tmp_path)
    chain, ends, roles = record(samples, leak(0.9))
    built = Recurrence(leak(keep))
    proof = compare_chains(built.run, samples, chain, roles, ends)
    single = compare_outputs(
        [Recurrence(leak(0.9)).run(feeds) for feeds in samples.feeds()], map(built.run, samples.feeds()), roles
    )
    joined = join_chain(single, proof)
    assert joined.task is not None
    assert single.task is not None
    assert {check.measure for check in joined.task.checks} >= {"noise", "chained_noise"}
    assert len(joined.task.checks) > len(single.task.checks)
    fault = explain_chain_broken(proof)
    assert (fault is not None) is broken
    if fault is not None:
        assert fault.startswith("after 50 steps fed with its own state, output ")
        assert explain_broken(joined) is not None
        assert "after 50 steps output" in proof.describe()
    else:
        assert joined.task.severity < 1.0
        assert "after 50 steps cosine" in proof.describe()


def test_a_small_error_adds_up(tmp_path: Path) -> None:
    """Each step is off by a fiftieth, which is good; the state of fifty is off by half of itself."""
    samples = open_stream(tmp_path)
    chain, ends, roles = record(samples, leak(0.98))
    built = Recurrence(leak(0.96))
    single = compare_outputs(
        [Recurrence(leak(0.98)).run(feeds) for feeds in samples.feeds()], map(built.run, samples.feeds()), roles
    )
    assert single.task is not None
    assert single.task.severity < 1.0
    joined = join_chain(single, compare_chains(built.run, samples, chain, roles, ends))
    assert joined.task is not None
    assert joined.task.severity > 1.0
    assert joined.task.worst is not None
    assert joined.task.worst.measure.startswith("chained_")
    assert joined.task.worst.text.startswith("after 50 chained steps ")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x, h: np.cos(8 * h) + 0.1 * x, "FP32 does not follow itself either: with its states moved by 8"),
        (lambda x, h: 1.5 * h + x, "FP32's own state hn grows without bounds: from "),
        (lambda x, h: 1e3 * h + x, "FP32's own state hn is not finite any more after 1"),
        (lambda x, h: np.sqrt(h - 9) + x, "FP32's own state hn is not finite any more after 1 steps"),
    ],
)
def test_a_recurrence_that_cannot_be_followed_blames_nothing(tmp_path: Path, step: Step, reason: str) -> None:
    samples = open_stream(tmp_path)
    with np.errstate(invalid="ignore"):
        chain, ends, roles = record(samples, step)
    assert chain.reason is not None
    assert chain.reason.startswith(reason)
    proof = compare_chains(Recurrence(leak(0.0)).run, samples, chain, roles, ends)
    assert (proof.fidelity, proof.reason, proof.chains) == (None, chain.reason, 0)
    assert proof.describe() == "not compared over 50 steps"
    assert explain_chain_broken(proof) is None


def test_fp32_that_fails_on_its_own_state_blames_nothing(tmp_path: Path) -> None:
    samples = open_stream(tmp_path)

    def fail(x: Any, h: Any) -> Any:
        if not any(np.array_equal(h, samples.sample(index)["h"]) for index in range(samples.count)):
            raise BadInputError("an index is out of range")
        return h + x

    chain, *_ = record(samples, fail)
    assert chain.reason == "FP32 itself fails when it is fed with its own state: an index is out of range"


def test_an_artifact_that_fails_on_its_own_state_is_refused(tmp_path: Path) -> None:
    samples = open_stream(tmp_path)
    chain, ends, roles = record(samples, leak(0.9))

    def fail(feeds: Any) -> Any:
        raise ValueError("no such shape")

    with pytest.raises(BuildFailedError, match="fails when it is fed with its own state") as caught:
        compare_chains(explain_step(fail), samples, chain, roles, ends)
    assert caught.value.detail == "ValueError: no such shape"


def test_chains_are_bounded_by_the_number_of_samples_and_by_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count, chains in ((4, 2), (29, 2), (30, 3), (79, 7), (200, 8)):
        assert len(record(open_stream(tmp_path, count=count), leak(0.9))[0].starts) == chains
    samples = open_stream(tmp_path)
    assert len(record(samples, leak(0.9), most=2)[0].starts) == 2
    monkeypatch.setattr(chain_runs, "MOST_BYTES", 8 * 3 * (3 + WIDTH) * 4)
    chain, ends, roles = record(samples, leak(0.9))
    assert (len(chain.starts), chain.judged) == (8, 3)
    proof = compare_chains(Recurrence(leak(0.9)).run, samples, chain, roles, ends)
    assert proof.fidelity is not None
    assert proof.fidelity.samples == 8 * 3
