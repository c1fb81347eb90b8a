"""The tokenizer of a transformers folder as one file that needs no transformers: it cuts and pads texts to rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.records.texts import IGNORED, TEXT_TOKENIZER, TextInputs
from modelwright.core.samples.texts.labelled import LabelledText

_AT_ONCE = 256
_ROUNDED_TO = 8
"""Rows are of whole vectors of 8 floats; a few tokens of padding cost nothing then."""
_WHOLE = 2**31
"""What a tokenizer says that knows no longest text is more than this."""


def load_tokenizer(folder: Path, model: TextInputs) -> tuple[Any, int]:
    """Returns the tokenizer of a transformers folder, which pads, and the most tokens that it gives a text.

    Args:
        folder: Of transformers.
        model: Whose tokens they are.

    Raises:
        BadInputError: There is none, or it cannot pad.
        ToolchainMissingError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as error:
        raise _explain_missing(error) from error
    try:
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = loaded.backend_tokenizer  # only fast ones can be given on as a file
    except Exception as error:  # transformers raises whatever a missing or wrong file leads to
        raise BadInputError(
            f"{folder} has no tokenizer that can be used",
            hint="save it beside the model as a fast one: tokenizer.save_pretrained(folder)",
            detail=str(error),
        ) from error
    if loaded.pad_token_id is None:
        raise BadInputError(
            f"the tokenizer of {folder} has no token that fills rows up",
            hint="set tokenizer.pad_token, and pad_token_id in config.json, as in training, and save both again",
        )
    tokenizer.enable_padding(
        direction=loaded.padding_side,
        pad_id=loaded.pad_token_id,
        pad_type_id=loaded.pad_token_type_id,
        pad_token=loaded.pad_token,
    )
    most = loaded.model_max_length if loaded.model_max_length < _WHOLE else model.most_tokens
    return tokenizer, min(most, model.most_tokens)


def read_tokenizer(folder: Path) -> Any:
    """Returns the tokenizer of an artifact, which cuts and pads as it was settled.

    Raises:
        BadInputError: It cannot be read.
        ToolchainMissingError: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise _explain_missing(error) from error
    path = folder / TEXT_TOKENIZER
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain Exception for whatever is wrong with a file
        raise BadInputError(
            f"{path} cannot be read as a tokenizer", hint="build the artifact again", detail=str(error)
        ) from error


def measure_longest(tokenizer: Any, texts: Iterable[LabelledText]) -> int:
    """Returns the tokens of the longest text, uncut."""
    tokenizer.no_truncation()
    padding = tokenizer.padding
    tokenizer.no_padding()
    longest = max(len(row.ids) for row in encode(tokenizer, texts))
    tokenizer.enable_padding(**padding)
    return longest


def choose_length(longest: int, most: int, asked: int | None) -> int:
    """Returns how many tokens each row has: as the user says, else as many as the longest text, rounded up.

    Raises:
        BadInputError: More are asked for than the model takes.
    """
    if asked is not None and asked > most:
        raise BadInputError(
            f"--max-length {asked}: the model takes {most} tokens at most", hint=f"give --max-length {most} or less"
        )
    return asked or min(most, -(-longest // _ROUNDED_TO) * _ROUNDED_TO)


def settle_length(tokenizer: Any, length: int) -> None:
    """Lets a tokenizer cut and pad every text, or pair of texts, to one number of tokens."""
    tokenizer.enable_truncation(max_length=length)
    tokenizer.enable_padding(**{**tokenizer.padding, "length": length})


def encode(tokenizer: Any, texts: Iterable[LabelledText]) -> Iterator[Any]:
    """Yields the tokens of texts in their order, with those that the model expects around them."""
    for in_words, alike in groupby(texts, key=lambda each: isinstance(each.text, tuple)):
        while block := list(islice(alike, _AT_ONCE)):
            yield from tokenizer.encode_batch([_to_input(each) for each in block], is_pretokenized=in_words)


def place_tags(row: Any, tags: Sequence[int]) -> list[int]:
    """Returns a tag for each token of a row: a word's at its first one, and `IGNORED` at all others.

    Args:
        row: Tokens of words.
        tags: One a word.
    """
    words = row.word_ids
    return [
        IGNORED if word is None or word == before else tags[word]
        for word, before in zip(words, [None, *words], strict=False)
    ]


def has_bare_words(tokenizer: Any) -> bool:
    """Whether a tokenizer of bytes makes other tokens of a word by itself than of one in a text, behind a space."""
    step = json.loads(tokenizer.to_str()).get("pre_tokenizer") or {}
    steps = step.get("pretokenizers", [step])
    return any(each.get("type") == "ByteLevel" and not each.get("add_prefix_space") for each in steps)


def is_cut(row: Any) -> bool:
    """Whether what stands in a row is not the whole text."""
    return bool(row.overflowing)


def find_array(row: Any, name: str) -> Sequence[int]:
    """Returns what a row holds for an input of the model."""
    found: Sequence[int] = {
        "input_ids": row.ids,
        "attention_mask": row.attention_mask,
        "token_type_ids": row.type_ids,
    }[name]
    return found


def _to_input(text: LabelledText) -> str | tuple[str, ...]:
    return text.text if isinstance(text.text, tuple) or text.pair is None else (text.text, text.pair)


def _explain_missing(error: ModuleNotFoundError) -> ToolchainMissingError:
    return ToolchainMissingError(
        f"Python package {error.name} is not installed, which texts need", hint="pip install 'modelwright[llm]'"
    )
