"""What the user chose about a build: options of the targets, and ranges of input shapes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelwright.core.errors import UsageError
from modelwright.core.records.shapes import ShapeRange, parse_shapes
from modelwright.targets.options import read_value
from modelwright.targets.table import get_target


@dataclass(frozen=True, kw_only=True)
class BuildChoices:
    """What the user chose, for all targets of a build.

    Attributes:
        options: Target -> option -> value, as `read_options` returns it; a target's defaults where it is missing.
        shapes: Input name -> range that the user gave.
        batch: Samples an inference that an engine with a dynamic batch is tuned for.
    """

    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shapes: Mapping[str, ShapeRange] = field(default_factory=dict)
    batch: int = 1

    def options_of(self, target_name: str) -> dict[str, Any]:
        """Returns a value for each of a target's options."""
        defaults = {option.name: option.default for option in get_target(target_name).record.options}
        return defaults | dict(self.options.get(target_name, {}))


def read_choices(
    options: Sequence[str], shapes: Sequence[str], target_names: Sequence[str], batch: int = 1
) -> BuildChoices:
    """Reads the command line's `--option` and `--shapes`.

    Raises:
        UsageError: A text that is no option or range, or an option that none of the targets has.
    """
    return BuildChoices(options=read_options(options, target_names), shapes=parse_shapes(shapes), batch=batch)


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
