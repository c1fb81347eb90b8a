"""Makes of a model and texts what the harness takes: a source, and inputs, tokenized once and before anything runs.

`prepare_in_child` runs in a process of its own.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json, write_text
from modelwright.examples.text_energy.texts import Labelled, number_classes, read_part

SOURCE, CALIBRATION, EVALUATION, TIMED = "source.py", "calibration.npz", "evaluation.npz", "timed.npz"
TOKENIZER = "tokenizer.json"
SEED = 11
LEAST_FITTING = 32
LENGTH_SHARE, LENGTH_STEP, LONGEST = 0.99, 8, 512
"""Texts are padded to a multiple of 8 tokens that holds 99 % of those that train, 512 at most; longer ones are cut."""
Ids = npt.NDArray[np.int64]

_SOURCE = '''"""The classifier that is studied; written by modelwright.examples.text_energy."""

from pathlib import Path

from modelwright.examples.text_energy.classifier import load_source


def create():
    """Returns the model and two example inputs."""
    return load_source(Path({model!r}), Path(__file__).parent, {length})
'''


def prepare_in_child(model: str, data: str, out: str, length: int | None, calibrate: int, fit: int) -> dict[str, Any]:
    """Writes the source and its inputs into a folder.

    Args:
        model: A folder of transformers.
        data: A folder of labelled texts.
        out: To write into.
        length: Tokens of a text; None for what holds nearly all.
        calibrate: Texts of the training part, at most, that calibrate and on which recipes choose.
        fit: Others of it, at most, that a head is fitted on, where the model has none.

    Returns:
        `length`, `classes`, `cut` (texts of the test that are longer), `fitted` (texts; 0 where the model has a head).

    Raises:
        BadInputError: The model or the data cannot be used.
    """
    folder, place = Path(model), Path(out)
    config = read_json(folder / "config.json", "a model's configuration")
    train, test = read_part(Path(data), "train"), read_part(Path(data), "test")
    trained = is_classifier(config)
    classes = _read_classes(config, train, test, folder) if trained else number_classes(train, test)
    order = list(range(len(train.texts)))
    random.Random(SEED).shuffle(order)
    calibrating = order[: min(calibrate, len(order) // 2)]
    fitting = [] if trained else order[len(calibrating) :][:fit]
    if not trained and len(fitting) < LEAST_FITTING:
        raise BadInputError(
            f"{train.path} has {len(order)} texts, of which {len(fitting)} are left to fit a head on",
            hint=f"give {2 * LEAST_FITTING} or more, or a model that classifies already",
        )
    tokenizer = _open_tokenizer(folder)
    counts = [[len(row) for row in _tokenize(tokenizer, part.texts)] for part in (train, test)]
    positions = int(config.get("max_position_embeddings") or config.get("n_positions") or LONGEST)
    if length is not None and length > positions:
        raise BadInputError(f"{folder} reads {positions} tokens, not {length}", hint=f"--length {positions}, or less")
    length = length or min(positions, _choose_length(counts[0]))
    tokenizer.enable_truncation(length)
    padding = int(config.get("pad_token_id") or 0)
    packed = [_pack(_tokenize(tokenizer, part.texts), length, padding) for part in (train, test)]
    labels = [np.array([classes[label] for label in part.labels], np.int64) for part in (train, test)]
    if fitting:
        from modelwright.examples.text_energy.classifier import fit_head

        # Texts of a length stand together: each group is cut to its longest.
        fitting.sort(key=lambda row: int(packed[0][1][row].sum()))
        fit_head(folder, packed[0][0][fitting], packed[0][1][fitting], labels[0][fitting], len(classes), place)
    _write(place / CALIBRATION, packed[0], calibrating, labels[0])
    everything = list(range(len(test.texts)))
    random.Random(SEED).shuffle(everything)
    _write(place / EVALUATION, packed[1], everything, labels[1])
    _write(place / TIMED, packed[1], everything)
    write_text(place / SOURCE, _SOURCE.format(model=str(folder.resolve()), length=length))
    return {
        "length": length,
        "classes": len(classes),
        "cut": sum(count > length for count in counts[1]),
        "fitted": len(fitting),
    }


def is_classifier(config: Any) -> bool:
    """Says whether a folder's model classifies already.

    Args:
        config: Of its `config.json`.
    """
    return any(str(name).endswith("ForSequenceClassification") for name in config.get("architectures") or ())


def _read_classes(config: Any, train: Labelled, test: Labelled, folder: Path) -> dict[str, int]:
    """Returns label -> class as the model has them: by the names of its config, or by number."""
    known = {str(name): int(number) for name, number in (config.get("label2id") or {}).items()}
    count = len(known) or 2  # transformers writes no names for two classes
    classes = known | {str(number): number for number in range(count)}
    unknown = sorted((set(train.labels) | set(test.labels)) - set(classes))
    if unknown:
        raise BadInputError(
            f"{test.path.parent} has the label {unknown[0]}, which {folder} does not know",
            hint=f"its classes are {', '.join(known) or f'0 to {count - 1}'}",
        )
    return classes


def _open_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise BadInputError(f"{folder} has no {TOKENIZER}", hint="save it beside the model: tokenizer.save_pretrained")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises plain ones
        raise BadInputError(
            f"{path} cannot be read: {error}", hint="save it again: tokenizer.save_pretrained"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return [encoded.ids or [0] for encoded in tokenizer.encode_batch(list(texts))]


def _choose_length(counts: Sequence[int]) -> int:
    needed = sorted(counts)[int(LENGTH_SHARE * (len(counts) - 1))]
    return min(LONGEST, -(-needed // LENGTH_STEP) * LENGTH_STEP)


def _pack(rows: Sequence[Sequence[int]], length: int, padding: int) -> tuple[Ids, Ids]:
    """Returns ids and mask, int64 [texts, length], padded on the right."""
    ids, mask = np.full((len(rows), length), padding, np.int64), np.zeros((len(rows), length), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return ids, mask


def _write(path: Path, packed: tuple[Ids, Ids], rows: Sequence[int], labels: Ids | None = None) -> None:
    arrays = {"input_ids": packed[0][list(rows)], "attention_mask": packed[1][list(rows)]}
    if labels is not None:
        arrays["labels"] = labels[list(rows)]
    np.savez(path, **arrays)  # type: ignore[arg-type]
