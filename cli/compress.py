"""`modelwright compress`."""

from __future__ import annotations

import click

from modelwright.cli import options


@click.command(cls=options.SectionedCommand, short_help="Make a smaller source: prune it, and train it again.")
@click.argument("source")
@click.argument("methods", nargs=-1, required=True, metavar="METHOD ...")
@click.option(
    "--train",
    required=True,
    metavar="DATA",
    help="What trains: a .npz keyed by input name with `labels` or `target_...`, class folders of pictures (with "
    "--preprocess), or file.py:function that yields batches or returns a data set. An eighth is held back and chooses "
    "among epochs.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="DATA",
    help="Other data, which only judge: the quality before and after, and --max-drop.",
)
@click.option(
    "--loss",
    default="cross-entropy",
    show_default=True,
    metavar="LOSS",
    help="cross-entropy (with `labels`), mse (with `target_...`), or file.py:function, which takes what the module "
    "returns and the batch.",
)
@click.option(
    "--epochs", type=click.IntRange(min=0, max=100_000), metavar="N", default=3, show_default=True,
    help="Passes over the training data, for each method.",
)  # fmt: skip
@click.option("--lr", type=options.POSITIVE, metavar="RATE", help="Learning rate at the start. [the method's own]")
@click.option(
    "--batch", type=click.IntRange(min=1, max=2**31 - 1), metavar="N", default=64, show_default=True,
    help="Samples a step.",
)  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**63 - 1),
    metavar="N",
    default=0,
    show_default=True,
    help="Of all chance.",
)
@click.option(
    "--budget",
    metavar="TIME",
    help="What training may take, of all methods and of earlier runs: 90s, 10m, 2h. What was best until then is taken.",
)
@click.option(
    "--max-drop",
    type=options.NOT_NEGATIVE,
    metavar="POINTS",
    help="Deliver nothing that loses more than so many points on --eval: hundredths of accuracy or of R2, per cent "
    "that a loss of your own rises. Exit code 7.",
)
@click.option(
    "--augment",
    metavar="FUNCTION",
    help="file.py:function that changes batches while they train, such as shifted and mirrored images: it takes a dict "
    "of tensors and returns one of the same names and shapes.",
)
@click.option(
    "--importance",
    type=click.Choice(("magnitude", "taylor")),
    default="magnitude",
    show_default=True,
    help="How prune:structured ranks channels: by their weights, or by the loss without them (Taylor).",
)
@click.option(
    "--distil-from-source",
    is_flag=True,
    help="Let methods other than distil learn from the answers of SOURCE too, as it was before, by a pass of it "
    "a step.",
)
@click.option(
    "--alpha", type=options.SHARE, metavar="SHARE", default=0.5, show_default=True,
    help="Of a teacher, that of distil or SOURCE: weight of the task's own loss; the rest is that of its answers.",
)  # fmt: skip
@click.option(
    "--temperature", type=options.TEMPERATURE, metavar="T", default=4.0,
    show_default=True, help="Of a teacher: what softens answers of classes.",
)  # fmt: skip
@click.option(
    "--match", multiple=True, metavar="LAYER=LAYER",
    help="distil: a layer of the teacher and one of the student whose features are to match; may be repeated.",
)  # fmt: skip
@click.option(
    "--bits", metavar="wNaN", default="w8a8", show_default=True,
    help="qat: widths of weights and activations. Below 8 it beats quantizing afterwards; kernels still run 8.",
)  # fmt: skip
@click.option("--symmetric", is_flag=True, help="qat: signed activations around zero, as TensorRT asks for.")
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False), help="Folder to write: a new source.")
@click.option("--overwrite", is_flag=True, help="Replace what is there, an unfinished compression too.")
@options.made_sample_options("train", "evaluation")
@options.trust_option
@options.json_option
def compress(
    source: str,
    methods: tuple[str, ...],
    train: str,
    evaluation: str | None,
    out: str,
    budget: str | None,
    match: tuple[str, ...],
    augment: str | None,
    overwrite: bool,
    trust: bool,
    as_json: bool,
    **hyper: object,
) -> int:
    """Make a smaller source of SOURCE, by one METHOD after the other, with training that heals what was taken away.

    SOURCE is file.py:factory, which gives the module itself, or model.pt2. A METHOD is

    \b
      prune:magnitude:0.3   the smallest 30 % of weights become 0, over the
                            first half of the epochs
      prune:2:4             of every four weights along the input channels
                            two become 0
      prune:structured:0.5  half of all channels, neurons and heads go, with
                            what depends on them: smaller layers, which are
                            faster everywhere
      distil:f.py:student   another network learns from the answers of this
                            one, and takes its place
      low-rank:0.5          large layers become two thin ones, with half of
                            the weights
      qat                   training with the rounding of integers; the
                            targets run the scales that were trained

    Zeros make nothing faster in the runtimes that this tool builds for; they count where files are compressed. The
    folder gets model.pt2, weights.safetensors and compression.json, and is a source like any other.

    \b
    Examples:
      modelwright compress net.py:create low-rank:0.5 --train x.npz -o smaller
      modelwright compare net.py:create smaller -s test.npz -o out

    Ctrl-C keeps what was trained, epoch by epoch; the same command goes on from there, and with a --budget that is
    spent, or fewer --epochs, it delivers the best there is.
    """
    from modelwright.cli.printing import close_progress, open_progress, print_json, print_line
    from modelwright.compression import Settings
    from modelwright.compression import compress as run
    from modelwright.compression.settings import parse_budget
    from modelwright.compression.wording import describe_result
    from modelwright.core.process.child import LASTING
    from modelwright.core.records.codec import decode, encode

    settings = decode(
        Settings, {**hyper, "match": list(match), "augment": augment or "", "budget_s": parse_budget(budget)}
    )
    progress = open_progress()

    told = set[str]()

    def say(text: str) -> None:
        if text.startswith(LASTING):
            told.add(text.removeprefix(LASTING))
            progress.finish("epoch", text.removeprefix(LASTING))
        else:
            progress.say("compress", text)

    try:
        progress.start("compress", f"compressing {source}")
        made = run(
            source, methods, train=train, evaluation=evaluation, out=out, settings=settings, overwrite=overwrite,
            trust=trust, progress=say,
        )  # fmt: skip
        progress.finish("compress", f"{made.folder}: unchanged" if made.reused else f"{made.folder}")
    finally:
        close_progress(progress)
    if as_json:
        print_json(encode(made.record) | {"reused": made.reused})
        return 0
    for line in describe_result(made.record):
        print_line(line)
    notes = [note for stage in made.record.stages for note in stage.notes] + list(made.record.notes)
    for line in [line for note in notes if (line := f"note: {note}") not in told]:
        print_line(line)
    print_line(f"\n{made.folder}  model.pt2  weights.safetensors  compression.json")
    return 0
