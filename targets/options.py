"""What a target leaves to the user, as data: options of a build, and settings that an artifact runs with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from modelwright.core.errors import BadInputError, UsageError, suggest

Device = Literal["cpu", "cuda"]
Value = int | bool | str
"""Of an option, by its kind."""
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, kw_only=True)
class TargetOption:
    """A choice that a target leaves to the user at build time: `--option NAME=VALUE`.

    Attributes:
        name: As typed: `workspace-mb`.
        kind: What a value is.
        default: Taken when the user says nothing.
        help: A sentence for `modelwright targets NAME`.
        choices: Of the kind `choice`.
        minimum: Of the kind `integer`.
        maximum: Of the kind `integer`.
    """

    name: str
    kind: Literal["integer", "boolean", "choice"]
    default: Value | None
    help: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None


@dataclass(frozen=True, kw_only=True)
class RunOption(TargetOption):
    """A setting of a runtime that an artifact is run with: `--setting NAME=VALUE`.

    What runs when nobody says anything is the default: the vendor's own, unless the help says otherwise.

    Attributes:
        vendor_name: Where the vendor documents it: `SessionOptions.enable_mem_pattern`.
        changes_answers: Whether it can change what the artifact answers. A search then holds the answers against those
            that were proved before it believes the speed.
        tried: The values that a search tries; empty for all choices, or both values of a boolean.
        needs: Another setting and the value that it must have for this one to do anything.
        needs_threads: Whether it does anything with more than one thread only.
    """

    vendor_name: str
    changes_answers: bool = False
    tried: tuple[Value, ...] = ()
    needs: tuple[str, Value] | None = None
    needs_threads: bool = False

    @property
    def candidates(self) -> tuple[Value, ...]:
        """The values that a search tries, the default first."""
        known: tuple[Value, ...] = self.tried or (self.choices if self.kind == "choice" else (True, False))
        first = () if self.default is None else (self.default,)
        return tuple(dict.fromkeys((*first, *known)))


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a session is to run.

    Attributes:
        threads: Intra-operator threads on the CPU; with several requests in flight, of each.
        device: Where it runs; one of the record's devices.
        cuda_graph: Whether the computation is captured once and launched as a CUDA graph.
        spin: Whether to wait for the GPU by polling: quicker to notice, at the price of a CPU core.
        streams: Inferences in flight on the GPU at a time, where the computation alone is timed.
        requests: Inferences in flight on the CPU at a time, each called by a thread of its own.
        options: The record's settings that are not to be at their defaults, by name.
        profiled: Whether the runtime's own profiler is on, for `Session.profile_operators`; never where time is
            measured.
    """

    threads: int = 1
    device: Device = "cpu"
    cuda_graph: bool = False
    spin: bool = False
    streams: int = 1
    requests: int = 1
    options: Mapping[str, Value] = field(default_factory=dict)
    profiled: bool = False


def read_value(option: TargetOption, text: str, *, flag: str = "--option") -> Value:
    """Returns a value of the option's kind, as typed behind `flag`.

    Raises:
        UsageError: It is not of that kind, or out of its range.
    """
    if option.kind == "boolean":
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise UsageError(f"{flag} {option.name}={text}: give true or false")
    if option.kind == "choice":
        if text in option.choices:
            return text
        raise UsageError(f"{flag} {option.name}={text}: give one of {', '.join(option.choices)}")
    low, high = option.minimum, option.maximum
    digits = text.removeprefix("-")
    value = int(text) if digits.isdecimal() and digits.isascii() and len(digits) < 19 else None
    if value is None or (low is not None and value < low) or (high is not None and value > high):
        upper = "" if high is None else f" to {high}"
        lower = "" if low is None else f" from {low}"
        raise UsageError(f"{flag} {option.name}={text}: give a whole number{lower}{upper}")
    return value


def resolve_options(options: Sequence[RunOption], chosen: Mapping[str, Value]) -> dict[str, Value | None]:
    """Returns a value for every setting: what was chosen, else its default.

    Args:
        options: That the target has.
        chosen: Name -> value; may come from a manifest, and so from anywhere.

    Raises:
        BadInputError: The target has no such setting, or it takes no such value.
    """
    known = {option.name: option for option in options}
    for name, value in chosen.items():
        option = known.get(name)
        if option is None:
            raise BadInputError(
                f"the runtime has no setting {name!r:.100}",
                hint=suggest(name, known) or f"it has: {', '.join(known) or 'none'}",
            )
        if not _is_value(option, value):
            raise BadInputError(f"setting {name} cannot be {value!r:.100}", hint=f"it takes {describe_values(option)}")
    return {option.name: chosen.get(option.name, option.default) for option in options}


def _is_value(option: RunOption, value: object) -> bool:
    if option.kind == "boolean":
        return isinstance(value, bool)
    if option.kind == "choice":
        return value in option.choices
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return (option.minimum is None or value >= option.minimum) and (option.maximum is None or value <= option.maximum)


def describe_values(option: TargetOption) -> str:
    """Returns what may be typed for an option: `true|false`, `a|b`, `1..8`."""
    if option.kind == "boolean":
        return "true|false"
    if option.kind == "choice":
        return "|".join(option.choices)
    low = "" if option.minimum is None else option.minimum
    high = "" if option.maximum is None else option.maximum
    return f"{low}..{high}"


def describe_value(value: Value | None) -> str:
    """Returns a value as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
