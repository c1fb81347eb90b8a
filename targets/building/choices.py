"""What the user chose about a build: options of the targets, and ranges of input shapes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, UsageError
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.plan import PlanChoice, read_plan, require_model
from modelwright.core.records.shapes import ShapeRange, parse_shapes
from modelwright.targets.options import read_value
from modelwright.targets.table import get_target
from modelwright.targets.table import target_names as all_targets


@dataclass(frozen=True, kw_only=True)
class BuildChoices:
    """What the user chose, for all targets of a build.

    Attributes:
        options: Target -> option -> value, as `read_options` returns it; a target's defaults where it is missing.
        shapes: Input name -> range that the user gave.
        batch: Samples an inference that an engine with a dynamic batch is tuned for.
        plan: Of precisions, for the targets that follow one.
        plan_path: Where it was read; empty without one.
    """

    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    batch: int = 1
    plan: PlanChoice | None = None
    plan_path: str = ""

    def require_plan_fits(self, exported: ExportedModel) -> None:
        """Refuses a plan that was made for another model than the one that is built.

        Raises:
            BadInputError: Names both.
        """
        if self.plan is not None:
            require_model(self.plan.plan, Path(self.plan_path), exported.sha256)

    def plan_for(self, target_name: str, exported: ExportedModel) -> PlanChoice | None:
        """Returns the plan that a target is to follow; None without one, and for float targets.

        Raises:
            BadInputError: The target cannot follow one, or it is for another model.
        """
        record = get_target(target_name).record
        if self.plan is None or record.is_float:
            return None
        if not record.follows_plan:
            others = [name for name in all_targets() if get_target(name).record.follows_plan]
            raise BadInputError(
                f"{target_name} cannot follow a plan of precisions: it has one precision for all layers",
                hint=f"{', '.join(others)} follow one; without --plan it is built as ever",
            )
        self.require_plan_fits(exported)
        return self.plan

    def options_of(self, target_name: str) -> dict[str, Any]:
        """Returns a value for each of a target's options."""
        defaults = {option.name: option.default for option in get_target(target_name).record.options}
        return defaults | dict(self.options.get(target_name, {}))


def read_choices(
    options: Sequence[str],
    shapes: Sequence[str],
    target_names: Sequence[str],
    batch: int = 1,
    *,
    plan: str | Path | None = None,
    repair_plan: bool = False,
) -> BuildChoices:
    """Reads the command line's `--option`, `--shapes`, `--plan` and `--repair-plan`.

    Raises:
        UsageError: A text that is no option or range, an option that none of the targets has, or no plan to repair.
        BadInputError: The plan cannot be used.
    """
    if repair_plan and plan is None:
        raise UsageError("--repair-plan repairs nothing without a plan", hint="give --plan FILE too")
    return BuildChoices(
        options=read_options(options, target_names),
        shapes=parse_shapes(shapes),
        batch=batch,
        plan=None if plan is None else PlanChoice(plan=read_plan(Path(plan)), repairs=repair_plan),
        plan_path="" if plan is None else str(plan),
    )


def read_options(texts: Sequence[str], target_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Reads `NAME=VALUE`, for every target that has the option, or `TARGET:NAME=VALUE` for one of them.

    Returns:
        Target -> option -> value of its kind.

    Raises:
        UsageError: Not of that form, no target has it, or a value that is not of the option's kind.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        only, colon, name = key.rpartition(":")
        if not separator or not name:
            raise UsageError(f"{text!r} is no option", hint="write NAME=VALUE or TARGET:NAME=VALUE")
        if colon and only not in target_names:
            raise UsageError(f"--option {text}: {only!r} is not among the targets", hint=", ".join(target_names))
        named = [only] if colon else target_names
        having = {
            target: option for target in named for option in get_target(target).record.options if option.name == name
        }
        if not having:
            raise _unknown_option(name, named)
        for target, option in having.items():
            chosen.setdefault(target, {})[name] = read_value(option, value)
    return chosen


def _unknown_option(name: str, target_names: Sequence[str]) -> UsageError:
    known = sorted({option.name for target in target_names for option in get_target(target).record.options})
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"they have: {', '.join(known) or 'none'}"
    return UsageError(f"none of the targets has an option {name!r}", hint=hint)
