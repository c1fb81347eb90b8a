"""Where an inference's time goes, as the terminal and the page show it: by type, and the longest operators by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from modelwright.core.records.operators import CONVERSIONS, NO_PRECISION, Operator, OperatorProfile
from modelwright.harness.formatting import clean_text, count_noun, format_significant
from modelwright.harness.report.sentences import print_sentence
from modelwright.harness.results.record import Measurement

SHOWN_TYPES, SHOWN_OPERATORS = 12, 15
_COLORS = {"int8": "c2", "fp32": "c1", "fp16": "c0", "bf16": "c0", CONVERSIONS: "c4"}
_OTHER_COLOR = "c3"
_KINDS = {"int8": "INT8", "fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """A type of operator, or one operator.

    Attributes:
        name: With how many there are, or what the operator is.
        ran_in: Its precision, or that it converts.
        color: Of that, a class of the page's style.
        share: Of the time of all operators, in percent.
        time: With its unit.
        nodes: Of the model, that it stands for.
    """

    name: str
    ran_in: str
    color: str
    share: float
    time: str
    nodes: str = ""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The operators of a target, as the page shows them.

    Attributes:
        title: The target's.
        summary: Precisions with their shares of the time.
        parts: Of the bar: colour, where it begins and how long it is in percent, and what it is.
        types: By type.
        operators: The longest.
        note: How many there are, and who told.
    """

    title: str
    summary: str
    parts: Sequence[tuple[str, float, float, str]]
    types: Sequence[Line]
    operators: Sequence[Line]
    note: str


def show_operators(row: Measurement) -> Shown | None:
    """Returns a target's operators for the page; None where they were not profiled."""
    profile = row.operators
    if profile is None or not profile.types:
        return None
    parts, begin = [], 0.0
    for name, share in profile.shares_by_precision().items():
        parts.append((_choose_color(name), begin * 100, share * 100, f"{_spell(name)} {share:.1%}"))
        begin += share
    return Shown(
        title=row.title,
        summary=row.precision_executed.describe() or "",
        parts=parts,
        types=list_types(profile),
        operators=list_longest(profile),
        note=describe_profile(profile),
    )


def list_legend(shown: Sequence[Shown]) -> dict[str, str]:
    """Returns what the bars' parts are -> their colour, for those that are there."""
    present = {color for one in shown for color, _, _, _ in one.parts}
    names = {"c2": "INT8", "c1": "FP32", "c0": "FP16 or BF16", "c4": "conversions of types and layouts", "c3": "other"}
    return {name: color for color, name in names.items() if color in present}


def describe_profile(profile: OperatorProfile) -> str:
    """Returns how many operators ran and took how long, and who told."""
    return (
        f"{count_noun(profile.count, 'operator')}, {_format_us(profile.operators_us)} together; the quickest inference "
        f"under the profiler took {_format_us(profile.inference_us)} ({profile.source}, "
        f"{count_noun(profile.inferences, 'inference')})"
    )


def list_types(profile: OperatorProfile) -> list[Line]:
    """Returns the types that take longest, and the sum of the others."""
    lines = [
        _make_line(f"{entry.count} {entry.type}", entry.kind, entry.precision, entry.share, entry.time_us)
        for entry in profile.types[:SHOWN_TYPES]
    ]
    others = profile.types[SHOWN_TYPES:]
    if others:
        count = sum(entry.count for entry in others)
        share, time_us = sum(entry.share for entry in others), sum(entry.time_us for entry in others)
        lines.append(_make_line(f"{count} of {count_noun(len(others), 'other type')}", "other", "", share, time_us))
    return lines


def list_longest(profile: OperatorProfile) -> list[Line]:
    """Returns the operators that take longest, by name."""
    return [
        _make_line(one.type, one.kind, one.precision, one.share, one.time_us, nodes=_name_nodes(one))
        for one in profile.operators[:SHOWN_OPERATORS]
    ]


def print_operators(profile: OperatorProfile, console: Console, *, longest: bool = False) -> None:
    """Prints a profile as tables that fit 80 columns, a node's long name on lines of its own.

    Args:
        profile: What to print.
        console: Where.
        longest: Whether to name the longest operators too.
    """
    print_sentence(console, Text(f"  {clean_text(describe_profile(profile))}"))
    _print_lines(list_types(profile), console)
    if longest:
        console.print(Text("  the longest:"))
        _print_lines(list_longest(profile), console)


def _print_lines(lines: Sequence[Line], console: Console) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for justify in ("right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for line in lines:
        cells = [f"    {line.share:.1f} %", line.time, line.ran_in, line.name]
        table.add_row(*map(Text, cells), *([Text(line.nodes, style="dim")] if line.nodes else []))
    console.print(table)


def _make_line(name: str, kind: str, precision: str | None, share: float, time_us: float, *, nodes: str = "") -> Line:
    ran_in = CONVERSIONS.removesuffix("s") if kind == "conversion" else precision if precision else NO_PRECISION
    color = _choose_color(CONVERSIONS if kind == "conversion" else precision or NO_PRECISION)
    return Line(
        name=clean_text(name),
        ran_in="" if precision == "" else clean_text(_spell(ran_in)),
        color=color,
        share=share * 100,
        time=_format_us(time_us),
        nodes=clean_text(nodes),
    )


def _name_nodes(operator: Operator) -> str:
    """Returns the first of the nodes that an operator stands for, and how many more there are."""
    others = len(operator.nodes) - 1
    return (operator.nodes or (operator.name,))[0] + (f" and {others} more" if others > 0 else "")


def _choose_color(name: str) -> str:
    return _COLORS.get(name, _OTHER_COLOR)


def _spell(name: str) -> str:
    return _KINDS.get(name, name)


def _format_us(time_us: float) -> str:
    return f"{format_significant(time_us)} µs" if time_us < 1000 else f"{format_significant(time_us / 1000)} ms"
