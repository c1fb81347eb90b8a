"""How many times as fast one target is as another, with the interval that the rounds support.

All artifacts of a comparison take turns in the same rounds, so what disturbed the machine in a round disturbed both
of a pair: their ratio within the round is far steadier than their latencies. Of medians that holds as long as
inferences are left alone: `verdict.cautions` tells where others had the processor.
"""

from __future__ import annotations

from modelwright.harness.results.record import Comparison, Measurement
from modelwright.harness.results.statistics import SpeedRatio, estimate_ratio


class Speeds:
    """Answers questions about pairs of targets of one comparison; each pair is estimated once."""

    def __init__(self, comparison: Comparison) -> None:
        self._baseline = comparison.baseline
        baseline = comparison.find(comparison.baseline)
        self._baseline_rounds = frozenset(baseline.rounds if baseline is not None else ())
        self._pairs: dict[tuple[str, str], SpeedRatio | None] = {}

    def ratio(self, row: Measurement, other: Measurement) -> SpeedRatio | None:
        """Returns how many times as fast `row` is as `other`; None when one of them has no latency."""
        key = (row.target, other.target)
        if key not in self._pairs:
            found = self._compare(row, other)
            self._pairs[key] = found
            self._pairs[key[::-1]] = found.inverted if found is not None else None
        return self._pairs[key]

    def is_faster(self, row: Measurement, other: Measurement) -> bool:
        """Whether `row` is faster than `other`, beyond noise and beyond 2 %."""
        found = self.ratio(row, other)
        return found is not None and found.is_faster

    def is_same(self, row: Measurement, other: Measurement) -> bool:
        """Whether the two are indistinguishable in speed."""
        found = self.ratio(row, other)
        return found is not None and found.is_same

    def _compare(self, row: Measurement, other: Measurement) -> SpeedRatio | None:
        # Against the baseline the document has the answer, of all the rounds that the two share.
        for one, two in ((row, other), (other, row)):
            if two.target == self._baseline and one is not two and one.speedup and one.speedup.ci95:
                return one.speedup if one is row else one.speedup.inverted
        first, second = self._rounds(row), self._rounds(other)
        if not first and row.target == self._baseline:
            first = dict.fromkeys(second, 0.0)
        elif not second and other.target == self._baseline:
            second = dict.fromkeys(first, 0.0)
        differences = {index: first[index] - second[index] for index in sorted(first.keys() & second.keys())}
        found = estimate_ratio(differences, launches_of(row if row.rounds else other))
        if found is not None:
            return found
        # Without enough rounds of both, the latencies' ratio is all there is, and it has no interval.
        latency, other_latency = row.typical_ms, other.typical_ms
        if not latency or not other_latency:
            return None
        return SpeedRatio(ratio=other_latency / latency)

    def _rounds(self, row: Measurement) -> dict[int, float]:
        """Returns the log ratios against the baseline by round; a target that came late shares fewer rounds."""
        shared = sorted(self._baseline_rounds & set(row.rounds))
        if len(shared) != len(row.round_log_ratios):
            shared = list(range(len(row.round_log_ratios)))
        return dict(zip(shared, row.round_log_ratios, strict=True))


def launches_of(row: Measurement) -> dict[int, int]:
    """Returns round -> launch; empty for results of before there were several."""
    return dict(zip(row.rounds, row.launches, strict=bool(row.launches)))
