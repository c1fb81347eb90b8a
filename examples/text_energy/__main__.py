"""The command of the study: `python -m modelwright.examples.text_energy MODEL --data FOLDER --out DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from modelwright.core.errors import ModelwrightError, UsageError
from modelwright.examples.text_energy.study import DEVICES, PRECISIONS, TABLE, Asked, run_study
from modelwright.examples.text_energy.trial import Trial
from modelwright.harness.formatting import clean_text
from modelwright.harness.run.effort import EFFORTS


class Lines:
    """A line on standard error when something begins, and one when it ends."""

    def start(self, task: str, text: str) -> None:
        """Prints what begins."""
        del task
        click.echo(f"   {clean_text(text)} ...", err=True)

    def say(self, task: str, text: str) -> None:
        """Says nothing: what it tells is over in a moment."""

    def advance(self, task: str, done: int, total: int) -> None:
        """Says nothing."""

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        """Prints what came out."""
        del task
        click.echo(f"{'ok' if ok else '--'} {clean_text(text)}", err=True)


def split_names(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[str, ...]:
    """Returns the names between commas."""
    return tuple(dict.fromkeys(filter(None, value.split(","))))


def split_numbers(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    """Returns the whole numbers between commas."""
    try:
        return tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is no list of whole numbers such as 1,8,32") from error


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="Labelled texts: train "
    "and test, each .tsv, .csv or .jsonl, with a column `text` or `sentence` and one `label`.")  # fmt: skip
@click.option("--out", "-o", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Where it all goes.")
@click.option("--devices", callback=split_names, default="cpu", help=f"Of {', '.join(DEVICES)}, with commas between.")
@click.option("--precisions", callback=split_names, default=",".join(PRECISIONS), help="Which, with commas between.")
@click.option("--runtimes", callback=split_names, default="torch,ort", help="As `modelwright targets` names them: each "
    "measures the precisions that it has.")  # fmt: skip
@click.option(
    "--batches", callback=split_numbers, default="1,8,32", help="Texts an inference, each in trials of its own."
)
@click.option("--trials", type=int, default=3, help="Of each artifact at each batch; each loads it anew.")
@click.option("--threads", type=int, default=1, help="Of every runtime on the CPU.")
@click.option("--effort", "-e", type=click.Choice(list(EFFORTS)), default="quick", help="How long a trial takes.")
@click.option("--length", type=click.IntRange(min=4), metavar="TOKENS", help="Of a text. [what holds 99 % of them]")
@click.option("--calibrate", type=click.IntRange(min=8), default=512, help="Texts of the training that calibrate and "
    "on which recipes choose, at most.")  # fmt: skip
@click.option("--fit", type=click.IntRange(min=1), default=2000, help="Others that a head is fitted on, at most, where "
    "the model has none.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), default=500, help="Texts of the test that judge, at most.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the order of turns.")
def study(
    model: Path,
    data: Path,
    out: Path,
    devices: tuple[str, ...],
    precisions: tuple[str, ...],
    runtimes: tuple[str, ...],
    batches: tuple[int, ...],
    trials: int,
    threads: int,
    effort: str,
    length: int | None,
    calibrate: int,
    fit: int,
    limit: int,
    seed: int,
) -> None:
    """Measure what a text model takes and how often it is right, in every precision, batch and trial.

    MODEL is a folder of transformers: config.json, tokenizer.json and *.safetensors. One that classifies is taken as it
    is. Of any other, like MiniLM or GPT-2, the body is taken: a linear head is fitted on features of the training
    texts, the mean of all tokens or, where a token sees those before it only, the last one.

    All texts are tokenized once, before anything is built. In each trial the artifacts of a device take turns, each in
    a process of its own; their inputs are bound, on a GPU they lie there, before the first window opens.

    \b
    DIR/trials/*.json   a file a trial: all that was measured, and why what is missing is
    DIR/trials.csv      a row a trial
    DIR/artifacts/      what was measured; `modelwright measure` takes it too

    The same command goes on where it was stopped: a trial that is there is not run again. More trials, batches,
    precisions, runtimes and devices can be added; other threads or another effort need another DIR.

    \b
    Examples:
      python -m modelwright.examples.text_energy ./MiniLM --data trec --out minilm
      python -m modelwright.examples.text_energy ./gpt2 --data sst2 --out gpt2 \\
          --devices cpu,cuda --precisions fp32,bf16,int8-static --batches 1,16 --trials 5
    """
    asked = Asked(
        model=model, data=data, devices=devices, precisions=precisions, runtimes=runtimes, batches=batches,
        trials=trials, threads=threads, effort=effort, length=length, calibrate=calibrate, fit=fit, limit=limit,
        seed=seed,
    )  # fmt: skip
    if not all((devices, precisions, runtimes)):
        raise UsageError("an empty list of names measures nothing", hint="leave the option out, or name one")
    found = run_study(asked, out, Lines())
    for line in explain_gaps(found):
        click.echo(line, err=True)
    measured = sum(trial.status == "measured" for trial in found)
    click.echo(f"{measured} trials in {out / TABLE}")


def explain_gaps(trials: list[Trial]) -> list[str]:
    """Returns why rows or cells are missing, each reason once.

    Args:
        trials: Of a study.
    """
    reasons: dict[str, list[str]] = {}
    for trial in trials:
        if trial.status != "measured":
            where = trial.target if trial.trial is None else f"{trial.target} at batch {trial.batch}"
            reasons.setdefault(f"{trial.status}: {trial.reason}", []).append(f"{where} on {trial.device}")
        elif trial.energy_per_inference_j is None:
            reasons.setdefault(f"no energy and no power: {(trial.unavailable or {})['energy']}", []).append(
                trial.device
            )
    return [clean_text(f"note: {', '.join(dict.fromkeys(names))}: {reason}") for reason, names in reasons.items()]


def main() -> None:
    """Runs the command, and ends with the exit code of its error."""
    try:
        study.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: the trials that are there are kept; the same command goes on from there", err=True)
        sys.exit(130)
    except ModelwrightError as error:
        click.echo(f"error: {clean_text(error.message)}", err=True)
        for line in (error.detail or "").strip().splitlines()[-12:]:
            click.echo(f"  | {clean_text(line)}", err=True)
        if error.hint:
            click.echo(f"hint: {clean_text(error.hint)}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
