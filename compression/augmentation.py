"""A function of the user's that changes batches while they train, such as shifted and mirrored images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.samples.python_source import load_function, shorten_traceback, split_function

Batch = dict[str, Any]
"""Inputs and answers by name, as tensors [batch, ...]."""


def make_augment(spec: str) -> Callable[[Batch], Batch]:
    """Loads `file.py:function`, which takes a batch and returns another of the same names, shapes and types.

    Raises:
        BadInputError: The file cannot be run. Later, when it is called: it fails, or returns something else.
    """
    path, name = split_function(spec)
    assert name is not None
    function: Callable[[Batch], Any] = load_function(path, name)

    def augment(batch: Batch) -> Batch:
        try:
            made: Batch = function(dict(batch))
        except Exception as error:  # what a function of the user's raises is its own affair
            raise BadInputError(
                f"--augment {spec} failed: {type(error).__name__}: {error}",
                hint="it is called with a dict of tensors: inputs, labels, target_..., each [batch, ...]",
                detail=shorten_traceback(error),
            ) from error
        wanted, found = _describe(batch), _describe(made)
        if found != wanted:
            raise BadInputError(
                f"--augment {spec} returned {found}, and {wanted} went in",
                hint="return a dict with the same names, and tensors of the same shapes and types",
            )
        return made

    return augment


def _describe(batch: Any) -> str:
    if not isinstance(batch, dict):
        return type(batch).__name__
    return ", ".join(
        f"{name} {getattr(value, 'dtype', type(value).__name__)} {list(getattr(value, 'shape', ()))}"
        for name, value in sorted(batch.items())
    )
