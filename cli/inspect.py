"""`modelwright inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli import options
from modelwright.cli.printing import print_field, print_json
from modelwright.core.errors import UsageError

if TYPE_CHECKING:
    from modelwright.core.outputs.drop import Drop
    from modelwright.core.records.artifact import Artifact, Manifest, Proof
    from modelwright.core.records.pictures import Pictures
    from modelwright.core.records.plan import ExecutedPlan
    from modelwright.core.records.texts import Texts
    from modelwright.core.records.tuned import Tuned
    from modelwright.targets.contract import Language

_COMMENTS: dict[Language, str] = {"python": "#", "cpp": "//"}
_SHOWN_CHECKS = 3
_SHOWN_LAYERS = 20
_SHOWN_CLASSES = 12


@click.command(short_help="Show what an artifact is and how it was made.")
@click.argument("artifact")
@click.option(
    "--snippet",
    type=click.Choice(("python", "cpp")),
    help="Print a program in this language that runs it by the runtime's own API, as it was tuned, and nothing else.",
)
@click.option(
    "--operators",
    is_flag=True,
    help="Run a few inferences under the runtime's own profiler, and print where their time goes.",
)
@click.option(
    "--stats",
    is_flag=True,
    help="Print what the weights of an artifact that generates text take: parameters, bits a weight, reduction.",
)
@options.json_option
def inspect(artifact: str, snippet: Language | None, operators: bool, stats: bool, as_json: bool) -> int:
    """Show what ARTIFACT is: its target, signature, how it was made and how closely it follows FP32.

    \b
    Examples:
      modelwright inspect comparison/artifacts/ort-int8
      modelwright inspect comparison/artifacts/ort-int8 --json | jq .recipe
      modelwright inspect tuned/best --snippet cpp > run.cpp
      modelwright inspect comparison/artifacts/ort-int8 --operators
    """
    from modelwright.core.records.artifact import open_artifact
    from modelwright.core.records.codec import encode
    from modelwright.core.records.language_artifact import is_language_artifact

    if is_language_artifact(Path(artifact)):
        from modelwright.cli.inspect_language import inspect_language_artifact

        return inspect_language_artifact(artifact, snippet=snippet, stats=stats, operators=operators, as_json=as_json)
    if stats:
        raise UsageError("--stats is for artifacts that generate text", hint="`inspect` tells the size of others")
    opened = open_artifact(Path(artifact))
    if snippet is not None:
        text = _write_snippet(opened, snippet)
        if as_json:
            print_json({"language": snippet, "text": text})
        else:
            click.echo(text, nl=False)
        return 0
    if operators:
        _print_operators(artifact, as_json=as_json)
        return 0
    if as_json:
        print_json(encode(opened.manifest))
        return 0
    _print_manifest(opened.manifest)
    return 0


def _print_manifest(manifest: Manifest) -> None:
    from modelwright.core.records.codec import encode

    source = manifest.source
    print_field("target", manifest.target)
    print_field("source", f"{source.path}  sha256 {source.sha256[:16]}")
    print_field(
        "size", f"{manifest.size_bytes:,} bytes in {len(manifest.files)} files; the runtime loads {manifest.model_file}"
    )
    for spec in manifest.signature.inputs:
        print_field("input", spec.describe())
    for spec in manifest.signature.outputs:
        print_field("output", spec.describe())
    parts = {
        "calibration": manifest.samples.calibration,
        "tuning": manifest.samples.tuning,
        "evaluation": manifest.samples.evaluation,
    }
    for name, part in parts.items():
        if part is not None:
            print_field(name, f"{part.count} samples of {part.path}  sha256 {part.sha256[:16]}")
    _print_pictures(manifest.samples.pictures or None)
    _print_texts(manifest.samples.texts or None)
    print_field("built for", f"{manifest.machine.name} ({manifest.machine.architecture})")
    needs = encode(manifest.requires)
    print_field("needs", json.dumps(needs) if needs else "nothing beyond its runtime")
    print_field("built", f"{manifest.created} in {manifest.build_s:g} s on {manifest.build_host.system}")
    print_field("with", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())))
    _print_proof(manifest.proof, manifest.proof_reason)
    _print_arithmetic(manifest)
    _print_tuned(manifest.tuned or None)
    _print_float_layers(manifest.recipe.get("search"))
    _print_plan(manifest.plan or None)
    for key, value in manifest.recipe.items():
        print_field(f"recipe.{key}", value if isinstance(value, str) else json.dumps(value))
    for note in manifest.notes:
        print_field("note", note)


def _print_pictures(pictures: Pictures | None) -> None:
    """Says what a program that serves the model has to do to pictures, and what its answers are called."""
    if pictures is not None:
        print_field("preprocess", pictures.preprocess.describe())
    if pictures is not None and pictures.classes is not None:
        print_field("classes", f"{pictures.describe_classes(_SHOWN_CLASSES)}, in the order of {pictures.order}")


def _print_texts(texts: Texts | None) -> None:
    """Says what a program that serves the model has to do to texts, and what its answers are called."""
    if texts is None:
        return
    print_field("texts", f"{texts.model.task}: rows of {texts.length} tokens by tokenizer.json, which cuts and pads")
    if texts.model.classes is not None:
        print_field("classes", texts.model.describe_classes(_SHOWN_CLASSES))


def _print_operators(artifact: str, *, as_json: bool) -> None:
    from modelwright.core.records.codec import encode
    from modelwright.harness import profile_operators

    profile = profile_operators(artifact)
    if as_json:
        print_json(encode(profile))
        return
    from rich.console import Console

    from modelwright.harness.report.operators import print_operators

    print_operators(profile, Console(), longest=True)


def _print_proof(proof: Proof | None, reason: str | None) -> None:
    if proof is None:
        print_field("proof", reason or "none")
        return
    fidelity, task = proof.fidelity, proof.fidelity.task
    parts = [f"on {proof.count} samples"]
    if fidelity.agreement is not None:
        parts.append(f"top-1 agreement {fidelity.agreement:.2%}")
    elif task and task.kept is not None and task.measure != "cosine":
        parts.append(f"{task.measure} {task.kept:.2%}")
    if fidelity.cosine is not None:
        parts.append(f"cosine {fidelity.cosine:.6f}")
    if proof.count and proof.correct is not None and proof.correct_fp32 is not None:
        parts.append(f"accuracy {proof.correct / proof.count:.2%} (FP32 {proof.correct_fp32 / proof.count:.2%})")
    parts += [] if proof.labels is None else [proof.labels.describe()]
    if proof.emulated:
        parts.append(f"its graph evaluated by {proof.emulated}; `modelwright measure` proves the artifact itself")
    print_field("proof", ", ".join(parts))
    _print_limit(proof.drop)
    if proof.chain is not None:
        fed = ", ".join(state.describe() for state in proof.chain.states)
        print_field("chained", f"{fed}: {proof.chain.reason or proof.chain.describe()}, on {proof.chain.chains} chains")
    if task:
        print_field("task", task.task)
        for check in task.checks[:_SHOWN_CHECKS]:
            print_field("", f"output {check.output}: {check.text}")


def _print_arithmetic(manifest: Manifest) -> None:
    """Says what the proof is worth on the machine that the artifact is for, where that multiplies otherwise."""
    arithmetic = None if manifest.proof is None else manifest.proof.arithmetic
    if arithmetic is not None:
        verb = "the proof holds" if arithmetic.alike else "unproved"
        print_field("arithmetic", f"{verb} for {manifest.machine.name}: {arithmetic.why}")


def _print_float_layers(search: Any) -> None:
    """Says which layers a search left in float and what each costs; a recipe of another version says less."""
    layers = search.get("float_layers", ()) if isinstance(search, dict) else ()
    for entry in layers[:_SHOWN_LAYERS]:
        parts = []
        if entry.get("float_us") is not None and entry.get("quantized_us") is not None:
            parts.append(f"{entry['float_us']:g} us, {entry['quantized_us']:g} us quantized")
        if entry.get("work_share") is not None:
            parts.append(f"{entry['work_share']:.2%} of the work")
        if entry.get("noise") is not None:
            parts.append(f"quantizing it alone loses {min(entry['noise'], 1.0):.2%} of what it makes")
        print_field("in float", f"{entry['layer']}: {', '.join(parts) or entry['reason']}")
    if len(layers) > _SHOWN_LAYERS:
        print_field("", f"and {len(layers) - _SHOWN_LAYERS} more, see --json")


def _print_plan(plan: ExecutedPlan | None) -> None:
    """Says what the artifact executes of the plan of precisions that it was built by."""
    if plan is None:
        return
    print_field("plan", f"by {plan.origin}, {plan.method}: {plan.explain()}")
    for layer in plan.layers[:_SHOWN_LAYERS]:
        wider = f", planned {layer.planned.describe()}: {layer.reason}" if layer.reason else ""
        shared = ", one scale" if layer.granularity == "tensor" and layer.weight_bits is not None else ""
        print_field("planned", f"{layer.planned.node or layer.planned.output}: {layer.describe()}{shared}{wider}")
    if len(plan.layers) > _SHOWN_LAYERS:
        print_field("", f"and {len(plan.layers) - _SHOWN_LAYERS} more, see --json")


def _print_tuned(tuned: Tuned | None) -> None:
    if tuned is None:
        return
    print_field("runs with", f"{tuned.describe()}; a program that does: --snippet python, --snippet cpp")
    if tuned.goal == "size":
        gain = "the smallest"
    elif tuned.ratio is None or tuned.ci95 is None:
        gain = "nothing that was tried is better than the defaults beyond doubt"
    else:
        low, high = tuned.ci95
        gain = f"{tuned.ratio:.3f} times as good as {tuned.over} ({low:.3f} to {high:.3f})"
    guess = f", by an estimate ({tuned.estimated})" if tuned.estimated else ""
    print_field("tuned", f"for {tuned.goal}{guess}: {gain}; {tuned.trials} trials on {tuned.device}, {tuned.created}")


def _write_snippet(artifact: Artifact, language: Language) -> str:
    """Returns a program that runs an artifact.

    Raises:
        BadInputError: Its target writes none.
    """
    from modelwright.core.errors import BadInputError
    from modelwright.targets.options import RunSettings
    from modelwright.targets.table import get_target

    manifest = artifact.manifest
    tuned = manifest.tuned or None
    settings = (
        RunSettings()
        if tuned is None
        else RunSettings(threads=tuned.threads, requests=tuned.requests, options=tuned.options)
    )
    try:
        text = get_target(manifest.target).write_snippet(
            language, str(artifact.directory / manifest.model_file), manifest.recipe, manifest.signature, settings
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{artifact.directory}: its recipe is not what a build of {manifest.target} writes",
            hint="build the artifact again",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    if text is None:
        raise BadInputError(
            f"{manifest.target} has no program to show in this language",
            hint="give the other language, or see its runtime's own manual",
        )
    told = [
        f"{manifest.target}{_name_runtime(manifest)}",
        *_explain_pictures(manifest.samples.pictures or None),
        *_explain_texts(artifact, manifest.samples.texts or None),
    ]
    return "".join(f"{_COMMENTS[language]} {line}\n" for line in told) + text


def _explain_pictures(pictures: Pictures | None) -> list[str]:
    """Returns what a program has to do to pictures before it runs, for its first lines."""
    if pictures is None:
        return []
    return [
        "pictures become inputs so (pixels v from 0 to 255, at last (v * scale - mean) / std):",
        pictures.preprocess.describe(),
    ]


def _explain_texts(artifact: Artifact, texts: Texts | None) -> list[str]:
    """Returns how texts become inputs, and answers names, for a program's first lines."""
    from modelwright.core.records.texts import TEXT_TOKENIZER

    if texts is None:
        return []
    parts = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    path = str(artifact.directory / TEXT_TOKENIZER)
    lines = [
        "texts become inputs by the tokenizer in this folder, which cuts and pads them (pip install tokenizers):",
        f'  row = tokenizers.Tokenizer.from_file({path!a}).encode("a text")',
        *(f"  {name} = [row.{parts[name]}]" for name in texts.model.inputs),
    ]
    if texts.model.classes is not None:
        lines.append(f"the classes ({texts.model.describe_classes(_SHOWN_CLASSES)}) have a value each in logits")
    return lines


def _name_runtime(manifest: Manifest) -> str:
    """Returns the versions of the runtime that a program is for."""
    from modelwright.core.records.codec import encode

    needed = encode(manifest.requires).get("packages", {})
    told = [
        f"{name}{rule}" + (f" (made with {manifest.versions[name]})" if name in manifest.versions else "")
        for name, rule in needed.items()
    ]
    return f": for {', '.join(told)}" if told else ""


def _print_limit(drop: Drop | None) -> None:
    if drop is not None and drop.max_points is not None:
        print_field(
            "limit", f"{'OVER IT' if drop.is_over else 'kept'}: {drop.describe()}, where {drop.max_points:g} may be"
        )
