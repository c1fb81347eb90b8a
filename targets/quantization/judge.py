"""Compares candidates with FP32 on the samples that a search judges by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.outputs.tasks.roles import OutputRole, find_roles
from modelwright.core.samples.sample_set import SampleSet
from modelwright.targets.contract import Array, BuildRequest, Feeds
from modelwright.targets.graphs.files import find_external_files
from modelwright.targets.quantization.goal import Figures

Outputs = Mapping[str, Array]
"""One inference's outputs: ONNX name -> array."""

_MOST_SAMPLES = 64


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The samples that judge, and FP32's answers to them.

    Attributes:
        samples: The tuning samples; the calibration samples where there are none.
        part: Which of them: `tuning` or `calibration`.
        reference: FP32's outputs, one mapping a sample: as many samples judge.
        roles: What the outputs mean.
        model_bytes: Size of the FP32 model with its weights: what a trial costs goes with it.
    """

    samples: SampleSet
    part: str
    reference: Sequence[Outputs]
    roles: Mapping[str, OutputRole]
    model_bytes: int = 0

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
        return Judge(samples=samples, part=part, reference=reference[:count], roles=roles, model_bytes=size)

    def judge(self, run: Callable[[Iterable[Feeds]], Iterable[Outputs]], limit: int | None = None) -> Figures:
        """Runs a candidate sample by sample and returns how closely it follows FP32.

        Args:
            run: Takes inputs and gives their outputs, one after the other.
            limit: Judge on no more samples than these.
        """
        reference = self.reference[:limit]
        found = run(self.samples.feeds(len(reference)))
        labels = None if self.samples.labels is None else map(int, self.samples.labels)
        return Figures.from_fidelity(compare_outputs(reference, found, self.roles, labels))

    def to_dict(self) -> dict[str, Any]:
        return {"part": self.part, "samples": len(self.reference)}
