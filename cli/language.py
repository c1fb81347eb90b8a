"""What the commands do with language models: their options, and what is printed of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.core.errors import UsageError

if TYPE_CHECKING:
    from modelwright.harness.language.record import LanguageComparison

_APPLICABLE = frozenset(
    {
        *("source", "sources", "artifacts", "targets", "samples", "evaluation", "evaluation_limit", "baseline"),
        *("options", "profile", "out", "overwrite", "fresh", "details", "as_json", "settings", "effort", "threads"),
        *("batch", "region", "seed", "max_perplexity_increase", "new_tokens", "eval_tokens", "low_memory", "trust"),
        "tasks",
    }
)
"""Parameters of commands that mean something for a language model."""
OPTIONS = ("max_perplexity_increase", "new_tokens", "eval_tokens", "tasks", "low_memory")
"""Those that mean something for nothing else."""
_UNSAID = (None, False, ())


class _Increase(click.ParamType[float]):
    """A share of 0 or more, written as `5%` or 0.05."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = -1.0
        if not 0 <= share < 100 or (share >= 1 and not text.endswith("%")):
            self.fail(f"{value!r} is no share; write 5% or 0.05.", param, ctx)
        return share


_INCREASE = click.option(
    "--max-perplexity-increase",
    type=_Increase(),
    metavar="PERCENT",
    help="Of a language model: deliver nothing whose perplexity is further above FP32's on the text that judges, such "
    "as 5%. Exit code 7 for what is.",
)
_NEW_TOKENS = click.option(
    "--new-tokens",
    type=click.IntRange(min=2, max=4096),
    metavar="N",
    help="Of a language model: tokens of each answer. [20]",
)
_BUILDING = (
    _INCREASE,
    click.option(
        "--eval-tokens",
        type=click.IntRange(min=64, max=10**6),
        metavar="N",
        help="Of a language model: judge on at most this many tokens. [2048]",
    ),
    click.option(
        "--tasks",
        multiple=True,
        metavar="FILE.yaml",
        help="Of a language model: a task of lm-evaluation-harness with questions and choices in a file of your own, "
        "scored as it does. May be given more than once.",
    ),
    click.option(
        "--low-memory",
        is_flag=True,
        help="Of a language model: check its export with the weights of one layer at a time in memory.",
    ),
)


def building_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a build of a language model takes, handed to the command as `language`."""
    return _add((*_BUILDING, _NEW_TOKENS), command)


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what a measurement of a language model takes, handed to the command as `language`."""
    return _add((_INCREASE, _NEW_TOKENS), command)


def _add(added: Sequence[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        return command(language={name: given.pop(name) for name in OPTIONS if name in given}, **given)

    for option in reversed(added):
        wrapped = option(wrapped)
    return wrapped


def refuse_for_others(language: dict[str, Any]) -> None:
    """Refuses options of language models where there is none.

    Raises:
        UsageError: Names them.
    """
    said = [name for name, value in language.items() if value not in _UNSAID]
    if said:
        raise UsageError(
            f"{', '.join(map(_flag, said))}: for language models, folders of transformers whose config.json names a "
            "causal language model, and GGUF files",
            hint="leave it out; --max-drop limits what other models may lose",
        )


def refuse_for_language(source: str) -> None:
    """Refuses options that would silently mean nothing for a language model.

    Raises:
        UsageError: Names them.
    """
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    said = [name for name in context.params if name not in _APPLICABLE and context.get_parameter_source(name) is typed]
    if said:
        names = {parameter.name: parameter.opts[0] for parameter in context.command.params}
        raise UsageError(
            f"{', '.join(str(names[name]) for name in said)}: {source} is a language model, for which that means "
            "nothing",
            hint="leave it out; see --max-perplexity-increase, --new-tokens and --eval",
        )


def keep_applicable(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns what of a command's settings means something for a language model; nothing else was said."""
    return {name: value for name, value in settings.items() if name in _APPLICABLE}


def require_alone(sources: Sequence[str]) -> None:
    """Refuses several sources, of which one is a language model.

    Raises:
        UsageError: There are several.
    """
    if len(sources) > 1:
        raise UsageError(
            f"language models are compared one at a time, and {len(sources)} sources are given: what an artifact "
            "writes is held against FP32 of its own model, and other tokenizers make other tokens of one text",
            hint="compare each into a folder of its own, with one --eval that --eval-tokens holds whole: bits per byte "
            "in results.csv then compare models whose tokens differ",
        )


def name_build_settings(language: dict[str, Any]) -> dict[str, Any]:
    """Returns what was said as the request calls it; what was not said is left to its defaults."""
    names = {"max_perplexity_increase": "max_increase", "eval_tokens": "evaluation_tokens"}
    return {names.get(name, name): value for name, value in language.items() if value not in _UNSAID}


def print_language_comparison(
    comparison: LanguageComparison, *, as_json: bool, details: bool, folder: str | None = None
) -> None:
    """Prints a comparison, and where its files lie."""
    if as_json:
        from modelwright.cli.printing import print_json
        from modelwright.core.records.codec import encode

        print_json(encode(comparison))
        return
    from rich.console import Console

    from modelwright.harness.language.terminal import render_language

    render_language(comparison, Console(), verbose=details)
    if folder is not None:
        click.echo(f"\n{Path(folder) / 'report.html'}  results.json  results.csv  artifacts/")


def compare_language_model(
    source: str, language: dict[str, Any], *, out: str, details: bool, as_json: bool, **settings: Any
) -> int:
    """Does what `modelwright compare` does, for a language model."""
    from modelwright.cli.printing import close_progress, open_progress
    from modelwright.harness.language.comparing import compare_language, require_kept
    from modelwright.harness.language.request import make_language_request

    request = make_language_request(source, **name_build_settings(language), **settings)
    progress = open_progress()
    try:
        comparison = compare_language(request, out, progress)
    finally:
        close_progress(progress)
    print_language_comparison(comparison, as_json=as_json, details=details, folder=out)
    return require_kept(comparison.rows, request.named)


def build_language_model(source: str, language: dict[str, Any], *, out: str, as_json: bool, **settings: Any) -> int:
    """Does what `modelwright build` does, for a language model."""
    from modelwright.cli.printing import close_progress, open_progress, print_folded, print_json
    from modelwright.harness.language.comparing import build_language
    from modelwright.harness.language.request import make_language_request

    request = make_language_request(source, **name_build_settings(language), **settings)
    progress = open_progress()
    try:
        built = build_language(request, out, progress)
    finally:
        close_progress(progress)
    absent = [
        {"target": row.target, "status": row.status, "message": row.reason, "hint": row.hint} for row in built.absent
    ]
    if as_json:
        places = {name: str(artifact.directory) for name, artifact in built.artifacts.items()}
        print_json({"model": built.model.summarize(), "artifacts": places, "absent": absent})
    else:
        for row in built.absent:
            reason = (row.reason or "").removeprefix(f"{row.target} ").removeprefix(f"{row.target}: ")
            print_folded(f"{row.status:7}  {row.target}: {reason}", indent=9)
            if row.hint:
                print_folded(f"         hint: {row.hint}", indent=15)
        for name, artifact in built.artifacts.items():
            click.echo(f"{name:20}  {artifact.directory}")
            for note in artifact.manifest.notes:
                print_folded(f"{'':20}  note: {note}", indent=28)
    return max((row.exit_code or 5 for row in built.absent if row.status == "failed"), default=0)


def measure_language_artifacts(
    artifacts: Sequence[str],
    language: dict[str, Any],
    *,
    out: str | None,
    details: bool,
    as_json: bool,
    **settings: Any,
) -> int:
    """Does what `modelwright measure` does, for artifacts that generate."""
    from modelwright.cli.printing import close_progress, open_progress
    from modelwright.core.files import write_json
    from modelwright.core.records.codec import encode
    from modelwright.harness.language.measuring_folders import measure_language

    progress = open_progress()
    try:
        comparison = measure_language(artifacts, progress=progress, **name_build_settings(language), **settings)
    finally:
        close_progress(progress)
    if out is not None:
        write_json(Path(out), encode(comparison))
    print_language_comparison(comparison, as_json=as_json, details=details)
    return 0


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
