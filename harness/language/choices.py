"""What the user says to targets that generate: `--option` of a build and `--setting` of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from modelwright.core.errors import UsageError, suggest
from modelwright.core.records.machine import Machine
from modelwright.targets.language.contract import LanguageTargetRecord
from modelwright.targets.language.table import BASELINE, get_target, suiting_targets, target_names
from modelwright.targets.options import TargetOption, Value, read_value

Chosen = dict[str, dict[str, Value]]


def choose_baseline(named: str | None, machine: Machine) -> str:
    """Returns the target that all others are held against: the user's, else PyTorch's, else one that there is here.

    Args:
        named: By the user.
        machine: This one.

    Raises:
        UsageError: There is no such target, or it does not compute in FP32.
    """
    fp32 = [name for name in target_names() if get_target(name).record.precision == "fp32"]
    if named is not None:
        get_target(named)
        if named not in fp32:
            raise UsageError(
                f"--baseline {named}: what others write is held against FP32", hint=f"give one of {', '.join(fp32)}"
            )
        return named
    usual = sorted(fp32, key=lambda name: name != BASELINE)
    return next((name for name in usual if get_target(name).check_build(machine).ok), usual[0])


def choose_targets(named: Sequence[str] | None, baseline: str, machine: Machine) -> tuple[str, ...]:
    """Returns the targets to build in the table's order, the baseline first.

    Args:
        named: By the user; None or none for those that suit the machine.
        baseline: Of them; added where it is missing.
        machine: That they are for.

    Raises:
        UsageError: There is no such target.
    """
    for name in named or ():
        get_target(name)
    wanted = set(named or suiting_targets(machine))
    return (baseline, *(name for name in target_names() if name in wanted and name != baseline))


def describe_targets(chosen: Sequence[str]) -> str:
    """Says which targets are taken where the user named none, and how to have the others."""
    others = [name for name in target_names() if name not in chosen]
    return f"{len(chosen)} targets: {', '.join(chosen)}; --target names others instead: {', '.join(others)}"


def read_build_options(texts: Sequence[str], names: Sequence[str]) -> Chosen:
    """Reads `--option`; every option of every target gets a value.

    Raises:
        UsageError: Not of that form, no target has it, or a value that is not of its kind.
    """
    given = _read(texts, names, lambda record: record.options, "--option")
    defaults = {
        name: {each.name: each.default for each in get_target(name).record.options if each.default is not None}
        for name in names
    }
    return {name: {**defaults[name], **given.get(name, {})} for name in names}


def read_run_settings(texts: Sequence[str], names: Sequence[str]) -> Chosen:
    """Reads `--setting`.

    Raises:
        UsageError: Not of that form, no target has it, or a value that is not of its kind.
    """
    return _read(texts, names, lambda record: record.settings, "--setting")


def _read(
    texts: Sequence[str],
    names: Sequence[str],
    list_options: Callable[[LanguageTargetRecord], Sequence[TargetOption]],
    flag: str,
) -> Chosen:
    """Reads `NAME=VALUE`, for every target that has it, or `TARGET:NAME=VALUE` for one of them."""
    chosen: Chosen = {}
    for text in texts:
        key, separator, value = text.partition("=")
        only, colon, name = key.rpartition(":")
        if not separator or not name:
            raise UsageError(f"{flag} {text!r} has no value", hint="write NAME=VALUE or TARGET:NAME=VALUE")
        if colon and only not in names:
            raise UsageError(f"{flag} {text}: {only!r} is not among the targets", hint=", ".join(names))
        named = [only] if colon else names
        known = {(each, one.name): one for each in named for one in list_options(get_target(each).record)}
        having = {each: option for (each, told), option in known.items() if told == name}
        if not having:
            others = sorted({told for _, told in known})
            raise UsageError(
                f"none of the targets has {flag.removeprefix('--')} {name!r}",
                hint=suggest(name, others) or f"they have: {', '.join(others) or 'none'}",
            )
        for each, option in having.items():
            chosen.setdefault(each, {})[name] = read_value(option, value, flag=flag)
    return chosen
