"""`modelwright measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelwright.cli import language as language_models
from modelwright.cli import options


@click.command(cls=options.SectionedCommand, short_help="Measure artifacts on this machine, side by side.")
@click.argument("artifacts", nargs=-1, required=True)
@click.option(
    "-s", "--samples", metavar="SAMPLES", help="What to run on and, with labels, to count right answers on: as `build` "
    "takes it; pictures are made into inputs as for the artifact, unless --preprocess says otherwise. "
    "Default: the inputs packed with each artifact.",
)  # fmt: skip
@options.made_sample_options("samples")
@click.option("--baseline", metavar="TARGET", help="What speed-ups are over. [ort-fp32 if given, else the first]")
@options.profile_option
@click.option("-o", "--out", type=click.Path(), metavar="results.json", help="Write the results here.")
@options.overwrite_option
@options.show_paths_option
@options.details_option
@options.json_option
@options.setting_option
@click.option("--untuned", is_flag=True, help="Run artifacts that were tuned as if they were not.")
@language_models.measuring_options
@options.measuring_options
def measure(
    artifacts: tuple[str, ...],
    untuned: bool,
    out: str | None,
    overwrite: bool,
    show_paths: bool,
    details: bool,
    as_json: bool,
    language: dict[str, Any],
    **measuring: Any,
) -> int:
    """Measure artifacts on this machine, side by side.

    Copy an artifact's folder to the device and run this there. It needs modelwright and that artifact's runtime,
    nothing else (the extras whose names end in -run, such as `tflite-run` or `tensorrt-run`). Every artifact carries a
    few inputs with FP32's outputs and is compared with them here, on the machine that will serve.

    \b
    Examples:
      modelwright measure comparison/artifacts/*
      modelwright measure digits-tflite-int8 --threads 4 --out pi5.json
      modelwright measure ort-int8 --threads 2 --setting spinning=false

    An artifact that `modelwright tune` made runs as it was tuned. What you say goes before that: --threads before the
    tuned number of threads, --setting before the tuned value of that setting, --untuned before everything.
    """
    from modelwright.cli.printing import print_comparison, progress_of_a_comparison, require_limits
    from modelwright.core.records.language_artifact import is_language_artifact
    from modelwright.harness import measure as run
    from modelwright.harness.results.paths import relate_paths
    from modelwright.harness.writing import UnfinishedError, write_results

    if out is not None:
        _check_out(Path(out), overwrite=overwrite)
    generating = [artifact for artifact in artifacts if is_language_artifact(Path(artifact))]
    if generating:
        _require_all(artifacts, generating)
        language_models.refuse_for_language(generating[0])
        kept = language_models.keep_applicable(measuring)
        return language_models.measure_language_artifacts(
            artifacts, language, out=out, details=details, as_json=as_json, **kept
        )
    language_models.refuse_for_others(language)
    unfinished = None
    with progress_of_a_comparison(as_json=as_json, details=details) as progress:
        try:
            comparison = run(artifacts, tuned=not untuned, progress=progress, **measuring)
        except UnfinishedError as error:  # measured is measured: it is written and printed as if nothing had failed
            comparison, unfinished = error.comparison, error
    if not show_paths:
        comparison = relate_paths(comparison, Path(out or "results.json").parent)
    # Written first: whoever reads the table, such as `head`, may leave in the middle of it.
    faults = [] if out is None else write_results(Path(out), comparison)
    print_comparison(comparison, as_json=as_json, details=details)
    for fault in (*([] if unfinished is None else [unfinished]), *faults):
        raise fault
    require_limits(comparison)
    return 0


def _require_all(artifacts: tuple[str, ...], generating: list[str]) -> None:
    """Refuses artifacts that generate beside others: a turn of the one is an answer, of the other an inference."""
    from modelwright.core.errors import UsageError

    others = [artifact for artifact in artifacts if artifact not in generating]
    if others:
        raise UsageError(
            f"{generating[0]} generates text, and {others[0]} does not: they have no figures in common",
            hint="measure them in calls of their own",
        )


def _check_out(out: Path, *, overwrite: bool) -> None:
    """Refuses a place that cannot be written before minutes of measuring are spent."""
    from modelwright.core.errors import BadInputError
    from modelwright.core.files import require_writable

    if out.is_dir():
        raise BadInputError(f"{out} is a folder", hint=f"give the file: {out / 'results.json'}")
    if out.is_file() and not overwrite:
        raise BadInputError(f"{out} exists", hint="choose another --out, or add --overwrite")
    require_writable(out)
