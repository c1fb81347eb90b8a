"""Samples as the user names them, with what makes a model's inputs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import UsageError
from modelwright.core.samples.python_source import is_python


class SignatureNeededError(UsageError):
    """Samples cannot be made before the model's inputs are known."""


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """A text that names samples, and how pictures in it become inputs; wherever samples are given, one may stand.

    Attributes:
        text: `file.npz`, `file.npy`, a folder, `file.py:function`, `random`.
        preprocess: What is done to pictures, as `--preprocess` takes it; None where there are none.
        labels: File with the names of the classes, in the model's order; None for `classes.txt` in the folder, else for
            the sorted names of the folders.
    """

    text: str
    preprocess: str | None = None
    labels: str | None = None

    def __str__(self) -> str:
        return self.text


Named = str | Path | SampleSource


def as_source(samples: Named) -> SampleSource:
    """Returns samples as a source."""
    return samples if isinstance(samples, SampleSource) else SampleSource(text=str(samples))


def add_preprocessing(
    texts: Sequence[str | None], preprocess: str | None, labels: str | None
) -> list[SampleSource | None]:
    """Returns named samples with what is done to pictures: in folders, and in what functions yield.

    Raises:
        UsageError: None of them can be pictures.
    """
    places = [place for place, text in enumerate(texts) if text and (is_python(text) or Path(text).is_dir())]
    for option, value in (("--preprocess", preprocess), ("--labels", labels)):
        if value is not None and not places:
            raise UsageError(
                f"{option} is for pictures, and {', '.join(filter(None, texts))} holds none",
                hint=f"leave {option} away; or give a folder of pictures, or file.py:function that yields them",
            )
    if labels is not None and preprocess is None:
        raise UsageError("--labels is for folders of pictures", hint="add --preprocess, which says how they are read")
    return [
        None
        if text is None
        else SampleSource(
            text=text,
            preprocess=preprocess if place in places else None,
            labels=labels if place in places and not is_python(text) else None,
        )
        for place, text in enumerate(texts)
    ]
