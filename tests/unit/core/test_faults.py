from __future__ import annotations

import errno

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError, UnexpectedError
from modelwright.core.faults import as_error


def test_an_own_error_is_as_it_was() -> None:
    error = BadInputError("no", hint="yes")
    assert as_error(error, "reading") is error


def test_what_the_system_refuses_is_told_as_that() -> None:
    assert isinstance(as_error(OSError(errno.ENOSPC, "No space left"), "writing"), BuildFailedError)
    assert "not enough memory" in as_error(MemoryError(), "building x").message


def test_all_else_is_a_fault_of_ours_and_keeps_its_traceback() -> None:
    try:
        {}["shape"]
    except KeyError as caught:
        error = as_error(caught, "building x")
    assert error.message == "building x failed: KeyError: 'shape'"
    assert error.exit_code == 1
    assert "test_faults.py" in (error.detail or "")
    assert isinstance(ModelwrightError.from_dict(error.to_dict()), UnexpectedError)


def test_long_words_are_cut() -> None:
    assert len(as_error(ValueError("x" * 10**6), "reading").message) < 1000
