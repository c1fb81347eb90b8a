"""`modelwright verify`."""

from __future__ import annotations

from pathlib import Path

import click

from modelwright.cli import options


@click.command(short_help="Check an artifact's hashes and whether this machine can run it.")
@click.argument("artifact")
@options.json_option
def verify(artifact: str, as_json: bool) -> int:
    """Check that ARTIFACT is what was built, and whether this machine can run it.

    \b
    Examples:
      modelwright verify tflite-int8 && modelwright measure tflite-int8

    Exit code 3 when a file was changed, 4 when its runtime is missing, 6 when this machine does not fit.
    """
    from modelwright.cli.printing import print_json, print_line
    from modelwright.core.records.artifact import open_artifact, verify_files
    from modelwright.core.records.language_artifact import is_language_artifact
    from modelwright.harness.run.measure_artifacts import (
        explain_other_machine,
        explain_other_versions,
        require_runnable,
    )
    from modelwright.profiles import detect_host

    if is_language_artifact(Path(artifact)):
        return _verify_generating(artifact, as_json=as_json)
    opened = open_artifact(Path(artifact))
    verify_files(opened)
    host = detect_host()
    notes = [
        require_runnable(opened.manifest.target, opened, host),
        explain_other_machine(opened, host),
        explain_other_versions(opened),
    ]
    note = "; ".join(note for note in notes if note) or None
    if as_json:
        print_json(
            {
                "artifact": artifact,
                "target": opened.manifest.target,
                "files": "verified",
                "runs_here": True,
                "built_for": opened.manifest.machine.name,
                "note": note,
            }
        )
        return 0
    print_line(f"{artifact}: {len(opened.manifest.files)} files are what was built; {opened.manifest.target} runs here")
    if note is not None:
        print_line(f"note: {note}")
    return 0


def _verify_generating(artifact: str, *, as_json: bool) -> int:
    """Does the same for an artifact that generates text."""
    from modelwright.cli.printing import print_json, print_line
    from modelwright.core.records.language_artifact import open_language_artifact, verify_language_files
    from modelwright.harness.language.measuring import require_runnable
    from modelwright.profiles import detect_host

    opened = open_language_artifact(Path(artifact))
    verify_language_files(opened)
    manifest = opened.manifest
    require_runnable(manifest.target, opened, detect_host())
    if as_json:
        print_json(
            {
                "artifact": artifact,
                "target": manifest.target,
                "files": "verified",
                "runs_here": True,
                "built_for": manifest.machine.name,
                "note": None,
            }
        )
        return 0
    print_line(f"{artifact}: {len(manifest.files)} files are what was built; {manifest.target} runs here")
    return 0
