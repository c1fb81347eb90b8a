"""`modelwright compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelwright.cli import language as language_models
from modelwright.cli import options

if TYPE_CHECKING:
    from modelwright.harness import Comparison


@click.command(
    cls=options.SectionedCommand, short_help="Build every target, measure them side by side, say which to ship."
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@options.target_option
@options.samples_option
@options.evaluation_option
@options.evaluation_limit_option
@options.made_sample_options("samples", "evaluation")
@options.task_option
@options.state_option
@options.metric_option
@click.option(
    "--baseline",
    metavar="TARGET",
    help="The target that speed-ups are over: FP32 in ONNX Runtime unless you say, of a language model "
    "torch-fp32, which is what you have today.",
)
@options.shapes_option
@options.build_option_option
@options.plan_option
@options.repair_plan_option
@options.profile_option
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder for artifacts, results and report.html.")
@options.overwrite_option
@options.fresh_option
@options.show_paths_option
@options.trust_option
@options.details_option
@options.json_option
@options.setting_option
@language_models.building_options
@options.measuring_options
def compare(
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    baseline: str | None,
    out: str,
    details: bool,
    as_json: bool,
    language: dict[str, Any],
    **settings: Any,
) -> int:
    """Build every target of SOURCE, measure them side by side, say which to ship.

    SOURCE is an FP32 model: model.onnx, model.pt2 (a saved torch.export program), or file.py:factory, a function that
    returns an nn.Module. Several with the same inputs and outputs, such as a model and its pruned or distilled
    variants, are compared in one table: agreement is with the first one's FP32, speed-ups are over its baseline.

    So is a folder of transformers that classifies or embeds texts, with texts (.jsonl, .csv, .txt) as samples.

    A folder of transformers with a causal language model is one, too: its samples are texts (.jsonl, .csv, .txt), its
    artifacts generate, and they are judged by what they write and measured by the token. Where there is no such folder,
    owner/name or owner/name@revision is a model of the Hugging Face hub, which is fetched.

    \b
    Examples:
      modelwright compare resnet.onnx --samples images.npz --out comparison
      modelwright compare net.py:create -s train.npz --eval test.npz -o comparison
      modelwright compare teacher.py:create student.py:create -s train.npz -o c
      modelwright compare bert.onnx -s texts.npz -t ort-fp32 -t ort-int8 -o c
      modelwright compare net.py:create -s images.npz --baseline torch-fp32 -o c
      modelwright compare net.onnx -s x.npz --setting spinning=false -o c
      modelwright compare ./my-bert -s texts.csv --eval others.csv -o c
      modelwright compare ./SmolLM2 -s x.jsonl --max-perplexity-increase 5% -o c

    The folder gets artifacts/TARGET/, results.json, results.csv and report.html. Running it again builds only what
    has changed. One target that fails does not stop the others; a target asked for by name that could not be built
    or measured makes the exit code that of its reason, 3 to 6.
    """
    from modelwright.cli.hub import fetch_source
    from modelwright.cli.printing import print_comparison, progress_of_a_comparison, require_limits
    from modelwright.exporters.language.source import is_language_source
    from modelwright.harness import compare as run
    from modelwright.targets.table import BASELINE

    sources = tuple(fetch_source(source, trust=settings["trust"]) for source in sources)
    models = [source for source in sources if is_language_source(source)]
    if models:
        language_models.require_alone(sources)
        language_models.refuse_for_language(models[0])
        return language_models.compare_language_model(
            models[0],
            language,
            out=out,
            targets=targets or None,
            baseline=baseline,
            details=details,
            as_json=as_json,
            **language_models.keep_applicable(settings),
        )
    language_models.refuse_for_others(language)
    with progress_of_a_comparison(as_json=as_json, details=details) as progress:
        comparison = run(
            sources, out=out, targets=targets or None, baseline=baseline or BASELINE, progress=progress, **settings
        )
    print_comparison(comparison, as_json=as_json, details=details, folder=out)
    require_limits(comparison)
    return _exit_code(comparison, {*targets, *filter(None, (baseline,))})


def _exit_code(comparison: Comparison, asked: set[str]) -> int:
    """Returns 0, or what tells a script that something asked for by name is missing."""
    missing = [row for row in comparison.measurements if row.target.rpartition("/")[2] in asked and not row.measured]
    return max((row.exit_code or 5 for row in missing), default=0)
