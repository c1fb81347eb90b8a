"""`modelwright mix`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelwright.cli import options


@click.command(
    cls=options.SectionedCommand,
    short_help="Choose bits for each layer, by what it loses and the energy that it takes.",
)
@click.argument("source")
@options.samples_option
@options.evaluation_option
@options.evaluation_limit_option
@options.made_sample_options("samples", "evaluation")
@options.task_option
@click.option(
    "--bits", default="8,6,4", show_default=True, metavar="N,N,...",
    help="What layers may get, from 2 to 16: weights and activations alike.",
)  # fmt: skip
@click.option(
    "--method",
    type=click.Choice(("sensitivity", "nuclear")),
    default="sensitivity",
    show_default=True,
    help="What says how much a layer suffers: by how much rounding changes what it makes, ||y_full - y_quant||_2, or "
    "that times the nuclear norm of what it makes, of attention's map in a transformer.",
)
@click.option(
    "--rank-aware",
    is_flag=True,
    help="For transformers: choose the scales of attention's operands to keep the order of its scores, where samples "
    "held aside say that it helps. The table has both.",
)
@click.option(
    "--granularity",
    type=click.Choice(("tensor", "channel")),
    default="channel",
    show_default=True,
    help="Of the plan: one scale for each weight, or for each of its output channels. The table has both.",
)
@click.option(
    "--ranges",
    type=click.Choice(("mse", "minmax")),
    default="mse",
    show_default=True,
    help="Where the numbers of few bits end, in all rows: where the squared error is least, or at the largest value "
    "seen, as quantization after training is taught.",
)
@click.option(
    "--max-drop",
    type=options.NOT_NEGATIVE,
    metavar="POINTS",
    help="The least energy that loses no more than so many points against FP32. Exit code 7 where the samples that "
    "judge say otherwise.",
)
@click.option(
    "--max-error",
    type=options.POSITIVE,
    metavar="SHARE",
    help="The least energy with an estimated error of the answers within a share of them, such as 0.1.",
)
@options.profile_option
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder for what is found.")
@options.overwrite_option
@options.fresh_option
@options.trust_option
@options.json_option
def mix(
    source: str,
    out: str,
    bits: str,
    method: Any,
    granularity: Any,
    ranges: Any,
    rank_aware: bool,
    max_drop: float | None,
    max_error: float | None,
    as_json: bool,
    **rest: Any,
) -> int:
    """Choose how many bits each layer of SOURCE gets, by what rounding it costs and by the energy that it takes.

    Convolutions, matrix products and those of attention are rounded, weights and activations, in a simulation that
    runs in ONNX Runtime: at each width everywhere, mixed by thirds of the layers' sensitivity, and mixed by an integer
    program. Without a limit the plan is what loses least at the energy of the middle width. Energies are estimates:
    multiplications and traffic of memory, counted on the graph, times what one takes in 45 nm.

    \b
    Examples:
      modelwright mix vit.py:create -s images.npz -o mixed
      modelwright mix net.onnx -s images.npz --bits 8,4 --max-drop 1 -o mixed
      modelwright build vit.py:create -s images.npz --plan mixed/plan.json -o b

    The folder gets plan.json, which `build --plan` carries out; mix.json and mix.csv with all that was judged; and
    pareto.png and .svg.
    """
    from modelwright.cli.hub import fetch_source
    from modelwright.cli.printing import close_progress, open_progress, print_json, print_line
    from modelwright.core.records.codec import encode
    from modelwright.harness.mixing.mixing import mix as run
    from modelwright.harness.mixing.settings import Settings, parse_bits
    from modelwright.harness.mixing.wording import list_sentences, list_table

    settings = Settings(
        bits=parse_bits(bits),
        method=method,
        granularity=granularity,
        ranges=ranges,
        rank_aware=rank_aware,
        max_drop=max_drop,
        max_error=max_error,
    )
    source = fetch_source(source, trust=rest["trust"])
    progress = open_progress()
    try:
        found = run(source, out=out, settings=settings, progress=progress, **rest)
    finally:
        close_progress(progress)
    if as_json:
        print_json(encode(found))
        return 0
    for line in list_table(found):
        print_line(line)
    click.echo()
    for line in (*list_sentences(found), *(f"note: {note}" for note in found.notes)):
        print_line(line)
    click.echo(f"\n{Path(out) / 'plan.json'}  mix.json  mix.csv  pareto.png  pareto.svg")
    return 0
