"""`modelwright demo`."""

from __future__ import annotations

from pathlib import Path

import click

from modelwright.cli import options


@click.command(short_help="Run everything on the embedded example.")
@click.option("-o", "--out", default="demo", show_default=True, type=click.Path(), help="Folder for the results.")
@click.option("-e", "--effort", type=click.Choice(options.EFFORT_NAMES), default="standard", show_default=True)
@options.show_paths_option
@options.details_option
@options.json_option
def demo(out: str, effort: str, show_paths: bool, details: bool, as_json: bool) -> int:
    """Run everything on the embedded example and show what comes out.

    A small residual CNN that reads handwritten digits is exported, built for every target that suits this machine,
    proved against FP32 on held-out images, measured, and compared. Takes one to three minutes. Needs no data and no
    network, but for the first build of a TFLite target.
    """
    from modelwright import examples
    from modelwright.cli.printing import print_comparison, progress_of_a_comparison
    from modelwright.harness import compare

    folder = Path(next(iter(examples.__path__))) / "digits"
    click.echo("digits: a residual CNN for 32x32 images in 10 classes, and real images to judge by", err=True)
    with progress_of_a_comparison(as_json=as_json, details=details) as progress:
        comparison = compare(
            f"{folder / 'model.py'}:create_model",
            samples=folder / "samples.npz",
            out=out,
            effort=effort,
            show_paths=show_paths,
            progress=progress,
        )
    print_comparison(comparison, as_json=as_json, details=details, folder=out)
    return 0
