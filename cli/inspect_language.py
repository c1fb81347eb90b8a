"""What `modelwright inspect` shows of an artifact that generates text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli.printing import print_field, print_json
from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.records.codec import encode
from modelwright.core.records.language_artifact import LanguageArtifact, LanguageProof, open_language_artifact
from modelwright.harness.formatting import format_bytes, format_significant

if TYPE_CHECKING:
    from modelwright.targets.language.contract import Language


def inspect_language_artifact(
    artifact: str, *, snippet: Language | None, stats: bool, operators: bool, as_json: bool
) -> int:
    """Shows an artifact that generates text.

    Raises:
        UsageError: What its runtime cannot tell.
        BadInputError: No program for it in this language, or a recipe that no build writes.
    """
    opened = open_language_artifact(Path(artifact))
    if operators:
        raise UsageError(
            "--operators: artifacts that generate text are not profiled", hint="`inspect --json` tells how it was made"
        )
    if snippet is not None:
        text = _write_snippet(opened, snippet)
        if as_json:
            print_json({"language": snippet, "text": text})
        else:
            click.echo(text, nl=False)
        return 0
    if stats:
        _print_stats(opened, as_json=as_json)
        return 0
    if as_json:
        print_json(encode(opened.manifest))
        return 0
    _print_manifest(opened)
    return 0


def _print_manifest(artifact: LanguageArtifact) -> None:
    manifest = artifact.manifest
    model = manifest.model
    print_field("target", manifest.target)
    print_field("model", f"{model.source.path}: {model.summarize()}")
    print_field("source", f"sha256 {model.source.sha256[:16]}")
    print_field("size", f"{manifest.size_bytes:,} bytes in {len(manifest.files)} files; it loads {manifest.model_file}")
    for name in ("calibration", "tuning", "evaluation"):
        part = getattr(manifest.texts, name)
        if part is not None:
            print_field(name, f"{part.tokens:,} tokens of {part.texts} texts in {part.path}  sha256 {part.sha256[:16]}")
    print_field("built for", f"{manifest.machine.name} ({manifest.machine.architecture})")
    needs = encode(manifest.requires)
    print_field("needs", json.dumps(needs) if needs else "nothing beyond its runtime")
    print_field("built", f"{manifest.created} in {manifest.build_s:g} s on {manifest.build_host.system}")
    print_field("with", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())))
    if manifest.proof is None:
        print_field("proof", manifest.proof_reason or "none")
    else:
        for name, value in describe_proof(manifest.proof):
            print_field(name, value)
    for key, value in manifest.recipe.items():
        print_field(f"recipe.{key}", value if isinstance(value, str) else _show(value))
    for note in manifest.notes:
        print_field("note", note)


def _show(value: Any) -> str:
    """Returns what is no text as JSON with four digits of its fractions; `--json` has them all."""
    return json.dumps(json.loads(json.dumps(value), parse_float=lambda text: float(f"{float(text):.4g}")))


def describe_proof(proof: LanguageProof) -> list[tuple[str, str]]:
    """Returns what an artifact's text was found to be, beside FP32's: name and value."""
    from modelwright.harness.language.limits import describe_increase

    lines = [
        (
            "perplexity",
            f"{proof.perplexity:.4g}, FP32 {proof.perplexity_fp32:.4g}: {describe_increase(proof.increase)}, on "
            f"{proof.tokens:,} tokens",
        ),
        ("bits per byte", f"{proof.bits_per_byte:.4f}, FP32 {proof.bits_per_byte_fp32:.4f}"),
        (
            "next token",
            f"FP32's likeliest in {proof.agreement.value:.2%}, divergence {proof.divergence.value:.2g} nats",
        ),
    ]
    if proof.answers is not None:
        answers = proof.answers
        lines.append(
            (
                "answers",
                f"{answers.exact} of {answers.count} are FP32's word for word over {answers.new_tokens} tokens, "
                f"similarity {answers.similarity.value:.1%}",
            )
        )
    for task in proof.tasks:
        told = f"{task.whole.correct} of {task.count} right, FP32 {task.whole.correct_fp32}"
        lines.append((task.name, f"{told}; {task.by_character.correct} by likelihood a character (acc_norm)"))
    if proof.max_increase is not None:
        kept = "kept" if proof.increase.value <= proof.max_increase else "OVER IT"
        lines.append(("limit", f"{kept}: perplexity may be {proof.max_increase * 100:g} % above FP32's"))
    return lines


def _print_stats(artifact: LanguageArtifact, *, as_json: bool) -> None:
    """Says what the weights take: a weight has as many bits as its files have, scales and padding included."""
    from modelwright.harness.language.weights import describe_weights

    found = describe_weights(artifact)
    if as_json:
        print_json(encode(found))
        return
    print_field("parameters", f"{found.num_parameters:,}")
    print_field(
        "weights", f"{format_bytes(found.weights_bytes)}, {format_significant(found.bits_per_weight)} bits a weight"
    )
    print_field("in FP32", format_bytes(found.fp32_bytes))
    print_field("reduction", f"{found.reduction:.1%}".replace("%", " %"))
    for kind in found.kinds:
        told = format_bytes(kind.stored_bytes)
        if kind.bits_per_weight is not None:
            told += (
                f", {format_significant(kind.bits_per_weight)} bits a weight; "
                f"{kind.num_parameters:,} parameters, {format_bytes(kind.fp32_bytes)} in FP32"
            )
        print_field(kind.kind, told)


def _write_snippet(artifact: LanguageArtifact, language: Language) -> str:
    from modelwright.targets.language.table import get_target
    from modelwright.targets.options import RunSettings

    manifest = artifact.manifest
    try:
        text = get_target(manifest.target).write_snippet(
            language, manifest.model_file, manifest.recipe, manifest.model, RunSettings()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{artifact.directory}: its recipe is not what a build of {manifest.target} writes",
            hint="build the artifact again",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    if text is None:
        raise BadInputError(f"{manifest.target} has no program to show in this language", hint="give --snippet python")
    if language == "python":
        return f"# Run it in the artifact's folder, with a prompt as its argument.\n{text}"
    return text  # says itself that it takes tokens
