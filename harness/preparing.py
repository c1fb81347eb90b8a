"""The models of a comparison, exported and with FP32's answers: one that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.faults import as_error
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.shapes import require_shapes_fit
from modelwright.harness.building import prepare
from modelwright.harness.given_samples import export_alone
from modelwright.harness.progress import Progress
from modelwright.harness.request import Request
from modelwright.harness.results.assemble import Absent
from modelwright.harness.run.inputs import require_memory
from modelwright.harness.variants import Prepared, Subject, in_name_of, require_alike
from modelwright.targets.building.evidence import Evidence


def prepare_all(
    request: Request, folder: Path, scratch: Path, tell: Progress, *, lost: Mapping[str, ModelwrightError]
) -> tuple[list[Prepared], list[Absent]]:
    """Exports every model, and has FP32 answer the samples, which are made once for all.

    Args:
        request: What is compared.
        folder: Of the comparison.
        scratch: For samples and answers.
        tell: Told what is going on.
        lost: Models that are missing already, by name, and why.

    Returns:
        The models; and the rows of those that could not be prepared.

    Raises:
        ModelwrightError: The first one could not, which all others are held against.
    """
    prepared: list[Prepared] = []
    absent: list[Absent] = []
    stored: dict[str, Path] = {}
    for number, (subject, targets) in enumerate(zip(request.subjects, request.targets, strict=True)):
        try:
            if subject.name is not None and subject.name in lost:
                raise lost[subject.name]
            with in_name_of(subject.name):
                prepared.append(_prepare(request, subject, folder, scratch / str(number), prepared, stored, tell))
        except Exception as error:  # whatever it is, the other models are compared
            fault = as_error(error, f"preparing {subject.name or subject.source}")
            if not number:
                raise fault from error
            if subject.name not in lost:
                tell.finish(f"lost:{subject.name}", fault.message, ok=False)
            absent += [Absent(target=target, status="failed", error=fault, variant=subject.name) for target in targets]
    return prepared, absent


def _prepare(
    request: Request,
    subject: Subject,
    folder: Path,
    scratch: Path,
    earlier: Sequence[Prepared],
    stored: dict[str, Path],
    tell: Progress,
) -> Prepared:
    place = folder / subject.place
    try:
        export, evidence = prepare(
            subject.source,
            model_path=place / "model" / "model.onnx",
            samples=request.samples,
            evaluation=request.evaluation,
            limit=request.evaluation_limit,
            tasks=request.tasks,
            states=request.states,
            max_drop=request.max_drop,
            metric=request.metric,
            scratch=scratch,
            stored=stored,
            overwrite=request.overwrite,
            fresh=request.fresh,
            trust=request.trust,
            progress=tell,
            admit=_require_alike_to(earlier),
        )
    except BadInputError:
        if earlier:
            _blame_inputs(request, subject, scratch, earlier[0], tell)
        raise
    _check_batch(export.model, evidence, request.settings.batch)
    require_shapes_fit(request.choices.shapes, export.model.signature)
    request.choices.require_plan_fits(export.model)
    return Prepared(name=subject.name, folder=place, export=export, evidence=evidence)


def _require_alike_to(prepared: Sequence[Prepared]) -> Callable[[ExportedModel], None]:
    return lambda model: require_alike(prepared[0], model) if prepared else None


def _blame_inputs(request: Request, subject: Subject, scratch: Path, first: Prepared, tell: Progress) -> None:
    """Refuses a model for inputs that differ from the first one's, where that is why it failed.

    The samples fit the first one: a hint to rename theirs would only break that.
    """
    try:
        found = export_alone(
            subject.source,
            scratch / "alone",
            lambda text: tell.say("export", text),
            fresh=request.fresh,
            trust=request.trust,
        )
    except ModelwrightError:
        return  # it fails without samples, too
    require_alike(first, found)


def _check_batch(exported: ExportedModel, evidence: Evidence, batch: int) -> None:
    inputs = exported.signature.inputs
    if batch != 1 and not exported.signature.batch_is_dynamic:
        raise BadInputError(
            f"--batch {batch}: the model's first dimensions are fixed: {'; '.join(spec.describe() for spec in inputs)}",
            hint="export it with a dynamic first dimension, or measure with --batch 1",
        )
    shapes = evidence.sampled_shapes
    sample = {spec.name: np.broadcast_to(np.empty((), spec.dtype), shapes[spec.name][0]) for spec in inputs}
    require_memory(sample, batch)
