"""How each artifact of a measurement runs: as it was tuned, unless the user says otherwise."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence

from modelwright.core.cores import available_cores
from modelwright.core.errors import BadInputError, UsageError, suggest
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.tuned import describe_settings
from modelwright.harness.run.runner import MeasureSettings
from modelwright.targets.options import Value, read_value, resolve_options
from modelwright.targets.table import get_target, target_names


def settle(artifact: Artifact, settings: MeasureSettings) -> MeasureSettings:
    """Returns the settings that an artifact is measured with.

    What the user says wins: a number of threads over the tuned one, a setting over the tuned value of that setting.
    Without a word of either, an artifact runs as it was tuned, and on one thread where it never was. It gets no more
    threads than this process may use, however many it was tuned with.

    Raises:
        BadInputError: It was tuned with a setting that its runtime does not have.
    """
    tuned = artifact.manifest.tuned if settings.tuned else None
    threads, requests = settings.threads, settings.requests
    options: dict[str, Value] = {}
    if tuned:
        available = available_cores()
        threads = threads or min(tuned.threads, available)
        requests = requests or max(1, min(tuned.requests, available // threads))
        options = dict(tuned.options)
    target = artifact.manifest.target
    options |= settings.options.get(target, {})
    if target in target_names():
        resolve_options(get_target(target).record.settings, options)
    return dataclasses.replace(settings, threads=threads or 1, requests=requests or 1, options={target: options})


def read_settings(texts: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Value]]:
    """Reads `NAME=VALUE`, for every target that has the setting, or `TARGET:NAME=VALUE` for one of them.

    Returns:
        Target -> setting -> value.

    Raises:
        UsageError: Not of that form, no target has it, or a value that is not of its kind.
    """
    chosen: dict[str, dict[str, Value]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        only, colon, name = key.rpartition(":")
        if not separator or not name:
            raise UsageError(f"{text!r} is no setting", hint="write NAME=VALUE or TARGET:NAME=VALUE")
        if colon and only not in names:
            raise UsageError(f"--setting {text}: {only!r} is not among the targets", hint=", ".join(names))
        known = {
            (target, option.name): option
            for target in ([only] if colon else names)
            if target in target_names()
            for option in get_target(target).record.settings
        }
        having = {target: option for (target, named), option in known.items() if named == name}
        if not having:
            others = sorted({named for _, named in known})
            raise UsageError(
                f"none of the targets has a setting {name!r}",
                hint=suggest(name, others) or f"they have: {', '.join(others) or 'none'}",
            )
        for target, option in having.items():
            chosen.setdefault(target, {})[name] = read_value(option, value, flag="--setting")
    return chosen


def explain_settings(artifacts: Mapping[str, Artifact], asked: MeasureSettings, device: str) -> list[str]:
    """Returns sentences about artifacts that do not run as they were tuned, or not as the others do.

    Args:
        artifacts: Name -> artifact of one measurement.
        asked: What the user says of all of them.
        device: This machine, in the words of results.
    """
    settled = {}
    for name, artifact in artifacts.items():
        with contextlib.suppress(BadInputError):  # it costs the artifact's row, which says why
            settled[name] = settle(artifact, asked)
    told = [(name, explain_tuned(artifacts[name], each, device)) for name, each in settled.items()]
    unlike = explain_unlike(settled)
    return [*(f"{name}: {reason}." for name, reason in told if reason), *([unlike] if unlike else [])]


def explain_tuned(artifact: Artifact, settled: MeasureSettings, device: str) -> str | None:
    """Returns what to know about an artifact's tuned settings on this machine; None where there is nothing.

    Args:
        artifact: The artifact.
        settled: How it is measured.
        device: This machine, in the words of results.
    """
    tuned = artifact.manifest.tuned
    if not tuned:
        return None
    asked = describe_settings(
        settled.threads or 1, settled.requests or 1, settled.options.get(artifact.manifest.target, {})
    )
    if not settled.tuned or asked != tuned.describe():
        return f"tuned to run with {tuned.describe()}, and measured with {asked}"
    if tuned.device != device:
        return f"its settings ({tuned.describe()}) were found on another machine, {tuned.device}: tune it here"
    return None


def explain_unlike(settled: Mapping[str, MeasureSettings]) -> str | None:
    """Returns a sentence where artifacts of one measurement run with different threads, requests or settings."""
    kinds: dict[str, list[str]] = {}
    for name, each in settled.items():
        options = {option: value for chosen in each.options.values() for option, value in chosen.items()}
        kinds.setdefault(describe_settings(each.threads or 1, each.requests or 1, options), []).append(name)
    if len(kinds) < 2:
        return None
    told = "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items())
    return f"The artifacts do not all run with the same settings ({told}): their ratios are of both together."
