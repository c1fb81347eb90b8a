"""Why an INT8 artifact gains little, by name: what its operators took, as its runtime's own profiler tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelwright.core.onnx.quantized import OWN_SCALES
from modelwright.harness.formatting import count_noun, format_significant, join_words
from modelwright.targets.table import get_target, target_names

if TYPE_CHECKING:
    from modelwright.core.records.operators import OperatorProfile, OperatorType
    from modelwright.harness.results.record import Measurement
    from modelwright.harness.results.statistics import SpeedRatio

NAMED_SHARE = 0.05
"""Of the time, from which on operators of a type are named."""
MAX_NAMED = 3
SMALL_US = 5.0
"""An operator that takes less is over about as soon as it was called: the clock's own share of that is 1 to 2 µs."""
SMALL_SHARE = 0.5
NO_GAIN = 1.1
"""What INT8 could reach at most, if its integer operators took no time, so that it is not worth while."""
SLOW_KERNELS = 0.95
_WEIGHTS_ALONE = "-weights"
"""How the precision ends of artifacts that multiply in floats on purpose: their weights alone are integers."""


def explain_operators(row: Measurement, rival: Measurement, found: SpeedRatio) -> list[str]:
    """Returns sentences on where the time of an INT8 artifact goes besides its integers, and what to change.

    Args:
        row: Of the INT8 artifact.
        rival: Of the float one that it is held against.
        found: How many times as fast the INT8 artifact is.

    Returns:
        Nothing where its operators were not profiled, or where nothing but integers takes time.
    """
    profile = row.operators
    if profile is None or not profile.types or row.precision.endswith(_WEIGHTS_ALONE):
        return []
    islands = find_islands(profile)
    causes = [*_name_times(profile, islands), *_name_small(profile), *_name_slow_kernels(row, rival, found)]
    if not causes:
        return []
    verb = "gains little" if found.is_faster else "does not pay"
    return [
        f"INT8 {verb} because {join_words(causes)}{_name_bound(profile, rival, found)}.",
        *_advise(profile, islands, row),
    ]


def integer_share(profile: OperatorProfile) -> float:
    """Returns the share of the time that goes into integers."""
    return profile.share_where(lambda entry: entry.precision == "int8")


def find_islands(profile: OperatorProfile) -> list[OperatorType]:
    """Returns the types that ran in floats and took a part of the time worth naming, the longest first."""
    return [
        entry
        for entry in profile.types
        if entry.kind != "conversion" and entry.precision not in (None, "int8") and entry.share >= NAMED_SHARE
    ][:MAX_NAMED]


def _name_times(profile: OperatorProfile, islands: list[OperatorType]) -> list[str]:
    """Returns `54 % of its time goes into 3 PRelu in FP32`, `7 % into 9 conversions ...`."""
    parts = [(entry.share, f"{entry.count} {entry.type} in {str(entry.precision).upper()}") for entry in islands]
    conversions = [entry for entry in profile.types if entry.kind == "conversion"]
    share = sum(entry.share for entry in conversions)
    if share >= NAMED_SHARE:
        names = join_words([entry.type for entry in conversions[:2]])
        count = count_noun(sum(entry.count for entry in conversions), "conversion")
        parts.append((share, f"{count} of types and layouts ({names})"))
    return [
        f"{f'{share:.0%}'.replace('%', ' %')}{'' if index else ' of its time goes'} into {what}"
        for index, (share, what) in enumerate(parts)
    ]


def _name_small(profile: OperatorProfile) -> list[str]:
    """Says where calling operators takes the time: those that are over at once, and what lies between all of them."""
    small_us = sum(entry.time_us for entry in profile.types if entry.time_us < SMALL_US * entry.count)
    between_us = max(0.0, profile.inference_us - profile.operators_us)
    if small_us + between_us < SMALL_SHARE * profile.inference_us:
        return []
    mean = format_significant(profile.operators_us / profile.count, 2)
    return [f"its {profile.count} operators take {mean} µs each, about as long as it takes to call them"]


def _name_slow_kernels(row: Measurement, rival: Measurement, found: SpeedRatio) -> list[str]:
    """Says where the integer kernels themselves are no faster: shares of two profiles, and the ratio of two latencies.

    Both artifacts are of one runtime, whose operators are alike, and times of different runs are not compared.
    """
    if row.operators is None or rival.operators is None or row.runtime != rival.runtime:
        return []
    own, other = (
        profile.share_where(lambda entry: entry.kind == "compute") for profile in (row.operators, rival.operators)
    )
    integer = row.operators.share_where(lambda entry: entry.kind == "compute" and entry.precision == "int8")
    if own < NAMED_SHARE or other < NAMED_SHARE or integer < own / 2:
        return []
    ratio = found.ratio * other / own
    if ratio >= SLOW_KERNELS:
        return []
    return [
        f"its convolutions and matrix products run at about {ratio:.2f} of their speed in {rival.precision.upper()}"
    ]


def _name_bound(profile: OperatorProfile, rival: Measurement, found: SpeedRatio) -> str:
    """Says what could be reached at most, where that is little: the other operators would take as long as they do."""
    rest = 1 - integer_share(profile)
    if rest <= 0 or found.ratio / rest > NO_GAIN:
        return ""
    most = f"{found.ratio / rest:.2f} times as fast as {rival.title}"
    return f"; if its integer operators took no time at all, it would be {most}"


def _advise(profile: OperatorProfile, islands: list[OperatorType], row: Measurement) -> list[str]:
    """Returns what is known of the operators that were named: why they are in floats, and what to change."""
    remedies = {remedy.type: remedy for remedy in profile.remedies}
    sentences = []
    for entry in islands:
        remedy = remedies.get(entry.type)
        if remedy is not None:
            change = "" if remedy.change is None else f": {remedy.change}"
            sentences.append(f"{entry.type} {remedy.reason}{change}.")
        elif entry.kind == "compute":
            nodes = [operator.nodes[0] for operator in profile.operators if operator.nodes
                     and (operator.type, operator.precision) == (entry.type, entry.precision)]  # fmt: skip
            named = (
                f" ({join_words(nodes[:MAX_NAMED])}{' and others' if entry.count > MAX_NAMED else ''})" if nodes else ""
            )
            sentences.append(f"{_name_decider(row)} {entry.count} {entry.type} in floats{named}.")
    return sentences


def _name_decider(row: Measurement) -> str:
    """Says what leaves operators in floats: a setting that changes what runs comes before how the model was made."""
    chosen = {} if row.settings is None else row.settings.options
    target = row.target.rpartition("/")[2].partition(" ")[0]
    changing = [
        f"{option.name}={chosen[option.name]}"
        for option in (get_target(target).record.settings if target in target_names() else ())
        if option.changes_answers and option.name in chosen
    ]
    if changing:
        return f"With {join_words(changing)} the runtime leaves"
    return "The model's own scales leave" if row.recipe.get("method") == OWN_SCALES else "The recipe leaves"
