"""`modelwright inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelwright.cli import options
from modelwright.cli.printing import print_json, print_line

if TYPE_CHECKING:
    from modelwright.core.records.artifact import Manifest, Proof

_SHOWN_CHECKS = 3


@click.command(short_help="Show what an artifact is and how it was made.")
@click.argument("artifact")
@options.json_option
def inspect(artifact: str, as_json: bool) -> int:
    """Show what ARTIFACT is: its target, signature, how it was made and how closely it follows FP32.

    \b
    Examples:
      modelwright inspect comparison/artifacts/ort-int8
      modelwright inspect comparison/artifacts/ort-int8 --json | jq .recipe
    """
    from modelwright.core.records.artifact import open_artifact
    from modelwright.core.records.codec import encode

    opened = open_artifact(Path(artifact))
    if as_json:
        print_json(encode(opened.manifest))
        return 0
    manifest = opened.manifest
    source = manifest.source
    _line("target", manifest.target)
    _line("source", f"{source.path}  sha256 {source.sha256[:16]}")
    _line(
        "size", f"{manifest.size_bytes:,} bytes in {len(manifest.files)} files; the runtime loads {manifest.model_file}"
    )
    for spec in manifest.signature.inputs:
        _line("input", spec.describe())
    for spec in manifest.signature.outputs:
        _line("output", spec.describe())
    parts = {
        "calibration": manifest.samples.calibration,
        "tuning": manifest.samples.tuning,
        "evaluation": manifest.samples.evaluation,
    }
    for name, part in parts.items():
        if part is not None:
            _line(name, f"{part.count} samples of {part.path}  sha256 {part.sha256[:16]}")
    _line("built for", f"{manifest.machine.name} ({manifest.machine.architecture})")
    needs = encode(manifest.requires)
    _line("needs", json.dumps(needs) if needs else "nothing beyond its runtime")
    _line("built", f"{manifest.created} in {manifest.build_s:g} s on {manifest.build_host.system}")
    _line("with", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items())))
    _print_proof(manifest.proof, manifest.proof_reason)
    _print_arithmetic(manifest)
    for key, value in manifest.recipe.items():
        _line(f"recipe.{key}", value if isinstance(value, str) else json.dumps(value))
    for note in manifest.notes:
        _line("note", note)
    return 0


def _print_proof(proof: Proof | None, reason: str | None) -> None:
    if proof is None:
        _line("proof", reason or "none")
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
    if proof.emulated:
        parts.append(f"its graph evaluated by {proof.emulated}; `modelwright measure` proves the artifact itself")
    _line("proof", ", ".join(parts))
    if proof.chain is not None:
        fed = ", ".join(state.describe() for state in proof.chain.states)
        _line("chained", f"{fed}: {proof.chain.reason or proof.chain.describe()}, on {proof.chain.chains} chains")
    if task:
        _line("task", task.task)
        for check in task.checks[:_SHOWN_CHECKS]:
            _line("", f"output {check.output}: {check.text}")


def _print_arithmetic(manifest: Manifest) -> None:
    """Says what the proof is worth on the machine that the artifact is for, where that multiplies otherwise."""
    arithmetic = None if manifest.proof is None else manifest.proof.arithmetic
    if arithmetic is not None:
        verb = "the proof holds" if arithmetic.alike else "unproved"
        _line("arithmetic", f"{verb} for {manifest.machine.name}: {arithmetic.why}")


def _line(name: str, value: Any) -> None:
    text = str(value)
    print_line(f"{name:18} {text if len(text) < 400 else text[:397] + '...'}")
