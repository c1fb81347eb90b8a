"""Files of texts made into samples, in a child: tokenized once, before anything is built or measured."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.files import write_json
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.process.offline import OFFLINE
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.texts import (
    CLASS_SETS,
    IGNORED,
    TAGS,
    TEXT_TOKENIZER,
    TEXTS_FILE,
    TextInputs,
    Texts,
)
from modelwright.core.samples.archives import array_file_name
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.sample_set import LABELS, SPLIT_SEED, TARGET
from modelwright.core.samples.source import SampleSource
from modelwright.core.samples.texts import tokenizer as tokenizing
from modelwright.core.samples.texts.labelled import LabelledText, read_labelled
from modelwright.core.scratch import staged_directory
from modelwright.core.system_errors import explain_os_error

REGRESSION_TARGET = f"{TARGET}logits"
"""What the answers of a model should be that gives a number; `logits` is its output."""


def materialize_texts(source: SampleSource, directory: Path, *, limit: int, progress: Progress | None = None) -> Path:
    """Makes samples of a file of texts: a folder of `.npy` files, with `Texts` and the tokenizer beside them.

    Args:
        source: The file, with what reads it.
        directory: The folder to make; there is either all of it or nothing.
        limit: Of more texts, so many are taken, chosen by a fixed seed.
        progress: Takes a line now and then.

    Raises:
        BadInputError: The file cannot be used, or the folder has no tokenizer that does.
        ToolchainMissingError: transformers, or tokenizers, is not installed.
    """
    reader = source.reader
    assert reader is not None
    with staged_directory(directory) as staging:
        run_in_child(
            "modelwright.core.samples.texts.store:store_in_child",
            {
                "path": source.text,
                "folder": str(reader.folder),
                "model": encode(reader.model),
                "settled": reader.length,
                "beside": list(reader.beside),
                "asked": source.max_length,
                "directory": str(staging),
                "limit": limit,
            },
            purpose=f"tokenizing {source.text}",
            crash_error=BadInputError,
            environment=OFFLINE,
            progress=progress,
        )
    return directory


def store_in_child(
    path: str,
    folder: str,
    model: dict[str, Any],
    settled: int | None,
    beside: Sequence[str],
    asked: int | None,
    directory: str,
    limit: int,
    progress: Progress,
) -> None:
    """Child side of `materialize_texts`.

    Args:
        path: The file.
        folder: With the tokenizer: of transformers, or an artifact's.
        model: `TextInputs`.
        settled: Tokens a row, where the tokenizer cuts and pads to them already.
        beside: Other files of texts, which get as many tokens a row.
        asked: Tokens a row, as the user said.
        directory: To write.
        limit: Of texts.
        progress: Takes what is going on.
    """
    if settled is not None and asked not in (None, settled):
        raise BadInputError(
            f"--max-length {asked}: the artifact's tokenizer makes rows of {settled} tokens", hint="leave it out"
        )
    takes, made = decode(TextInputs, model), Path(directory)
    with explain_os_error(Path(path)):
        texts = read_labelled(Path(path), takes)
        others = [text for other in beside for text in read_labelled(Path(other), takes)]
    progress(f"reading the tokenizer of {folder}")
    if settled is None:
        tokenizer, most = tokenizing.load_tokenizer(Path(folder), takes)
    else:
        tokenizer, most = tokenizing.read_tokenizer(Path(folder)), settled
    progress(f"tokenizing {len(texts)} texts")
    longest = tokenizing.measure_longest(tokenizer, texts)
    every = max(longest, tokenizing.measure_longest(tokenizer, others)) if others else longest
    length = settled or tokenizing.choose_length(every, most, asked)
    tokenizing.settle_length(tokenizer, length)
    order = np.arange(len(texts))
    if len(texts) > limit:
        order = np.sort(np.random.default_rng(SPLIT_SEED).permutation(len(texts))[:limit])
    chosen = [texts[place] for place in order]
    with explain_os_error(made):
        cut, unseen = _write(tokenizer, chosen, takes, length, made)
        tagged = takes.task == "token classification" and chosen[0].labels is not None
        record = Texts(
            model=takes,
            length=length,
            longest=longest,
            taken=len(chosen),
            left=len(texts) - len(chosen),
            cut=cut,
            pairs=sum(each.pair is not None for each in chosen),
            labelled=chosen[0].label is not None or chosen[0].labels is not None,
            words=sum(_count_tags(each) for each in chosen) if tagged else None,
            unseen=unseen,
            bare_words=isinstance(chosen[0].text, tuple) and tokenizing.has_bare_words(tokenizer),
        )
        write_json(made / TEXTS_FILE, encode(record))
        tokenizer.save(str(made / TEXT_TOKENIZER))


def _write(tokenizer: Any, texts: list[LabelledText], model: TextInputs, length: int, made: Path) -> tuple[int, int]:
    """Writes the arrays; returns how many texts were cut, and how many words with a tag are not among the tokens."""
    cut, tags = 0, list[list[int]]()
    with contextlib.ExitStack() as stack:
        writers = {
            name: stack.enter_context(NpyWriter(made / array_file_name(name), np.dtype(np.int64), (length,)))
            for name in model.inputs
        }
        for text, row in zip(texts, tokenizing.encode(tokenizer, texts), strict=True):
            _check(text, row, model)
            cut += tokenizing.is_cut(row)
            for name, writer in writers.items():
                writer.append(np.array(tokenizing.find_array(row, name), np.int64))
            if isinstance(text.text, tuple) and text.labels is not None:
                tags.append(tokenizing.place_tags(row, text.labels))
    labels = [each.label for each in texts if each.label is not None]
    sets = [each.labels for each in texts if each.labels is not None]
    if labels and model.task == "regression":
        np.save(made / array_file_name(REGRESSION_TARGET), np.array(labels, np.float32)[:, None])
    elif labels:
        np.save(made / array_file_name(LABELS), np.array(labels, np.int64))
    elif tags:
        np.save(made / array_file_name(TAGS), np.array(tags, np.int64))
    elif sets:
        np.save(made / array_file_name(CLASS_SETS), np.array(sets, np.int64))
    seen = sum(tag != IGNORED for row in tags for tag in row)
    return cut, sum(map(_count_tags, texts)) - seen if tags else 0


def _count_tags(text: LabelledText) -> int:
    return sum(tag != IGNORED for tag in text.labels or ())


def _check(text: LabelledText, row: Any, model: TextInputs) -> None:
    """Refuses tokens that the model does not know."""
    if max(row.ids) >= model.vocabulary:
        raise BadInputError(
            f"{text.where}: it becomes the token {max(row.ids)}, and the model knows {model.vocabulary}: the tokenizer "
            "is another model's",
            hint="save the model's own tokenizer beside it",
        )
