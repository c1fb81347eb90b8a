"""A study from its file to its report: compress, compare, count the fleet, plot.

All that takes long is kept in the output folder and found again: training goes on from its last epoch, artifacts whose
inputs have not changed are not built again, and what was measured stays for as long as nothing changes that decides it.
"""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError, ModelwrightError, UsageError
from modelwright.core.faults import as_error
from modelwright.core.files import require_writable, write_bytes, write_text
from modelwright.core.records.codec import encode
from modelwright.core.samples.source import add_preprocessing
from modelwright.harness.claimed import claimed_folder, spell_source
from modelwright.harness.comparing import carry_out
from modelwright.harness.earlier import EarlierRun
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.report.fleet import render_fleet_csv
from modelwright.harness.request import Request, make_request
from modelwright.harness.results.fleet_record import Usage
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.record import Comparison
from modelwright.harness.study.file import FleetTable, StudyFile, read_study
from modelwright.harness.study.places import fetch_models, locate, locate_labels, require_there
from modelwright.harness.study.plot import draw_study, require_matplotlib
from modelwright.harness.study.sources import Sources
from modelwright.harness.writing import UnfinishedError
from modelwright.targets.table import get_target

FLEET = "fleet.csv"
PLOTS = ("comparison.png", "comparison.svg")


def run_study(
    path: str | Path,
    *,
    out: str | Path | None = None,
    measure_again: bool = False,
    overwrite: bool = False,
    fresh: bool = False,
    show_paths: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Carries out a study: variants of a model and targets of each, measured together.

    Args:
        path: A TOML file; `modelwright study --help` shows one.
        out: A folder: `report.html`, `results.json`, `results.csv`, `comparison.png` and `comparison.svg`, `fleet.csv`;
            compressed models in `sources/NAME`, and `variants/NAME/` with `model/` and `artifacts/TARGET/`. None for
            one in the working directory that is called as the file is.
        measure_again: Measure although nothing has changed that decides it.
        overwrite: Use `out` even though it holds something else.
        fresh: Export again although nothing that can be seen has changed.
        show_paths: Write paths as they were given.
        trust: Run code that a saved program, a source, holds.
        progress: Told what is going on.

    Returns:
        What `results.json` holds.

    Raises:
        BadInputError: The file is wrong, naming table and key; or as `compare`.
        ToolchainMissingError: Nothing here draws plots; or as `compare`.
        LimitNotMetError, BuildFailedError, MeasurementInvalidError, UnfinishedError: As `compare`.
    """
    path = Path(path)
    read = read_study(path)
    require_there(read, path)
    require_matplotlib()
    folder = Path(path.stem) if out is None else Path(out)
    tell = Undisturbed(progress)
    read = fetch_models(read, path, tell, trust=trust)
    sources = Sources(read, path, folder)
    request = _make_request(read, path, sources, fresh=fresh, show_paths=show_paths, trust=trust)
    usage = None if read.fleet is None else _describe_usage(read.fleet)
    with claimed_folder(folder, spell_source(path), overwrite=overwrite):
        for name in (*PLOTS, *([] if usage is None else [FLEET])):
            require_writable(folder / name)
        lost = sources.make(tell, trust=trust)
        earlier = EarlierRun(folder, again=measure_again)
        comparison = carry_out(request, folder, tell, earlier=earlier, usage=usage, lost=lost)
        faults = _write(folder, comparison, read.report.target_reduction)
    if faults:
        raise UnfinishedError(comparison, faults)
    return comparison


def _make_request(
    read: StudyFile, path: Path, sources: Sources, *, fresh: bool, show_paths: bool, trust: bool
) -> Request:
    _check_targets(read, path)
    measure, samples = read.measure, read.samples
    limits = encode(read.limits)
    metric = limits.pop("metric")
    is_file = measure.profile.endswith(".toml")
    try:
        calibrate, judge = add_preprocessing(
            [None if text is None else locate(text, path) for text in (samples.calibrate, samples.judge)],
            samples.preprocess,
            locate_labels(samples.labels, path),
        )
        assert calibrate is not None
        return make_request(
            sources.list_subjects(),
            samples=calibrate,
            evaluation=judge,
            evaluation_limit=samples.judge_limit,
            task=samples.task,
            states=samples.states,
            targets=read.targets,
            baseline=read.baseline,
            effort=measure.effort,
            profile=locate(measure.profile, path) if is_file else measure.profile,
            threads=measure.threads,
            batch=measure.batch,
            seed=measure.seed,
            device=measure.device,
            settings=measure.settings,
            options=measure.options,
            region=read.region,
            limits=Limits(**limits),
            metric=None if metric is None else locate(metric, path),
            overwrite=True,  # of its own folder: what a changed file asks for takes the place of what it asked for
            fresh=fresh,
            show_paths=show_paths,
            trust=trust,
        )
    except UsageError as error:
        raise BadInputError(f"study {path}: {error.message}", hint=error.hint) from error


def _check_targets(read: StudyFile, path: Path) -> None:
    lists = {"baseline": (read.baseline,), "targets": read.targets or ()}
    lists |= {f"variants.{name}.targets": variant.targets or () for name, variant in read.variants.items()}
    for key, names in lists.items():
        for name in names:
            try:
                get_target(name)
            except UsageError as error:
                raise BadInputError(f"study {path}: {key}: {error.message}", hint=error.hint) from error


def _describe_usage(fleet: FleetTable) -> Usage:
    by_day = fleet.inferences_per_day is not None
    inferences = fleet.inferences_per_day if by_day else fleet.inferences_per_week
    assert inferences is not None
    return Usage(
        inferences=inferences,
        period="day" if by_day else "week",
        devices=fleet.devices,
        price_per_kwh=fleet.price_per_kwh,
        currency=fleet.currency,
        price_source=fleet.price_source,
    )


def _write(folder: Path, comparison: Comparison, target_reduction: float) -> list[ModelwrightError]:
    """Writes the plots and the fleet's table; what fails does not take the results with it."""
    faults = []
    try:
        for name, image in zip(PLOTS, draw_study(comparison, target_reduction), strict=True):
            write_bytes(folder / name, image)
        if comparison.fleet is not None:
            write_text(folder / FLEET, render_fleet_csv(comparison.fleet))
    except Exception as error:  # whatever it is, results.json and report.html are there
        faults.append(as_error(error, f"drawing the plots of {folder}"))
    return faults
