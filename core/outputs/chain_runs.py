"""Chained steps of FP32 and of a candidate, in child processes: what states become when they are fed back.

FP32 runs its chains once for all candidates, and a second time with its states moved by a few roundings: a recurrence
that does not even follow itself then would blame every candidate, and nothing is compared.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.chains import (
    JUDGED_STEPS,
    MOST_CHAINS,
    STEPS,
    Chain,
    ChainProof,
    Outputs,
    Roundings,
    run_chain,
)
from modelwright.core.outputs.fidelity import Fidelity, FidelityMeter, explain_broken
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.outputs.tasks.signs import spread_indices
from modelwright.core.samples.sample_set import SampleSet

Feeds = Mapping[str, npt.NDArray[Any]]
"""One inference's inputs: name -> array."""

_LEAST_CHAINS, _SAMPLES_PER_CHAIN = 2, 10
"""A proof runs a chain for so many samples, and two at least: some five inferences a sample, however busy
the machine is."""
MOST_BYTES = 256 * 2**20
"""Of FP32's answers that are kept: of large caches fewer steps are compared."""
_MOST_OWN_SEVERITY = 0.5
"""Up to it FP32 still follows itself when its states are moved by roundings: half of what nobody would notice."""
_MOST_GROWTH = 1000.0
"""A state that grows more than so from the first steps to the last has left everything that the samples show."""
_FIRST_STEPS = 10


def record_chains(
    model: ReferenceModel,
    samples: SampleSet,
    states: Sequence[State],
    roles: Mapping[str, OutputRole],
    *,
    most: int = MOST_CHAINS,
    judged: int = JUDGED_STEPS,
) -> tuple[Chain, list[Outputs]]:
    """Runs FP32's chains.

    Args:
        model: FP32.
        samples: The samples that judge.
        states: What is fed back.
        roles: What the outputs mean.
        most: Chains to run, at most; fewer where there are few samples.
        judged: Steps of each to keep, at most.

    Returns:
        The chains, with a reason where comparing with them would say nothing of an artifact; and the outputs of each
        one's last steps, chain after chain.
    """
    chain = Chain(states=tuple(states))
    starts: list[int] = []
    ends: list[list[Outputs]] = []
    try:
        for start in spread_indices(samples.count, min(most, max(_LEAST_CHAINS, samples.count // _SAMPLES_PER_CHAIN))):
            watch = _StateWatch(states)
            last: deque[Outputs] = deque(maxlen=judged)
            for outputs in run_chain(model.run, samples, states, start):
                last.append(outputs)
                fault = watch.look(outputs)
                if fault is not None:
                    return _without(chain, fault)
            fault = watch.explain_growth()
            if fault is not None:
                return _without(chain, fault)
            judged = judged if ends else min(judged, _fit_bytes(last[-1]))
            starts.append(start)
            ends.append(list(last)[-judged:])
    except BadInputError as error:
        return _without(chain, f"FP32 itself fails when it is fed with its own state: {error.message}")
    meter = FidelityMeter(roles)
    for start, end in zip(starts, ends, strict=True):
        disturbed = run_chain(model.run, samples, states, start, disturb=Roundings())
        for expected, found in zip(end, deque(disturbed, maxlen=judged), strict=True):
            meter.add(expected, found)
    fault = _explain_chaos(meter.result())
    if fault is not None:
        return _without(chain, fault)
    recorded = replace(chain, starts=tuple(starts), judged=judged)
    return recorded, [outputs for end in ends for outputs in end]


def compare_chains(
    run: Callable[[Feeds], Outputs],
    samples: SampleSet,
    chain: Chain,
    roles: Mapping[str, OutputRole],
    expected: Iterable[Outputs],
) -> ChainProof:
    """Runs an artifact's chains and compares their ends with FP32's.

    Args:
        run: One inference of the artifact.
        samples: The evaluation samples.
        chain: As FP32 ran it.
        roles: What the outputs mean.
        expected: FP32's outputs at their ends, see `record_chains`.
    """
    nothing = ChainProof(states=chain.states, steps=chain.steps, chains=0, fidelity=None, reason=chain.reason)
    if chain.reason is not None:
        return nothing
    ends = iter(expected)
    meter = FidelityMeter(roles)
    for start in chain.starts:
        steps = run_chain(run, samples, chain.states, start, steps=chain.steps)
        for step, outputs in enumerate(steps):
            if step >= chain.steps - chain.judged:
                label = None if samples.labels is None else int(samples.labels[(start + step) % samples.count])
                meter.add(next(ends), outputs, label)
    return ChainProof(states=chain.states, steps=chain.steps, chains=len(chain.starts), fidelity=meter.result())


def _without(chain: Chain, reason: str) -> tuple[Chain, list[Outputs]]:
    return replace(chain, reason=reason), []


def _fit_bytes(outputs: Outputs) -> int:
    """Returns how many steps of a chain are kept, by the size of one."""
    size = sum(np.asarray(value).nbytes for value in outputs.values()) * MOST_CHAINS
    return max(1, MOST_BYTES // max(1, size))


def explain_step(run: Callable[[Feeds], Outputs]) -> Callable[[Feeds], Outputs]:
    """Returns a call whose failure says that it is one of chained steps: the artifact took the samples before."""

    def run_step(feeds: Feeds) -> Outputs:
        try:
            return run(feeds)
        except Exception as error:  # a runtime's errors have no base
            raise BuildFailedError(
                "it runs on the samples, but fails when it is fed with its own state",
                hint="do not ship it; the float targets of this runtime keep the state",
                detail=f"{type(error).__name__}: {error}",
            ) from error

    return run_step


def _explain_chaos(own: Fidelity) -> str | None:
    """Returns why FP32 cannot be followed over many steps: it does not follow itself."""
    worst = None if own.task is None else own.task.worst
    fault = explain_broken(own)
    if fault is None and worst is not None and worst.severity > _MOST_OWN_SEVERITY:
        fault = f"output {worst.output}: {worst.text}"
    if fault is None:
        return None
    return (
        f"FP32 does not follow itself either: with its states moved by {Roundings.COUNT} float32 roundings a step, "
        f"{fault}"
    )


class _StateWatch:
    """Looks whether FP32's states stay what the samples show."""

    def __init__(self, states: Sequence[State]) -> None:
        self._peaks: dict[str, list[float]] = {state.output: [] for state in states}

    def look(self, outputs: Outputs) -> str | None:
        """Takes a step's outputs; returns a reason to stop."""
        for name, peaks in self._peaks.items():
            value = np.asarray(outputs[name])
            peaks.append(float(np.abs(value.astype(np.float64)).max(initial=0.0)))
            if not math.isfinite(peaks[-1]):
                return f"FP32's own state {name} is not finite any more after {len(peaks)} steps"
        return None

    def explain_growth(self) -> str | None:
        """Returns why the end of a chain is nothing that the samples show."""
        for name, peaks in self._peaks.items():
            first, last = max(peaks[:_FIRST_STEPS]), max(peaks[-_FIRST_STEPS:])
            if last > _MOST_GROWTH * first > 0.0:
                return f"FP32's own state {name} grows without bounds: from {first:.3g} to {last:.3g} in {STEPS} steps"
        return None
