"""`modelwright export`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelwright.cli import options
from modelwright.cli.printing import close_progress, open_progress, print_json, print_line
from modelwright.core.errors import UsageError

if TYPE_CHECKING:
    from modelwright.core.samples.source import Named


@click.command(short_help="Turn a source into a verified ONNX model.")
@click.argument("source")
@click.option(
    "-o", "--out", required=True, type=click.Path(), help="The ONNX file to write; the folder, for a language model."
)
@click.option(
    "-s",
    "--samples",
    metavar="SAMPLES",
    help="Real inputs to compare the ONNX model with its source on. Default: the factory's example inputs.",
)
@options.made_sample_options("samples")
@options.overwrite_option
@click.option("--fresh", is_flag=True, help="Export again although nothing that can be seen has changed.")
@options.trust_option
@click.option(
    "--low-memory",
    is_flag=True,
    help="Of a language model: hold the weights of one module at a time while its export is compared with PyTorch, "
    "which reads them anew for each token.",
)
@options.json_option
def export(
    source: str,
    out: str,
    samples: Named | None,
    overwrite: bool,
    fresh: bool,
    trust: bool,
    low_memory: bool,
    as_json: bool,
) -> int:
    """Turn SOURCE into a verified ONNX model.

    SOURCE is model.onnx (checked and passed through), model.pt2, file.py:factory, which is run, or a folder of
    transformers that classifies or embeds texts, which texts (.jsonl, .csv, .txt) are samples for. The result is
    compared with its source on the samples; beyond the tolerance the export fails and names the worst output. Beside
    the model lie its record, NAME.export.json (signature, opset, hashes, errors, versions), and of a PyTorch source the
    captured program, NAME.program.pt2, which the torch-* targets run.

    An export is not made again while all that it was seen to depend on has the same content: code, files, folders,
    variables, packages, samples. Not seen are time, chance, hardware, edits inside installed packages, and what native
    code reads on its own: use --fresh after these. A source that starts programs or asks the network is exported each
    time. NAME.made-from.json lists what was seen. Exports of PyTorch sources are kept in the cache folder too, in at
    most 10 GB (MODELWRIGHT_EXPORTS_GB) and a tenth of the free disk.

    A transformers folder of a causal language model, or a GGUF file, becomes a folder: a graph that takes and gives its
    cache, written from config.json and safetensors, its weights beside it, and the tokenizer's files. Its logits and
    greedy tokens are compared with PyTorch's; no code of the folder runs.

    \b
    Examples:
      modelwright export net.py:create --out net.onnx --samples images.npz
      modelwright export ./SmolLM2-135M --out smollm2
    """
    from modelwright.cli.hub import fetch_source
    from modelwright.exporters.language.source import is_language_source

    source = fetch_source(source, trust=trust)
    if is_language_source(source):
        if samples is not None:
            raise UsageError("--samples: not for a language model", hint="leave it out")
        return _export_language(
            source, out, overwrite=overwrite, fresh=fresh, low_memory=low_memory, trust=trust, as_json=as_json
        )
    if low_memory:
        raise UsageError("--low-memory is for language models", hint="leave it out")
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


def _export_language(
    source: str, out: str, *, overwrite: bool, fresh: bool, low_memory: bool, trust: bool, as_json: bool
) -> int:
    from modelwright.core.records.codec import encode
    from modelwright.exporters.language import export_language

    progress = open_progress()
    try:
        progress.start("export", f"exporting {source}")
        model = export_language(
            source,
            out,
            overwrite=overwrite,
            fresh=fresh,
            low_memory=low_memory,
            trust=trust,
            progress=lambda text: progress.say("export", text),
        )
        progress.finish("export", model.summarize())
    finally:
        close_progress(progress)
    if as_json:
        print_json(encode(model))
        return 0
    click.echo(out)
    print_line(f"  {model.summarize()}")
    for note in model.notes:
        print_line(f"note: {note}")
    return 0
