"""Compares candidates with FP32 on the samples that a search judges by."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.outputs.chain_runs import compare_chains, record_chains
from modelwright.core.outputs.chains import Chain, join_chain
from modelwright.core.outputs.fidelity import compare_outputs, explain_broken
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.tasks.roles import OutputRole, find_roles
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Array, BuildRequest, Feeds
from modelwright.targets.graphs.files import find_external_files
from modelwright.targets.quantization.goal import Figures

Outputs = Mapping[str, Array]
"""One inference's outputs: ONNX name -> array."""

_MOST_SAMPLES = 64
_CHAINS = 2
_JUDGED_STEPS = 25
"""Of each chain: a search has no time for more chains, so it looks at more steps of them than a proof does."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The samples that judge, and FP32's answers to them.

    Attributes:
        samples: The tuning samples; the calibration samples where there are none.
        part: Which of them: `tuning` or `calibration`.
        reference: FP32's outputs, one mapping a sample: as many samples judge.
        roles: What the outputs mean.
        model_bytes: Size of the FP32 model with its weights: what a trial costs goes with it.
        chain: FP32's chained steps on these samples; None for a model without states.
        chain_ends: FP32's outputs at their ends.
    """

    samples: SampleSet
    part: str
    reference: Sequence[Outputs]
    roles: Mapping[str, OutputRole]
    model_bytes: int = 0
    chain: Chain | None = None
    chain_ends: Sequence[Outputs] = ()

    @staticmethod
    def of_request(request: BuildRequest) -> Judge | None:
        """Returns the judge of a build; None without samples."""
        part = "tuning" if request.tuning is not None and request.tuning.count else "calibration"
        samples = request.tuning if part == "tuning" else request.calibration
        if samples is None or samples.count == 0:
            return None
        count = min(samples.count, _MOST_SAMPLES)
        reference = request.reference if part == "tuning" else None
        if reference is None or len(reference) < count:
            with ReferenceModel(request.model_path) as model:
                reference = [model.run(feeds) for feeds in samples.feeds(count)]
        files = [request.model_path.parent / name for name in find_external_files(request.model_path)]
        size = sum(file.stat().st_size for file in (request.model_path, *files))
        roles = request.roles or find_roles(reference, labelled=samples.labels is not None)
        chain: Chain | None = None
        ends: list[Outputs] = []
        if request.states:
            with ReferenceModel(request.model_path) as model:
                chain, ends = record_chains(model, samples, request.states, roles, most=_CHAINS, judged=_JUDGED_STEPS)
        return Judge(
            samples=samples,
            part=part,
            reference=reference[:count],
            roles=roles,
            model_bytes=size,
            chain=chain,
            chain_ends=ends,
        )

    def judge(self, run: Callable[[Iterable[Feeds]], Iterable[Outputs]], limit: int | None = None) -> Figures:
        """Runs a candidate sample by sample and returns how closely it follows FP32.

        Args:
            run: Takes inputs and gives their outputs, one after the other.
            limit: Judge on no more samples than these, and on single steps alone.
        """
        reference = self.reference[:limit]
        found = run(self.samples.feeds(len(reference)))
        labels = None if self.samples.labels is None else map(int, self.samples.labels)
        fidelity = compare_outputs(reference, found, self.roles, labels)
        if limit is None and self.chain is not None and explain_broken(fidelity) is None:
            with contextlib.suppress(_TakesAllAtOnceError):
                steps = _one_by_one(run)
                chained = compare_chains(steps, self.samples, self.chain, self.roles, self.chain_ends)
                fidelity = join_chain(fidelity, chained)
        return Figures.from_fidelity(fidelity)

    def to_dict(self) -> dict[str, Any]:
        return {"part": self.part, "samples": len(self.reference)}


class _TakesAllAtOnceError(Exception):
    """What runs a candidate wants all inputs before it gives an output: nothing can be fed back."""


def _one_by_one(run: Callable[[Iterable[Feeds]], Iterable[Outputs]]) -> Callable[[Feeds], Outputs]:
    """Makes a call for one inference of what takes a stream of them."""
    waiting: deque[Feeds] = deque()

    def hand_over() -> Iterator[Feeds]:
        while waiting:
            yield waiting.popleft()

    answers = iter(run(hand_over()))

    def run_step(feeds: Feeds) -> Outputs:
        waiting.append(feeds)
        outputs = next(answers, None)
        if outputs is None:
            raise _TakesAllAtOnceError
        return outputs

    return run_step
