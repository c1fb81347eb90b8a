"""Options that several commands share, with one wording."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import click

from modelwright.harness.results.metrics import LIMITS
from modelwright.harness.results.places import Limit, Metric

EFFORT_NAMES = ("quick", "standard", "strict")
_LARGEST_BATCH = 2**31 - 1
"""Runtimes count in 32 bits."""


_SECTIONS = {
    "Building": ("shapes", "options", "plan", "repair_plan"),
    "Pictures and texts as samples": ("preprocess", "labels", "max_length"),
    "Measuring": ("effort", "threads", "settings", "untuned", "batch", "region", "seed"),
    "On a GPU": ("device", "cuda_graph", "spin", "streams"),
    "Language models": ("max_perplexity_increase", "new_tokens", "eval_tokens", "tasks", "low_memory"),
    "Limits; exit code 7 when nothing meets them": (*LIMITS, "metric"),
}


class SectionedCommand(click.Command):
    """Lists its options under headings: thirty in one list are not read."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = {name: title for title, names in _SECTIONS.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in _SECTIONS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                sections[headings.get(parameter.name or "", "Options")].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=22)


class _Number(click.FloatRange):
    """A number in a range; `nan`, which lies in every range for click, is none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


POSITIVE = _Number(min=0, min_open=True)
NOT_NEGATIVE = _Number(min=0)
SHARE = _Number(min=0, max=1)
TEMPERATURE = _Number(min=0, max=1000, min_open=True)

SAMPLE_OPTIONS = ("preprocess", "labels", "max_length")


def made_sample_options(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options on pictures and texts, and hands samples to the command together with them.

    Args:
        names: Parameters of the command that are samples.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def wrapped(**given: Any) -> Any:
            said = [given.pop(name) for name in SAMPLE_OPTIONS]
            if any(value is not None for value in said):
                from modelwright.core.samples.source import add_preprocessing

                given |= zip(names, add_preprocessing([given[name] for name in names], *said), strict=True)
            return command(**given)

        for option in reversed(
            (
                click.option(
                    "--preprocess",
                    metavar="HOW",
                    help="What makes inputs of pictures: a preset (imagenet, inception, clip), or NAME=VALUE parted by "
                    "commas: size, resize, crop, letterbox, pad, interpolation, alpha, channels, scale, mean, std, "
                    "layout, dtype, input; such as imagenet,resize=232 or mean=0.5,std=0.5. What is not said is read "
                    "from the model, and all of it is printed.",
                ),
                click.option(
                    "--labels",
                    metavar="FILE",
                    help="Names of the model's classes in its order, one a line, each beginning with the name of its "
                    "folder of pictures; `none` for folders that are no classes. [classes.txt in the folder, else "
                    "the sorted names of its folders]",
                ),
                click.option(
                    "--max-length",
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Of texts: tokens a row, to which longer texts are cut and shorter ones padded. [the longest "
                    "text's, rounded up to 8, at most what the model takes]",
                ),
            )
        ):
            wrapped = option(wrapped)
        return wrapped

    return decorate


target_option = click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="A target, such as ort-int8; may be repeated. Default: all that suit the machine; of a language model, the "
    "baseline and those of them with fewer bits than FP32.",
)
samples_option = click.option(
    "-s",
    "--samples",
    required=True,
    metavar="SAMPLES",
    help="Real inputs: a .npz keyed by input name (and `labels`), a folder of pictures (with --preprocess), a .npy, "
    "texts (.jsonl, .csv, .txt), or file.py:function that yields dicts or returns a data set. One half calibrates, the "
    "other judges; of a language model, a third part tunes. `random` or `random:64` uses noise instead.",
)
evaluation_option = click.option(
    "--eval",
    "evaluation",
    metavar="SAMPLES",
    help="Other samples that only judge; then all of --samples calibrates (and, of a language model, tunes).",
)
evaluation_limit_option = click.option(
    "--eval-limit",
    "evaluation_limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=512,
    show_default=True,
    help="Judge on at most this many samples.",
)
task_option = click.option(
    "--task",
    metavar="TASK",
    help="What the outputs mean: classes, tokens, mask, boxes, embedding, regression, state or other; for several "
    "logits=classes,boxes=boxes. Decides how artifacts are held against FP32. Default: found in FP32's own answers.",
)
state_option = click.option(
    "--state",
    "states",
    multiple=True,
    metavar="OUTPUT=INPUT",
    help="An output that the next step is fed with, such as stateN=state; may be repeated. Artifacts are then also "
    "compared after 50 steps, each fed with its own. Default: found by names and shapes; `none` finds none.",
)
profile_option = click.option(
    "-p",
    "--profile",
    default="host",
    show_default=True,
    metavar="PROFILE",
    help="The machine it is for: a name from `modelwright profiles`, or a .toml file.",
)
metric_option = click.option(
    "--metric",
    metavar="FILE.py:FUNCTION",
    help="Your own measure for --max-drop, such as mAP, F1 or a word error rate: function(outputs, targets) -> number, "
    "over all samples that judge. A point is a hundredth.",
)
max_drop_option = click.option(
    "--max-drop",
    type=NOT_NEGATIVE,
    metavar="POINTS",
    help="Deliver nothing that loses more than so many points against FP32 on the samples that judge: of accuracy "
    "where there are labels, else of what is kept of FP32's answers, or of --metric. Exit code 7 for what does.",
)
shapes_option = click.option(
    "--shapes",
    multiple=True,
    metavar="INPUT=MIN:OPT:MAX",
    help="Range of a dynamic input that engines are built for, such as x=1x3x224x224:8x3x224x224:32x3x224x224. "
    "Default: batch 1 to 32; other dimensions as in the samples.",
)
build_option_option = click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A build option of the targets that have it, such as workspace-mb=2048; `modelwright targets NAME` lists "
    "them. TARGET:NAME=VALUE sets it for one target.",
)
plan_option = click.option(
    "--plan",
    metavar="FILE",
    help="A plan of precisions: how many bits each layer gets, as `modelwright mix` writes it or by hand. What the "
    "runtime lacks is executed wider, and told. Float targets are built as ever.",
)
repair_plan_option = click.option(
    "--repair-plan",
    is_flag=True,
    help="Put layers of the plan back to float where it loses too much; without, such a plan is refused.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of text.")
details_option = click.option(
    "--details",
    is_flag=True,
    help="Print per target what does not fit the table: other figures of the latency, load and build times, notes.",
)
show_paths_option = click.option(
    "--show-paths",
    is_flag=True,
    help="Write where files lie, as you gave it. Without it what may be shown to others names files only, and "
    "results.json says the way from its own folder.",
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there.")
trust_option = click.option(
    "--trust",
    is_flag=True,
    help="Let torch read a .pt2 source that holds more than plain data, and transformers a folder with its own code: "
    "both may run code of whoever made them; and read the weights, nothing else, of pickled .bin files. Python sources "
    "and sample functions are programs: they run as they are.",
)
fresh_option = click.option(
    "--fresh", is_flag=True, help="Export again although nothing that can be seen has changed; see `export --help`."
)


setting_option = click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the runtimes that have it, such as spinning=false; `modelwright targets NAME` lists them. "
    "TARGET:NAME=VALUE sets it for one target.",
)


def _choose_type(metric: Metric, limit: Limit) -> click.FloatRange:
    if limit.may_be_zero:
        return NOT_NEGATIVE
    return POSITIVE if metric.unit else SHARE


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a measurement, and hands `limits` to the command."""

    @functools.wraps(command)
    def wrapped(**options: Any) -> Any:
        from modelwright.harness.results.limits import Limits

        limits = Limits(**{name: options.pop(name) for name in LIMITS})
        return command(limits=limits, **options)

    for option in reversed(
        (
            click.option(
                "-e",
                "--effort",
                type=click.Choice(EFFORT_NAMES),
                default="standard",
                show_default=True,
                help="How long to measure: 12, 30 or 60 rounds of short windows, in 1, 3 or 5 launches.",
            ),
            click.option(
                "--threads",
                type=click.IntRange(min=1),
                metavar="N",
                help="Threads of every runtime. [1, or those that an artifact was tuned with]",
            ),
            click.option(
                "--batch",
                type=click.IntRange(min=1, max=_LARGEST_BATCH),
                metavar="N",
                default=1,
                show_default=True,
                help="Samples an inference.",
            ),
            click.option(
                "--device",
                type=click.Choice(("auto", "cpu", "cuda")),
                default="auto",
                show_default=True,
                help="Where targets run that can do both, such as torch-fp32; auto takes the GPU if there is one.",
            ),
            click.option("--cuda-graph", is_flag=True, help="Launch computations as CUDA graphs."),
            click.option("--spin", is_flag=True, help="Wait for the GPU by polling instead of sleeping."),
            click.option(
                "--streams",
                type=click.IntRange(min=1, max=64),
                metavar="N",
                default=1,
                show_default=True,
                help="Inferences in flight, where the computation alone is timed.",
            ),
            click.option("--region", metavar="CODE", help="Grid region for carbon, such as DE or FR. [profile's]"),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                metavar="N",
                default=0,
                show_default=True,
                help="Seed of the order of turns.",
            ),
            *(
                click.option(
                    f"--{name.replace('_', '-')}",
                    type=_choose_type(metric, limit),
                    metavar=limit.metavar,
                    help=limit.help,
                )
                for name, (metric, limit) in LIMITS.items()
            ),
        )
    ):
        wrapped = option(wrapped)
    return wrapped
