"""Chained steps: a model fed with its own state again and again, as it is in use, and what that shows.

One step with a right state says little about a recurrent model: an error of a hundredth a step is nothing after one
and everything after fifty. So FP32 and the candidate each run a chain of their own, and what comes out at its end is
compared as single steps are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from modelwright.core.outputs.fidelity import Fidelity, explain_broken
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.checks import Check
from modelwright.core.outputs.tasks.judge import add_checks
from modelwright.core.records.codec import Count, Record
from modelwright.core.samples.sample_set import SampleSet

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]
"""One inference's outputs: name -> array."""

STEPS = 50
JUDGED_STEPS = 10
"""The last steps of a chain, which are compared: more evidence than the last one alone."""
MOST_CHAINS = 8
"""Chains that begin at samples spread over all."""


class Chain(Record):
    """The chains that FP32 ran, for a candidate to run likewise.

    Attributes:
        states: What is fed back.
        starts: Of each chain, the sample that it begins with: its state is the chain's first. The other inputs are
            those of that sample and of the ones after it; after the last sample comes the first.
        steps: Of each chain.
        judged: How many of its last steps are compared.
        moving: The inputs among the states that differ from sample to sample.
        foreign: Those whose values in the samples are not such as FP32 makes -> what both are.
        reason: Why a comparison would say nothing of a candidate; None where it does.
    """

    states: tuple[State, ...]
    starts: tuple[Count, ...] = ()
    steps: Count = STEPS
    judged: Count = JUDGED_STEPS
    moving: tuple[str, ...] = ()
    foreign: dict[str, str] = msgspec.field(default_factory=dict)
    reason: str | None = None


class ChainProof(Record):
    """How an artifact follows FP32 when each is fed with its own state, step after step.

    Attributes:
        states: What was fed back.
        steps: Of each chain.
        chains: How many were compared.
        fidelity: Of the last steps of all chains; None where nothing was compared.
        reason: Why not.
    """

    states: tuple[State, ...]
    steps: Count
    chains: Count
    fidelity: Fidelity | None
    reason: str | None = None

    @property
    def worst(self) -> Check | None:
        """The worst finding; None where there is none."""
        task = None if self.fidelity is None else self.fidelity.task
        return None if task is None else task.worst

    def describe(self) -> str:
        """Returns for instance `after 50 steps output stateN: the state carries 24 % noise`."""
        if self.fidelity is None:
            return f"not compared over {self.steps} steps"
        worst = self.worst
        if worst is None or worst.severity <= 1.0:
            cosine = self.fidelity.cosine
            return f"after {self.steps} steps " + ("as good" if cosine is None else f"cosine {cosine:.5f}")
        return f"after {self.steps} steps output {worst.output}: {worst.text}"


class Roundings:
    """Moves a state by what another order of additions would: FP32 in another runtime is that far from itself.

    Every value moves up or down by `COUNT` roundings of its type, or of the state's typical size where it is smaller.
    """

    COUNT = 8

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def __call__(self, value: Array) -> Array:
        if value.dtype.kind != "f" or not value.size:
            return value
        finite = np.where(np.isfinite(value), value, 0).astype(np.float64)
        size = np.maximum(np.abs(finite), np.sqrt(np.mean(finite**2)))
        signs = self._generator.choice((-1.0, 1.0), value.shape)
        moved = finite + signs * self.COUNT * np.finfo(value.dtype).eps * size
        return np.where(np.isfinite(value), moved, value).astype(value.dtype)


def run_chain(
    run: Callable[[Mapping[str, Array]], Outputs],
    samples: SampleSet,
    states: Sequence[State],
    start: int,
    *,
    steps: int = STEPS,
    disturb: Callable[[Array], Array] | None = None,
) -> Iterator[Outputs]:
    """Runs a model step after step, feeding its own state back.

    Args:
        run: One inference.
        samples: What the other inputs are taken from, in their order; the first sample's state begins the chain.
        states: What is fed back.
        start: The sample to begin with.
        steps: Inferences to run.
        disturb: Changes every state before it is fed.

    Yields:
        The outputs of each step.
    """
    carried: dict[str, Array] = {}
    for step in range(steps):
        feeds = samples.sample((start + step) % samples.count) | carried
        if disturb is not None:
            feeds |= {state.input: disturb(feeds[state.input]) for state in states}
        outputs = run(feeds)
        carried = {state.input: np.asarray(outputs[state.output], feeds[state.input].dtype) for state in states}
        yield outputs


def join_chain(fidelity: Fidelity, chain: ChainProof) -> Fidelity:
    """Returns a comparison of single steps with the findings at the end of the chains among its own.

    So they count by the same limits, wherever findings do.
    """
    found = None if chain.fidelity is None else chain.fidelity.task
    if fidelity.task is None or found is None:
        return fidelity
    checks = [
        msgspec.structs.replace(
            check, measure=f"chained_{check.measure}", text=f"after {chain.steps} chained steps {check.text}"
        )
        for check in found.checks
    ]
    return msgspec.structs.replace(fidelity, task=add_checks(fidelity.task, checks))


def explain_chain_broken(chain: ChainProof) -> str | None:
    """Returns why nobody would use the candidate over many steps; None when they would, or nothing was compared."""
    fault = None if chain.fidelity is None else explain_broken(chain.fidelity)
    return None if fault is None else f"after {chain.steps} steps fed with its own state, {fault}"
