"""`modelwright tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli import options

if TYPE_CHECKING:
    from modelwright.harness.building import Built
    from modelwright.harness.tuning.record import Tuning


@click.command(
    cls=options.SectionedCommand, short_help="Search which artifact and which settings run best on this machine."
)
@click.argument("source")
@options.target_option
@options.samples_option
@options.evaluation_option
@options.evaluation_limit_option
@options.made_sample_options("samples", "evaluation")
@options.task_option
@options.state_option
@options.shapes_option
@options.build_option_option
@options.profile_option
@options.max_drop_option
@options.metric_option
@click.option(
    "--for",
    "goal",
    type=click.Choice(("latency", "throughput", "size", "energy")),
    default="latency",
    show_default=True,
    help="What is to be better: the time of one inference; samples a second with several in flight; bytes; joules.",
)
@click.option(
    "--budget",
    metavar="TIME",
    default="10m",
    show_default=True,
    help="What the trials may take, those of earlier runs among them: 90s, 10m, 2h, or a number of trials, such as 40. "
    "Building and the last measurement come on top.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads that may be used at most. [all that there are]",
)
@click.option(
    "--batch", type=click.IntRange(min=1, max=2**31 - 1), metavar="N", default=1, show_default=True,
    help="Samples an inference.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", default=0, show_default=True,
    help="Seed of the search and of the order of turns.",
)  # fmt: skip
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder for the search and what it finds.")
@click.option("--overwrite", is_flag=True, help="Begin anew in a folder that holds another search.")
@options.fresh_option
@options.trust_option
@options.json_option
def tune(source: str, targets: tuple[str, ...], out: str, as_json: bool, **settings: Any) -> int:
    """Search which artifact of SOURCE, with which settings of its runtime, runs best on this machine.

    Targets are built and proved as `build` does; what loses more than --max-drop allows is never tried. Then trials
    are made: threads, and what each runtime can be set to (`modelwright targets NAME` lists it), chosen by Optuna. A
    trial and the best until then take turns in short windows, so that what disturbs the machine disturbs both, and it
    ends as soon as it is plain that it cannot win. What wins must give the answers that were proved. At the end the
    winner is measured anew beside the defaults (one thread, or for throughput one request on all threads, and every
    setting as it is when nobody says anything); where it is not better beyond doubt, the defaults stay.

    \b
    Examples:
      modelwright tune bert.onnx -s texts.npz -t ort-int8 -t ort-fp32 -o tuned
      modelwright tune bert.onnx -s texts.npz --max-drop 0.5 -o tuned
      modelwright tune net.py:create -s x.npz --for size --budget 20m -o tuned
      modelwright measure tuned/best          runs it as it was tuned
      modelwright inspect tuned/best --snippet cpp

    The folder gets best/ (the artifact to ship, with its settings in the manifest), tune.json, trials.csv,
    report.html, what the search is of (search.json) and its journal: the same command goes on where it ended or was
    interrupted, with a higher --budget too. Another search is refused there before anything is built, and told apart.
    """
    from modelwright.cli.hub import fetch_source
    from modelwright.cli.printing import close_progress, open_progress, print_json
    from modelwright.core.records.codec import encode
    from modelwright.harness import tune as run

    source = fetch_source(source, trust=settings["trust"])
    progress = open_progress()
    try:
        found, built = run(source, out=out, targets=targets or None, progress=progress, **settings)
    finally:
        close_progress(progress)
    if as_json:
        print_json(encode(found))
    else:
        _print_found(found, Path(out))
    return _exit_code(built, targets)


def _print_found(found: Tuning, folder: Path) -> None:
    from modelwright.cli.printing import print_line
    from modelwright.harness.tuning.wording import describe_cost, describe_ratio, name_cost

    rows = [
        (
            final.role,
            describe_cost(final.cost, found.unit),
            "" if final.over_start is None else describe_ratio(final.over_start),
            "" if final.over_defaults is None else describe_ratio(final.over_defaults),
        )
        for final in found.finals
    ]
    if rows:
        table = [("measured anew", name_cost(found), "over the start", "over its defaults"), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        runs = ["", *(f"  {final.configuration.describe()}" for final in found.finals)]
        for row, how in zip(table, runs, strict=True):
            print_line("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
            if how:
                print_line(how)
    click.echo()
    print_line(found.sentence)
    for note in found.notes:
        print_line(f"note: {note}")
    if found.estimated:
        print_line(f"note: energies are estimates ({found.estimated}), not measurements")
    click.echo(f"\n{folder / 'best'}  report.html  tune.json  trials.csv")


def _exit_code(built: Built, asked: tuple[str, ...]) -> int:
    """Returns 0, or what tells a script that a target asked for by name is missing."""
    return max((absent.error.exit_code for absent in built.absent if absent.target in asked), default=0)
