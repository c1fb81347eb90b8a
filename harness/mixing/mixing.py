"""The parent side of a mix: export, samples, the child, the files. Reads no model."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError, LimitNotMetError
from modelwright.core.outputs.states import parse_states
from modelwright.core.outputs.tasks.roles import parse_task
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.samples.materialize import is_random
from modelwright.core.samples.source import Named
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.exporting import Export
from modelwright.harness.building import prepare, require_no_others
from modelwright.harness.mixing.planning import make_plan
from modelwright.harness.mixing.record import Mixture
from modelwright.harness.mixing.settings import Settings, require_sound_limits
from modelwright.harness.mixing.worker import Request
from modelwright.harness.mixing.writing import (
    RESULT,
    discard_other_mix,
    discard_plan,
    require_no_other_mix,
    require_places,
    write_mixture,
)
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.profiles import detect_host, load_profile
from modelwright.profiles.technology import Technology
from modelwright.targets.building.evidence import EVALUATION_LIMIT, Evidence

CHILD_LIMIT_S = 6 * 3600.0
"""For what hangs: samples and choices are counted."""
_ROUNDING = 1e-9
_NOISE = "the samples are noise: on real ones other layers may suffer, and grids end elsewhere"


def mix(
    source: str | Path,
    *,
    samples: Named,
    out: str | Path,
    settings: Settings,
    evaluation: Named | None = None,
    evaluation_limit: int = EVALUATION_LIMIT,
    task: str | None = None,
    profile: str = "host",
    fresh: bool = False,
    trust: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Mixture:
    """Chooses bits for each layer of a model, and judges the choice in a simulation.

    Args:
        source: `model.onnx`, `model.pt2` or `file.py:factory`.
        samples: `.npz`, `file.py:function`, or `random[:COUNT]` for noise; calibrate and choose, and half of them judge
            unless `evaluation` is given.
        out: A folder for the model, `mix.json`, `mix.csv`, `plan.json` and the plot.
        settings: What is asked for.
        evaluation: Samples that only judge.
        evaluation_limit: Judge on at most this many samples.
        task: What the outputs mean; None finds it in FP32's answers.
        profile: Whose technology estimates of energy count with.
        fresh: Export again although nothing that can be seen has changed.
        trust: Run code that a saved program, the source, holds.
        overwrite: Replace the model of another source that lies in `out`.
        progress: Told what is going on.

    Raises:
        UsageError: Settings that make no sense.
        BadInputError: Source, samples or `out` cannot be used, or the model has no layer to choose bits for.
        BuildFailedError: The export does not follow the source.
        LimitNotMetError: No bits keep to the limit that was set; there is no plan then.
    """
    require_sound_limits(settings)
    tell, folder = Undisturbed(progress), Path(out)
    technology = (detect_host() if profile == "host" else load_profile(profile)).technology
    with made_folder(folder), locked_folder(folder), scratch_directory(folder) as scratch:
        require_places(folder)
        export, evidence = prepare(
            source,
            model_path=folder / "model" / "model.onnx",
            samples=samples,
            evaluation=evaluation,
            limit=evaluation_limit,
            tasks=parse_task(task) if task else {},
            states=parse_states(()),
            scratch=Path(scratch),
            overwrite=overwrite,
            fresh=fresh,
            trust=trust,
            progress=tell,
            review=lambda exported: None if overwrite else _require_nothing_of_others(folder, exported),
        )
        discard_other_mix(folder, export.model)
        request = _request(str(source), export, evidence, settings, technology, Path(scratch))
        tell.start("mix", "mixing precisions")
        try:
            found = run_in_child(
                "modelwright.harness.mixing.worker:mix_in_child",
                {"request": encode(request)},
                purpose=f"mixing precisions of {source}",
                crash_error=BuildFailedError,
                timeout_s=CHILD_LIMIT_S,
                progress=lambda text: tell.say("mix", text),
            )
        except LimitNotMetError:
            discard_plan(folder)
            raise
        mixture = decode(Mixture, found)
        if is_random(str(samples)):
            mixture = replace(mixture, notes=(*mixture.notes, _NOISE))
        tell.finish("mix", _summarize(mixture))
        kept = _keeps_limit(mixture)
        write_mixture(folder, mixture, make_plan(mixture) if kept else None)
    if not kept:
        raise _explain_lost(mixture, folder)
    return mixture


def _require_nothing_of_others(folder: Path, exported: ExportedModel) -> None:
    require_no_others(folder, exported)
    require_no_other_mix(folder, exported)


def _request(
    source: str, export: Export, evidence: Evidence, settings: Settings, technology: Technology, scratch: Path
) -> Request:
    model: ExportedModel = export.model
    if evidence.calibration is None:
        raise BadInputError(
            f"{evidence.described['evaluation']['path']} has too few samples: one part calibrates, another judges",
            hint="give 8 samples or more, or those that judge with --eval",
        )
    if settings.max_drop is not None and evidence.tuning is None:
        raise BadInputError(
            f"{evidence.described['calibration']['path']} has too few samples for --max-drop: those that choose the "
            "bits are others than those that calibrate and judge",
            hint="give 8 samples or more, and 4 or more with --eval; or --max-error, which needs none that choose",
        )
    return Request(
        model=source,
        model_path=model.model_path,
        onnx_sha256=model.sha256,
        signature=model.signature,
        calibration=evidence.calibration,
        tuning=evidence.tuning,
        evaluation=evidence.evaluation,
        reference=evidence.reference,
        roles=evidence.roles,
        doubts=evidence.doubts,
        settings=settings,
        technology=technology,
        scratch=scratch,
    )


def _summarize(mixture: Mixture) -> str:
    count = len(mixture.layers)
    layers = f"{count} layer{'s' if count != 1 else ''}"
    return f"{layers}, {len(mixture.rows)} ways to give bits judged; the plan is {mixture.chosen.name}"


def _points_lost(mixture: Mixture) -> float:
    return 100 * (mixture.rows[0].quality.value - mixture.chosen.quality.value)


def _keeps_limit(mixture: Mixture) -> bool:
    limit = mixture.settings.max_drop
    return limit is None or _points_lost(mixture) <= limit + _ROUNDING


def _explain_lost(mixture: Mixture, folder: Path) -> LimitNotMetError:
    lost, quality = _points_lost(mixture), mixture.chosen.quality
    return LimitNotMetError(
        f"the plan loses {lost:.3g} points of {quality.measure} on the {quality.samples} samples that judge, and "
        f"--max-drop allows {mixture.settings.max_drop:g}; it kept to that on those that choose. No plan was written",
        hint=f"{folder / RESULT} has all that was judged; allow more, or less, so that chance has room",
    )
