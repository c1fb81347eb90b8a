"""`modelwright build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelwright.cli import language as language_models
from modelwright.cli import options
from modelwright.cli.printing import close_progress, open_progress, print_folded, print_json, print_line


@click.command(cls=options.SectionedCommand, short_help="Build artifacts, each proved against FP32.")
@click.argument("source")
@options.target_option
@options.samples_option
@options.evaluation_option
@options.evaluation_limit_option
@options.made_sample_options("samples", "evaluation")
@options.task_option
@options.state_option
@options.max_drop_option
@options.metric_option
@options.shapes_option
@options.build_option_option
@options.plan_option
@options.repair_plan_option
@options.profile_option
@click.option("-o", "--out", required=True, type=click.Path(), help="Folder; each artifact goes into OUT/TARGET.")
@options.overwrite_option
@options.fresh_option
@options.trust_option
@language_models.building_options
@options.json_option
def build(
    source: str, targets: tuple[str, ...], as_json: bool, out: str, language: dict[str, Any], **settings: Any
) -> int:
    """Build artifacts of SOURCE for one or more targets, each proved against FP32 on the samples.

    SOURCE is what `compare` takes: a file, a function, or a folder of transformers. Without --target, all that suit the
    profile are built. An artifact is a folder with the runtime's files and
    artifact.json, which says how it was made, from what, and how closely it follows FP32.

    \b
    Examples:
      modelwright build net.onnx --target ort-int8 --samples images.npz -o out
      modelwright build net.py:create -p raspberry-pi-5 -s images.npz -o pi
      modelwright build net.onnx -p rtx-4090 -t tensorrt-rtx-int8 -s x.npz -o rtx
      modelwright build ./SmolLM2 -t ort-int4-weights -s prompts.jsonl -o smol

    A target that cannot be built here is skipped with its reason; one asked for by name makes the exit code that of
    its reason, 3 to 5. One that loses more than --max-drop or --max-perplexity-increase allows is not delivered, and
    makes it 7.
    """
    from modelwright.cli.hub import fetch_source
    from modelwright.exporters.language.source import is_language_source
    from modelwright.harness.building import build_targets

    source = fetch_source(source, trust=settings["trust"])
    if is_language_source(source):
        language_models.refuse_for_language(source)
        kept = language_models.keep_applicable(settings)
        return language_models.build_language_model(
            source, language, out=out, targets=targets or None, as_json=as_json, **kept
        )
    language_models.refuse_for_others(language)
    progress = open_progress()
    try:
        built = build_targets(source, targets=targets or None, out=out, progress=progress, **settings)
    finally:
        close_progress(progress)
    if as_json:
        print_json(
            {
                "export": None if built.export is None else built.export.describe(),
                "notes": [] if built.export is None else list(built.export.model.notes),
                "artifacts": {name: str(artifact.directory) for name, artifact in built.artifacts.items()},
                "absent": [
                    {"target": absent.target, "status": absent.status, **absent.error.to_dict()}
                    for absent in built.absent
                ],
            }
        )
    else:
        _print_built(built)
    return max((absent.error.exit_code for absent in built.absent if absent.status == "failed"), default=0)


def _print_built(built: Any) -> None:
    reasons: dict[tuple[str, str, str | None], list[str]] = {}
    for absent in built.absent:
        reason = absent.error.message.removeprefix(f"{absent.target} ")
        reasons.setdefault((absent.status, reason, absent.error.hint), []).append(absent.target)
    for (status, reason, hint), names in reasons.items():
        print_folded(f"{status:7}  {', '.join(names)}: {reason}", indent=9)
        if hint:
            print_folded(f"         hint: {hint}", indent=15)
    for name, artifact in built.artifacts.items():
        click.echo(f"{name:20}  {Path(artifact.directory)}")
        for note in artifact.manifest.notes:
            print_folded(f"{'':20}  note: {note}", indent=28)
    for note in () if built.export is None else built.export.model.notes:
        print_line(f"note: {note}")
