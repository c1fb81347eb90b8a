"""A model's chat template makes text of a conversation: in a sandbox, within bounds of time and memory.

A template is a program that came with the model. It reaches nothing of Python; nor may it run for ever or fill memory.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from modelwright.core.errors import BadInputError

if TYPE_CHECKING:
    from types import FrameType

LIMIT_S = 10.0
"""For one conversation, which takes a template some milliseconds."""
LARGEST_TEXT = 2**26
"""Letters: no model reads a text as long."""
_MEMORY_BYTES = 2**30
"""That a template may take."""
_FACTOR_BITS = 256
"""Of products and powers of whole numbers: those of a template count messages."""
_REFUSALS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What a template leads to that asks a conversation for what it lacks."""
_HINT = "see what roles and order the model was trained on, or give prompts in the place of messages"
_ENDLESS_HINT = "take the chat template that the model was published with, or give prompts in the place of messages"


def render(
    template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str], where: str, *, speaks_next: bool
) -> str:
    """Returns the text of a conversation, special tokens written out.

    Args:
        template: In Jinja, as transformers has it.
        messages: With `role` and `content`.
        special: Name -> token, such as `bos_token`.
        where: The messages stand, for errors.
        speaks_next: Whether the model begins a message of its own.

    Raises:
        BadInputError: The template refuses the conversation, or comes to no end.
    """
    from jinja2.exceptions import TemplateError

    try:
        with _limit_time(), _limit_memory():
            made = _make_environment().from_string(template)
            text = str(made.render(messages=messages, add_generation_prompt=speaks_next, **special))
    except (_TooLongError, MemoryError) as error:
        spent = f"{LIMIT_S:g} s" if isinstance(error, _TooLongError) else f"{_MEMORY_BYTES >> 20:,} MiB of memory"
        raise BadInputError(
            f"{where}: the model's chat template did not make a text of these messages within {spent}",
            hint=_ENDLESS_HINT,
        ) from None
    except (TemplateError, *_REFUSALS) as error:
        raise BadInputError(
            f"{where}: the model's chat template refuses these messages: {str(error)[:500]}", hint=_HINT
        ) from error
    if len(text) > LARGEST_TEXT:
        raise BadInputError(
            f"{where}: the model's chat template makes a text of {len(text):,} letters of these messages, expected at "
            f"most {LARGEST_TEXT:,}",
            hint=_ENDLESS_HINT,
        )
    return text


def _make_environment() -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        # What takes Python itself minutes, in which no signal is seen.
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if isinstance(left, int) and isinstance(right, int):
                bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
                if bits > _FACTOR_BITS:
                    raise OverflowError(f"a number of more than {_FACTOR_BITS} bits")
            return super().call_binop(context, operator, left, right)

    environment = Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _format_now}
    return environment


class _TooLongError(BaseException):
    """Passes everything that a template could catch."""


@contextlib.contextmanager
def _limit_time() -> Iterator[None]:
    """Interrupts what takes too long, where the system has such a clock; elsewhere the limit of all texts holds."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        others = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *others)


@contextlib.contextmanager
def _limit_memory() -> Iterator[None]:
    """Lets the process grow by so much and no more, where the system can be asked for it."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + _MEMORY_BYTES
    known = [limit for limit in (most, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _refuse(message: str) -> NoReturn:
    """Is what templates call to refuse a conversation."""
    raise ValueError(message)


def _format_now(form: str) -> str:
    """Is what templates call for the date; a fixed one, so that two runs have the same tokens."""
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC).strftime(form)
