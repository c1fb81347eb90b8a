"""`modelwright export`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelwright.cli import options
from modelwright.cli.printing import close_progress, open_progress, print_json, print_line

if TYPE_CHECKING:
    from modelwright.core.samples.source import Named


@click.command(short_help="Turn a source into a verified ONNX model.")
@click.argument("source")
@click.option("-o", "--out", required=True, type=click.Path(dir_okay=False), help="The ONNX file to write.")
@click.option(
    "-s",
    "--samples",
    metavar="SAMPLES",
    help="Real inputs to compare the ONNX model with its source on. Default: the factory's example inputs.",
)
@options.picture_options("samples")
@options.overwrite_option
@click.option("--fresh", is_flag=True, help="Export again although nothing that can be seen has changed.")
@options.trust_option
@options.json_option
def export(
    source: str, out: str, samples: Named | None, overwrite: bool, fresh: bool, trust: bool, as_json: bool
) -> int:
    """Turn SOURCE into a verified ONNX model.

    SOURCE is model.onnx (checked and passed through), model.pt2, or file.py:factory, which is run. The result is
    compared with its source on the samples; beyond the tolerance the export fails and names the worst output. Beside
    the model lie its record, NAME.export.json (signature, opset, hashes, errors, versions), and of a PyTorch source the
    captured program, NAME.program.pt2, which the torch-* targets run.

    An export is not made again while all that it was seen to depend on has the same content: code, files, folders,
    variables, packages, samples. Not seen are time, chance, hardware, edits inside installed packages, and what native
    code reads on its own: use --fresh after these. A source that starts programs or asks the network is exported each
    time. NAME.made-from.json lists what was seen. Exports of PyTorch sources are kept in the cache folder too, in at
    most 10 GB (MODELWRIGHT_EXPORTS_GB) and a tenth of the free disk.

    \b
    Examples:
      modelwright export net.py:create --out net.onnx --samples images.npz
    """
    from modelwright.core.records.codec import encode
    from modelwright.core.samples.sample_set import SampleRef
    from modelwright.core.scratch import scratch_directory
    from modelwright.exporters.exporting import find_or_export
    from modelwright.harness.given_samples import place_for_export

    progress = open_progress()
    try:
        with scratch_directory() as scratch:
            progress.start("export", f"exporting {source}")
            ref = None
            if samples is not None:
                say = partial(progress.say, "export")
                ref = SampleRef(path=place_for_export(source, samples, Path(scratch), say, fresh=fresh, trust=trust))
            found = find_or_export(
                source,
                Path(out),
                samples=ref,
                overwrite=overwrite,
                fresh=fresh,
                trust=trust,
                progress=lambda text: progress.say("export", text),
            )
        progress.finish("export", found.summarize())
    finally:
        close_progress(progress)
    exported = found.model
    if as_json:
        print_json(encode(exported) | found.describe())
        return 0
    click.echo(f"{exported.model_path}")
    for spec in exported.signature.inputs:
        print_line(f"  input   {spec.describe()}")
    for spec in exported.signature.outputs:
        print_line(f"  output  {spec.describe()}")
    for note in exported.notes:
        print_line(f"note: {note}")
    return 0
