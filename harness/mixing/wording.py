"""A mix as a table that 80 columns hold, with sentences below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from modelwright.harness.formatting import MISSING, energy_unit, format_significant, join_words
from modelwright.harness.mixing.record import Difference, Mixture, Row
from modelwright.harness.mixing.settings import Ranges
from modelwright.targets.table import get_target, target_names

_ENDS: Mapping[Ranges, str] = {
    "mse": "where the squared error is least (--ranges mse)",
    "minmax": "at the largest value seen (--ranges minmax)",
}
_HEADS = ("", "est. {unit}", "of FP32", "{measure} %", "95 %", "over {fewest}", "runs")


def list_table(mixture: Mixture) -> list[str]:
    """Returns the lines of the table: each way to give bits, its estimated energy, and how it serves."""
    unit, factor = energy_unit(row.energy_j for row in mixture.rows)
    fp32, fewest = mixture.rows[0], min(mixture.settings.bits)
    heads = [head.format(unit=unit, measure=fp32.quality.measure, fewest=fewest) for head in _HEADS]
    cells = [heads, *(_cells(row, fp32, factor) for row in mixture.rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    lines = [_align(heads, widths)]
    group = ""
    for row, line in zip(mixture.rows, cells[1:], strict=True):
        scales = _describe_scales(row)
        if scales and scales != group:
            lines.append(scales)
        group = scales
        lines.append(_align(line, widths))
    return lines


def _describe_scales(row: Row) -> str:
    """Returns what the rows below have in common."""
    if row.granularity is None:
        return ""
    ranked = ", which keep the order of attention's scores" if row.rank_aware else ""
    return f"a scale for each {row.granularity}{ranked}"


def _align(cells: list[str], widths: list[int]) -> str:
    texts = [
        f"{cell:<{width}}" if column in (0, len(cells) - 1) else f"{cell:>{width}}"
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(texts).rstrip()


def _cells(row: Row, fp32: Row, factor: float) -> list[str]:
    interval = row.quality.ci95
    return [
        f"* {row.name}" if row.chosen else f"  {row.name}",
        format_significant(row.energy_j * factor),
        f"{100 * row.energy_j / fp32.energy_j:.1f} %",
        f"{100 * row.quality.value:.1f}",
        MISSING if interval is None else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}",
        "" if row.over_lowest is None else f"{row.over_lowest.points:+.1f}",
        row.runs,
    ]


def list_sentences(mixture: Mixture) -> list[str]:
    """Returns what the table means, and what was chosen."""
    plan = mixture.chosen
    fewest = min(mixture.settings.bits)
    counted = Counter(plan.bits.values())
    given = ", ".join(
        f"{count} of {bits} bits" for bits, count in sorted(counted.items(), key=lambda item: -(item[0] or 0))
    )
    quality = plan.quality
    over = "" if plan.over_lowest is None else f"; {_describe_difference(plan.over_lowest)} {fewest} bits everywhere"
    return [
        f"The plan (*): {given}; {quality.measure} {100 * quality.value:.1f} on {quality.samples} samples that neither "
        f"calibrated nor chose{over}.",
        f"Energies are estimates of one inference's arithmetic and memory traffic, with what operations take in "
        f"{mixture.technology.node} ({mixture.technology.source.partition(':')[0]}); E(b) is that of b bits "
        "everywhere, E(a,b) halfway between two.",
        f"In all rows grids end {_ENDS[mixture.settings.ranges]}.",
        "All rows but FP32 are simulated in floats; `int8` marks bits that integer kernels of runtimes have too. "
        f"`build --plan` executes the plan with {join_words(_list_executing())}: what they lack runs wider.",
    ]


def _list_executing() -> list[str]:
    """Returns the targets that follow a plan of precisions."""
    return [name for name in target_names() if get_target(name).record.follows_plan]


def _describe_difference(difference: Difference) -> str:
    interval = difference.ci95
    known = "" if interval is None else f" [{interval[0]:+.1f}, {interval[1]:+.1f}]"
    return f"{difference.points:+.1f} points{known} against"
