"""`modelwright schema`."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from modelwright.cli import options

_FORMATS = {
    "results": "modelwright.harness.results.schema:describe_results",
    "language": "modelwright.harness.language.schema:describe_language",
    "tune": "modelwright.harness.tuning.schema:describe_tuning",
}
"""Format -> what returns its JSON Schema."""


@click.command(short_help="Print the JSON Schema of a file that other programs read.")
@click.argument("name", metavar="FORMAT", type=click.Choice(tuple(_FORMATS)))
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it here instead.")
@options.overwrite_option
def schema(name: str, out: Path | None, overwrite: bool) -> int:
    """Print the JSON Schema of a file that other programs read.

    FORMAT is `results`, the results.json that compare and measure write, `language`, the one that they write for
    language models, or `tune`, the tune.json of a search. The schema has every key with its unit, what it means, and
    where it is null.

    \b
    Example:
      modelwright schema results --out results.schema.json
    """
    from modelwright.cli.printing import print_json
    from modelwright.core.errors import BadInputError
    from modelwright.core.files import write_json

    module, _, function = _FORMATS[name].partition(":")
    described = getattr(importlib.import_module(module), function)()
    if out is None:
        print_json(described)
        return 0
    if out.exists() and not overwrite:
        raise BadInputError(f"{out} exists", hint="choose another --out, or add --overwrite")
    write_json(out, described)
    return 0
