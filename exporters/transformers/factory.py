"""What a user writes in the place of a folder that is not exported as it is."""

from __future__ import annotations

from pathlib import Path

_FACTORY = (
    "def create(): from transformers import AutoModel, AutoTokenizer; "
    "return AutoModel.from_pretrained({folder!r}, return_dict=False), "
    "dict(AutoTokenizer.from_pretrained({folder!r})('text', return_tensors='pt'))"
)
"""A whole file, for models that read text."""


def tell_factory(folder: Path) -> str:
    """Returns the hint for a model that is not exported from its folder."""
    return f"write a factory and give FILE.py:create: {_FACTORY.format(folder=str(folder))}"
