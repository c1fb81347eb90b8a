"""`report.html` of a search: one file that opens anywhere, without network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from modelwright.harness.report.page import load_template
from modelwright.harness.report.trial_charts import Attempt, Strip, draw_attempts, draw_strips
from modelwright.harness.tuning.record import Trial, Tuning
from modelwright.harness.tuning.wording import describe_cost, describe_ratio, mark_estimate, name_cost

_COLORS = {"start": 5, "better": 2, "not better": 0, "undecided": 3, "refused": 4, "failed": 4}
_WIDTHS = (1100, 470)
"""Of a chart on a wide screen and on a narrow one, where text would shrink with the drawing."""
_AXES = {
    "latency": "times as fast as the start",
    "throughput": "times the start's samples a second",
    "size": "times smaller than the start",
    "energy": "times as frugal as the start",
}


def render_tuning(found: Tuning) -> str:
    """Returns the page."""
    attempts = [attempt for trial in found.trials if (attempt := _make_attempt(trial, found)) is not None]
    environment = found.environment
    return load_template(Path(__file__).parent, "page.html.j2").render(
        title=f"{found.source}: tuned for {found.goal}",
        subtitle=[f"on {environment.device}", f"{found.timestamp[:19].replace('T', ' ')} UTC"],
        found=found,
        attempts=[draw_attempts(attempts, width=width, axis=_name_axis(found)) for width in _WIDTHS]
        if attempts
        else [],
        axis=_name_axis(found).capitalize(),
        cost=name_cost(found),
        panels=list(_draw_panels(found)),
        finals=[
            (
                final.role,
                final.configuration.describe(),
                describe_cost(final.cost, found.unit),
                describe_ratio(final.over_start) if final.over_start else "",
                describe_ratio(final.over_defaults) if final.over_defaults else "",
            )
            for final in found.finals
        ],
        rows=[
            (
                trial.number,
                trial.configuration.describe(),
                trial.outcome + (f": {trial.reason}" if trial.reason else ""),
                describe_ratio(trial.gain) if trial.gain else "",
                "" if trial.incumbent is None else trial.incumbent,
                describe_cost(trial.cost, found.unit) if trial.cost is not None else "",
                trial.rounds,
            )
            for trial in found.trials
        ],
        versions=", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items())),
    )


def _name_axis(found: Tuning) -> str:
    return _AXES[found.goal] + mark_estimate(found)


def _make_attempt(trial: Trial, found: Tuning) -> Attempt | None:
    if trial.score is None:
        return None
    before = 0.0 if trial.incumbent is None else found.trials[trial.incumbent].score or 0.0
    low = high = None
    if trial.gain is not None and trial.gain.ci95 is not None:
        low, high = (math.exp(before) * end for end in trial.gain.ci95)
    ratio = math.exp(trial.score)
    return Attempt(
        number=trial.number,
        ratio=ratio,
        low=low,
        high=high,
        color=_COLORS[trial.outcome],
        is_best=trial.outcome in ("start", "better"),
        tooltip=f"trial {trial.number}: {trial.configuration.describe()}: {ratio:.3f}x, {trial.outcome}",
    )


def _draw_panels(found: Tuning) -> Iterator[tuple[str, Markup]]:
    """Yields name and drawing of each parameter that trials differ in."""
    scored = [trial for trial in found.trials if trial.score is not None]
    for name, values in _list_parameters(scored).items():
        strips = [Strip(label=label, ratios=ratios) for label, ratios in sorted(values.items())]
        if len(strips) < 2:
            continue
        yield name, draw_strips(strips, title=f"{name}: {_name_axis(found)}")


def _list_parameters(scored: list[Trial]) -> dict[str, dict[str, list[float]]]:
    """Returns parameter -> value -> how good the trials with it were; a setting of the artifacts alone that have it."""
    owners: dict[str, set[str]] = {}
    for trial in scored:
        for name in trial.configuration.options:
            owners.setdefault(name, set()).add(trial.configuration.artifact)
    found: dict[str, dict[str, list[float]]] = {}
    for trial in scored:
        how, ratio = trial.configuration, math.exp(trial.score or 0.0)
        load = f"{how.threads} x {how.requests}" if how.requests > 1 else str(how.threads)
        found.setdefault("artifact", {}).setdefault(how.artifact, []).append(ratio)
        found.setdefault("threads (x requests)", {}).setdefault(load, []).append(ratio)
        for name in sorted(name for name, artifacts in owners.items() if how.artifact in artifacts):
            value = how.options.get(name, "default")
            told = str(value).lower() if isinstance(value, bool) else str(value)
            found.setdefault(name, {}).setdefault(told, []).append(ratio)
    return found
