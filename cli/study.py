"""`modelwright study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli import options

if TYPE_CHECKING:
    from modelwright.harness import Comparison


@click.command(
    cls=options.SectionedCommand,
    short_help="Compress, build, measure and plot variants of a model, as a file says.",
)
@click.argument("file", metavar="FILE.toml", type=click.Path(path_type=Path))
@click.option("--init", is_flag=True, help="Write a study to begin with to FILE.toml, every key explained, and end.")
@click.option(
    "-o", "--out", type=click.Path(), help="Folder for all that comes out. [FILE without .toml, in this folder]"
)
@click.option("--measure-again", is_flag=True, help="Measure again although nothing has changed that decides it.")
@options.overwrite_option
@options.fresh_option
@options.show_paths_option
@options.trust_option
@options.details_option
@options.json_option
def study(file: Path, init: bool, out: str | None, details: bool, as_json: bool, **settings: Any) -> int:
    """Compress, build, measure and plot variants of a model, as FILE.toml says.

    A variant is a source, and methods of `modelwright compress` that are done to it. The targets of all variants are
    measured in one interleaved run, against the FP32 answers of the first one.

    \b
      schema = 1
      targets = ["ort-fp32", "ort-int8"]
      [samples]
      calibrate = "train.npz"
      judge = "test.npz"
      [training]
      data = "train.npz"
      epochs = 5
      [variants.teacher]
      source = "net.py:create"
      [variants.half]
      source = "teacher"
      methods = ["prune:structured:0.5"]
      [variants.student]
      source = "net.py:create_student"
      targets = ["ort-fp32"]
      [limits]
      max_drop = 1.0
      [fleet]
      devices = [1000, 10000]
      inferences_per_day = 288
      price_per_kwh = 0.30
      currency = "EUR"
      price_source = "our contract of 2026"
      [grid]
      region = "DE"

    \b
    Examples:
      modelwright study study.toml --init
      modelwright study study.toml --out results

    The folder gets report.html, results.json, results.csv, comparison.png and .svg (energy, carbon, latency, and what
    is saved), fleet.csv, sources/NAME (compressed models) and variants/NAME/artifacts/TARGET. Ctrl-C loses no finished
    epoch and no finished artifact; the same command goes on from there. Run again, it does what the file has changed:
    a price or a grid is only counted anew, a method trains its own variant, and what was measured stays until a file
    that was measured, a setting, a version or the machine is another one.
    """
    from modelwright.cli.printing import print_comparison, progress_of_a_comparison, require_limits

    if init:
        return _write_template(file, overwrite=settings["overwrite"])
    from modelwright.harness import run_study as run

    with progress_of_a_comparison(as_json=as_json, details=details) as progress:
        comparison = run(file, out=out, progress=progress, **settings)
    folder = Path(file.stem) if out is None else Path(out)
    print_comparison(comparison, as_json=as_json, details=details)
    if not as_json:
        more = "  fleet.csv" if comparison.fleet is not None else ""
        click.echo(f"\n{folder / 'report.html'}  results.json  results.csv  comparison.png  comparison.svg{more}")
    require_limits(comparison)
    return _exit_code(comparison)


def _write_template(path: Path, *, overwrite: bool) -> int:
    from modelwright.core.errors import BadInputError
    from modelwright.core.files import write_text
    from modelwright.harness.study.file import read_template

    if path.exists() and not overwrite:
        raise BadInputError(f"{path} exists", hint="choose another name, or add --overwrite")
    write_text(path, read_template())
    click.echo(f"{path}: change what is yours, then: modelwright study {path}")
    return 0


def _exit_code(comparison: Comparison) -> int:
    """Returns 0, or what tells a script that a row is missing for another reason than that it loses too much."""
    from modelwright.core.errors import LimitNotMetError

    codes = {row.exit_code or 5 for row in comparison.measurements if row.status == "failed"}
    return max(codes - {LimitNotMetError.exit_code}, default=0)
