"""Items of data sets such as torchvision's and Hugging Face's: pairs, dicts, pictures; without importing either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.core.records.pictures import Preprocess
from modelwright.core.samples.pictures.decode import UnreadableError, convert, turn_upright
from modelwright.core.samples.pictures.transform import make_transform
from modelwright.core.samples.sample_set import LABELS, SPLIT_SEED, TARGET

_LABEL = "label"
_PAIR = 2


class InputUnknownError(Exception):
    """An item does not say which input it is for, and the model is not known yet."""


def is_dataset(value: Any) -> bool:
    """Whether an object is a data set: one that has items by number, and is no list of them."""
    return (
        hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not isinstance(value, Mapping | Sequence | np.ndarray)
    )


def choose_items(dataset: Any, limit: int) -> Iterator[Any]:
    """Yields the items of a data set: all in their order, or of more than `limit` some that a fixed seed chooses.

    Data sets are often sorted by class: the first ones are all of one.
    """
    count = len(dataset)
    order = range(count) if count <= limit else np.random.default_rng(SPLIT_SEED).permutation(count)[:limit]
    return (dataset[int(place)] for place in order)


def name_classes(dataset: Any) -> tuple[str, ...] | None:
    """Returns the names of the classes, where a data set knows them, as torchvision's and Hugging Face's do."""
    features = getattr(dataset, "features", None)
    label = features.get(_LABEL) if isinstance(features, Mapping) else None
    names = getattr(dataset, "classes", None) or getattr(label, "names", None)
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.isprintable() for name in names):
        return None
    return tuple(name[:200] for name in names)


class ItemReader:
    """Makes dicts, keyed by the model's inputs, of items.

    Args:
        spec: The function, for messages.
        inputs: The model's inputs; None before they are known.
        preprocess: What is done to pictures; None where nothing is said.
        explained: Whether the user said something of it.
    """

    def __init__(
        self, spec: str, inputs: Sequence[str] | None, preprocess: Preprocess | None, *, explained: bool
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._preprocess = preprocess
        self._explained = explained
        self._transform = None if preprocess is None else make_transform(preprocess)
        self.read_pictures = False

    def read(self, index: int, item: Any) -> Any:
        """Returns an item as a dict where it is a pair or holds a picture, else as it is.

        Raises:
            InputUnknownError: The model has to be known first.
            BadInputError: It is a picture that nothing is said of, or the model has several inputs.
        """
        if _is_picture(item):
            return {self._name(index): self._take(index, item)}
        if isinstance(item, list | tuple) and len(item) == _PAIR and not isinstance(item[0], Mapping | str):
            value, label = item
            name = self._name(index)
            return {name: self._take(index, value) if _is_picture(value) else value, LABELS: label}
        if isinstance(item, Mapping) and (pictures := [key for key, value in item.items() if _is_picture(value)]):
            if len(pictures) > 1:
                raise BadInputError(
                    f"{self._spec}: sample {index} holds {len(pictures)} pictures, {', '.join(map(str, pictures))}",
                    hint="yield a dict of arrays, keyed by the model's inputs",
                )
            answers = {LABELS if key == _LABEL else key: item[key] for key in item if _is_answer(key)}
            return {self._name(index): self._take(index, item[pictures[0]]), **answers}
        return item

    def _name(self, index: int) -> str:
        if self._preprocess is not None:
            return self._preprocess.input
        if self._inputs is None:
            raise InputUnknownError
        if len(self._inputs) != 1:
            raise BadInputError(
                f"{self._spec}: sample {index} does not say which of the inputs {', '.join(self._inputs)} it is for",
                hint="yield a dict keyed by input name",
            )
        return self._inputs[0]

    def _take(self, index: int, picture: Any) -> Any:
        if self._transform is None or self._preprocess is None:
            if self._explained and self._inputs is None:
                raise InputUnknownError
            raise BadInputError(
                f"{self._spec}: sample {index} is a picture, and nothing says what the model was trained on",
                hint="add --preprocess imagenet, or what it was, such as --preprocess scale=1/255; or yield arrays",
            )
        self.read_pictures = True
        try:
            upright = turn_upright(picture)
            return self._transform(convert(upright, self._preprocess.channels, self._preprocess.alpha))
        except UnreadableError as error:
            raise BadInputError(f"{self._spec}: sample {index} cannot be used: {error}") from error


def _is_picture(value: Any) -> bool:
    """Whether a value is one of Pillow's, without importing it."""
    return hasattr(value, "getbands") and hasattr(value, "convert")


def _is_answer(key: Any) -> bool:
    return key in (LABELS, _LABEL) or (isinstance(key, str) and key.startswith(TARGET))
