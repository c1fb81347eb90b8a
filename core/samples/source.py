"""Samples as the user names them, with what makes a model's inputs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import UsageError
from modelwright.core.records.texts import TextInputs
from modelwright.core.samples.python_source import is_python
from modelwright.core.samples.texts.rows import is_text_file


class SignatureNeededError(UsageError):
    """Samples cannot be made before the model's inputs are known."""


@dataclass(frozen=True, kw_only=True)
class TextReader:
    """What makes inputs of texts.

    Attributes:
        folder: With the tokenizer: of transformers, or an artifact's.
        model: What takes them.
        beside: Other files of texts, which get as many tokens a row.
        length: Tokens of every row, where the tokenizer of the folder cuts and pads to them; None for transformers'.
    """

    folder: Path
    model: TextInputs
    beside: tuple[str, ...] = ()
    length: int | None = None


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """A text that names samples, and how pictures or texts in it become inputs; it may stand wherever samples do.

    Attributes:
        text: `file.npz`, `file.npy`, a folder, `file.py:function`, `random`.
        preprocess: What is done to pictures, as `--preprocess` takes it; None where there are none.
        labels: File with the names of the classes, in the model's order; None for `classes.txt` in the folder, else for
            the sorted names of the folders.
        max_length: Tokens a row of texts; None for those of the longest one.
        reader: Of texts; None where the model is not known yet, and where there are none.
    """

    text: str
    preprocess: str | None = None
    labels: str | None = None
    max_length: int | None = None
    reader: TextReader | None = None

    def __str__(self) -> str:
        return self.text


Named = str | Path | SampleSource


def as_source(samples: Named) -> SampleSource:
    """Returns samples as a source."""
    return samples if isinstance(samples, SampleSource) else SampleSource(text=str(samples))


def add_preprocessing(
    texts: Sequence[str | None], preprocess: str | None, labels: str | None, max_length: int | None = None
) -> list[SampleSource | None]:
    """Returns named samples with what is done to pictures - in folders, and in what functions yield - and to texts.

    Raises:
        UsageError: None of them can be pictures, or texts.
    """
    if max_length is not None and not any(text and is_text_file(text) for text in texts):
        raise UsageError(
            f"--max-length is for texts, and {', '.join(filter(None, texts))} is no .jsonl, .csv or .txt",
            hint="leave it out: arrays are as long as they are",
        )
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
            max_length=max_length if is_text_file(text) else None,
        )
        for place, text in enumerate(texts)
    ]
