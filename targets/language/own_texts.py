"""Texts that a model writes itself: what it is likely to be used on, whatever the user's texts are about.

A model of few bits that is chosen on texts like those it was rounded for looks better than it is on any other. What the
float model itself writes is about everything that it was trained on (LLM-QAT, Liu et al., 2023, arXiv:2305.17888, takes
such texts for training; here they only choose).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from modelwright.core.files import hash_json
from modelwright.targets.language.contract import LanguageBuildRequest, Logits, Tokens
from modelwright.targets.language.energies import PAST, feed_tokens, open_part
from modelwright.targets.language.portable import PortableModel

ROWS, LENGTH = 8, 256
"""As many tokens as the user's tuning texts have where these are not few."""
_SEED = 20


def find_tuning_texts(request: LanguageBuildRequest, model: PortableModel) -> Tokens:
    """Returns the user's tuning texts and those that the float model writes: int64 [rows, length].

    Args:
        request: With the user's texts, if any; its shared folder keeps the others.
        model: The portable graph.
    """
    given = request.tuning
    length = min(LENGTH, request.record.context_length) if given is None else given.shape[1]
    key = hash_json([dict(request.record.files), ROWS, length, _SEED])[:16]
    path = request.shared / f"own-texts-{key}.npy"
    if not path.is_file():
        request.progress(f"the float model writes {ROWS} texts to choose on")
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, write_texts(model, request.record.vocab_size, length, request.threads))
        part.replace(path)
    own = np.load(path)
    return own if given is None else np.concatenate([given, own])


def write_texts(model: PortableModel, vocabulary: int, length: int, threads: int, rows: int = ROWS) -> Tokens:
    """Lets a model write, each token drawn by its probability after a first one drawn from all: int64 [rows, length].

    Args:
        model: The portable graph.
        vocabulary: Tokens that there are.
        length: Of a text.
        threads: To compute with.
        rows: Texts.
    """
    generator = np.random.default_rng(_SEED)
    kept = [value.name for value in model.proto.graph.input if value.name.startswith(PAST)]
    gives = ["logits", *(f"present.{name.removeprefix(PAST)}" for name in kept)]
    session = open_part(model.proto, model.folder, gives, threads)
    written = [generator.integers(0, vocabulary, rows)]
    past: Mapping[str, Any] | None = None
    while len(written) < length:
        logits, *present = session.run(gives, feed_tokens(session, written[-1][:, None], past))
        past = dict(zip(kept, present, strict=True))
        written.append(_draw(logits[:, -1], generator))
    return np.stack(written, axis=1)


def _draw(logits: Logits, generator: np.random.Generator) -> Tokens:
    """Draws a token for each row [rows, vocabulary]: the largest sum with a Gumbel number falls as probabilities do."""
    return np.asarray((logits + generator.gumbel(size=logits.shape)).argmax(axis=1), np.int64)
