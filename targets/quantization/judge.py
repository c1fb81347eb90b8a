"""Compares candidates with FP32 on the samples that a search judges by."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.outputs.chain_runs import compare_chains, record_chains
from modelwright.core.outputs.chains import Chain, join_chain
from modelwright.core.outputs.drop import (
    LEAST_PARTED,
    PARTS,
    Expectation,
    check_limit,
    expect_drop,
    expect_metric_drop,
)
from modelwright.core.outputs.fidelity import Fidelity, compare_outputs, explain_broken
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.output_files import read_reference, write_outputs
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.tasks.judge import add_checks
from modelwright.core.outputs.tasks.roles import OutputRole, find_roles
from modelwright.core.outputs.user_metric import compute as compute_metric
from modelwright.core.outputs.user_metric import stage_targets
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Array, BuildRequest, Feeds
from modelwright.targets.graphs.files import find_external_files, load_model
from modelwright.targets.graphs.work import measure_work
from modelwright.targets.quantization.goal import Figures

Outputs = Mapping[str, Array]
"""One inference's outputs: ONNX name -> array."""

_LEAST_SAMPLES, _MOST_SAMPLES = 64, 256
"""So many judge however much a model works, and so many where a trial of them multiplies no more than `_TRIAL_WORK`."""
_TRIAL_WORK = 1.6e11
_FP32, _FOUND = "fp32", "found"
"""Folders of answers that the user's metric is asked about."""
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
        model_bytes: Size of the FP32 model with its weights: what a trial costs goes with it,
        work: and with the multiplications of one inference; 0 where those cannot be counted.
        chain: FP32's chained steps on these samples; None for a model without states.
        chain_ends: FP32's outputs at their ends.
        limit: What may be lost at most; None where the user set no limit.
        metric: The user's, by which the limit is set.
    """

    samples: SampleSet
    part: str
    reference: Sequence[Outputs]
    roles: Mapping[str, OutputRole]
    model_bytes: int = 0
    work: float = 0.0
    chain: Chain | None = None
    chain_ends: Sequence[Outputs] = ()
    limit: Limit | None = None
    metric: _MetricJudge | None = None

    @staticmethod
    def of_request(request: BuildRequest) -> Judge | None:
        """Returns the judge of a build; None without samples."""
        part = "tuning" if request.tuning is not None and request.tuning.count else "calibration"
        samples = request.tuning if part == "tuning" else request.calibration
        if samples is None or samples.count == 0:
            return None
        work = _count_work(request, next(samples.feeds(1)))
        count = count_samples(samples.count, work)
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
            work=work,
            chain=chain,
            chain_ends=ends,
            limit=request.limit,
            metric=_MetricJudge.of_request(request, samples, reference[:count]),
        )

    def judge(self, run: Callable[[Iterable[Feeds]], Iterable[Outputs]], limit: int | None = None) -> Figures:
        """Runs a candidate sample by sample and returns how closely it follows FP32.

        Args:
            run: Takes inputs and gives their outputs, one after the other.
            limit: Judge on no more samples than these, on single steps alone, and whatever may be lost.
        """
        reference = self.reference[:limit]
        found = run(self.samples.feeds(len(reference)))
        if limit is None and self.metric is not None:
            found = self.metric.keep(found)
        labels = None if self.samples.labels is None else map(int, self.samples.labels)
        fidelity = compare_outputs(reference, found, self.roles, labels)
        if limit is None and self.chain is not None and explain_broken(fidelity) is None:
            with contextlib.suppress(_TakesAllAtOnceError):
                steps = _one_by_one(run)
                chained = compare_chains(steps, self.samples, self.chain, self.roles, self.chain_ends)
                fidelity = join_chain(fidelity, chained)
        if limit is None and self.limit is not None:
            return self._hold(fidelity, self.limit)
        return Figures.from_fidelity(fidelity)

    def _hold(self, fidelity: Fidelity, limit: Limit) -> Figures:
        """Returns the figures of a candidate that has to keep to a limit where it is judged in the end."""
        task = fidelity.task
        if task is None or explain_broken(fidelity) is not None:
            return Figures.from_fidelity(fidelity)
        expected = expect_drop(limit, task)
        if self.metric is not None:
            expected = self.metric.expect(expected)
        if expected is None:
            return Figures.from_fidelity(fidelity)
        limited = replace(fidelity, task=add_checks(task, [check_limit(limit, expected, task)]))
        return Figures.from_fidelity(limited, drop=100 * expected.loss)

    def to_dict(self) -> dict[str, Any]:
        return {"part": self.part, "samples": len(self.reference)}


@dataclass(frozen=True, kw_only=True)
class _MetricJudge:
    """Asks the user's metric about one candidate after the other.

    Attributes:
        limit: With the metric.
        folder: For answers, and what they are held against.
        count: Samples that judge.
        fp32: What the metric says of FP32, on all of them and on parts.
    """

    limit: Limit
    folder: Path
    count: int
    fp32: Sequence[float]

    @staticmethod
    def of_request(request: BuildRequest, samples: SampleSet, reference: Sequence[Outputs]) -> _MetricJudge | None:
        """Returns the judge of a build that the user limits by a metric; None for others.

        Also for one that cannot be asked about these samples: what it says of those that judge still decides.
        """
        limit = request.limit
        if limit is None or limit.metric is None or not limit.metric_chooses:
            return None
        folder = Path(tempfile.mkdtemp(prefix="metric-", dir=request.scratch))
        write_outputs(reference, tuple(reference[0]), folder / _FP32)
        stage_targets(samples, folder)
        try:
            fp32 = compute_metric(limit.metric, folder / _FP32, folder, _count_parts(len(reference)))
        except BadInputError as error:
            request.progress(f"candidates are chosen without the metric: {error.message}")
            return None
        return _MetricJudge(limit=limit, folder=folder, count=len(reference), fp32=fp32)

    def keep(self, found: Iterable[Outputs]) -> Sequence[Outputs]:
        """Keeps a candidate's answers on the disk, and returns them."""
        shutil.rmtree(self.folder / _FOUND, ignore_errors=True)
        answers = iter(found)
        first = next(answers, None)
        if first is None:
            return ()
        write_outputs(itertools.chain((first,), answers), tuple(first), self.folder / _FOUND)
        return read_reference(self.folder / _FOUND)

    def expect(self, of_answers: Expectation | None) -> Expectation:
        """Returns what the candidate whose answers were kept is expected to lose."""
        assert self.limit.metric is not None
        found = compute_metric(self.limit.metric, self.folder / _FOUND, self.folder, _count_parts(self.count))
        return expect_metric_drop(self.limit, self.fp32, found, self.count, of_answers)


def _count_parts(samples: int) -> int:
    return PARTS if samples >= LEAST_PARTED else 0


def count_samples(available: int, work: float) -> int:
    """Returns how many samples judge candidates.

    A few dozen cannot part ways of quantizing that lose a per cent from those that lose two.

    Args:
        available: How many there are.
        work: Multiplications of one inference; 0 where they cannot be counted.
    """
    affordable = int(_TRIAL_WORK // work) if work else _LEAST_SAMPLES
    return min(available, max(_LEAST_SAMPLES, min(affordable, _MOST_SAMPLES)))


def describe_samples() -> dict[str, Any]:
    """Returns what decides how many samples judge."""
    return {"least": _LEAST_SAMPLES, "most": _MOST_SAMPLES, "work": _TRIAL_WORK}


def _count_work(request: BuildRequest, feeds: Feeds) -> float:
    try:
        return sum(measure_work(load_model(request.model_path), feeds, request.scratch).values())
    except BuildFailedError:  # with outputs added ONNX Runtime may refuse what it runs without
        return 0.0


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
