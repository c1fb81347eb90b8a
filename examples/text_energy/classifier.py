"""A text model of transformers as a classifier: its body, a pooling and a head, or the classifier that it is.

For child processes: torch and transformers are loaded here.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from modelwright.core.errors import BadInputError

HEAD = "head.safetensors"
STEPS, PENALTY = 100, 1e-3
"""Of L-BFGS, and what the mean square of the head's weights costs beside the mean cross-entropy."""
ROWS = 32
"""Texts at a time while the head is fitted."""
Ids = npt.NDArray[np.int64]


class Classifier(nn.Module):  # type: ignore[misc]
    """A body without a head of its own, what its tokens say in one vector, and a linear head.

    Args:
        body: Of transformers; gives `last_hidden_state`.
        classes: That the head tells apart.
        is_causal: Whether each token sees those before it only, as in GPT-2: then the last one speaks for the text, and
            else the mean of all.
    """

    def __init__(self, body: Any, classes: int, *, is_causal: bool) -> None:
        super().__init__()
        self.body, self.is_causal = body, is_causal
        self.head = nn.Linear(body.config.hidden_size, classes)

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask, int64 [batch, tokens], padded on the right -> features [batch, width]."""
        if self.is_causal:  # what stands behind the last token is not seen by it, so that the body needs no mask
            features = self.body(input_ids=input_ids).last_hidden_state
            counts = attention_mask.cumsum(1) * attention_mask
            weights = (counts == counts.amax(1, keepdim=True)).to(features.dtype)
        else:
            features = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask.to(features.dtype)
        pooled: Tensor = (features * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
        return pooled

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """-> logits [batch, classes]."""
        logits: Tensor = self.head(self.pool(input_ids, attention_mask))
        return logits


class TrainedClassifier(nn.Module):  # type: ignore[misc]
    """A model that was trained to classify, with the head that its folder holds."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """-> logits [batch, classes]."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def load_source(model: Path, out: Path, length: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """Returns what is exported, a classifier with two example inputs.

    Args:
        model: A folder of transformers.
        out: The study's folder, which holds the head where one was fitted.
        length: Tokens of a text.
    """
    example = {name: torch.ones(2, length, dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    head = out / HEAD
    if not head.is_file():
        return TrainedClassifier(_read(model, "AutoModelForSequenceClassification")).eval(), example
    weights = load_file(head)
    body = load_body(model)
    classifier = Classifier(body, len(weights["bias"]), is_causal=looks_back_only(body))
    classifier.head.load_state_dict(weights)
    return classifier.eval(), example


def load_body(model: Path) -> Any:
    """Returns a model without its head, FP32, in evaluation mode.

    Args:
        model: A folder of transformers.
    """
    return _read(model, "AutoModel")


def looks_back_only(body: Any) -> bool:
    """Says whether a token's features are the same whatever comes after it, which is found by trying.

    Args:
        body: As `load_body` returns it.
    """
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, body.config.vocab_size, (2, 8), generator=generator)
    tokens[1, :4] = tokens[0, :4]
    with torch.no_grad():
        first, second = body(input_ids=tokens).last_hidden_state[:, :4]
    return bool(torch.allclose(first, second, rtol=1e-3, atol=1e-4))


def fit_head(model: Path, input_ids: Ids, attention_mask: Ids, labels: Ids, classes: int, out: Path) -> None:
    """Fits a linear head on a body's features, by logistic regression, and writes it.

    Args:
        model: A folder of transformers.
        input_ids: [texts, tokens], padded on the right.
        attention_mask: Likewise.
        labels: [texts].
        classes: How many there are.
        out: The study's folder.
    """
    torch.manual_seed(0)
    body = load_body(model)
    classifier = Classifier(body, classes, is_causal=looks_back_only(body)).eval()
    features = torch.cat([*_pool(classifier, input_ids, attention_mask)])
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-6)
    known = (features - mean) / deviation
    expected = torch.from_numpy(labels)
    weight = torch.zeros(classes, known.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def lose() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = functional.cross_entropy(known @ weight.T + bias, expected) + PENALTY * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(lose)
    with torch.no_grad():  # the features' mean and deviation go into the head
        scaled = weight / deviation
        save_file({"weight": scaled.contiguous(), "bias": bias - scaled @ mean}, out / HEAD)


def _pool(classifier: Classifier, input_ids: Ids, attention_mask: Ids) -> Iterator[Tensor]:
    """Yields features, each group of texts cut to its longest one."""
    for first in range(0, len(input_ids), ROWS):
        mask = attention_mask[first : first + ROWS]
        longest = int(mask.sum(1).max())
        ids = input_ids[first : first + ROWS, :longest]
        with torch.inference_mode():
            yield classifier.pool(torch.from_numpy(ids.copy()), torch.from_numpy(mask[:, :longest].copy()))


def _read(model: Path, kind: str) -> Any:
    """Reads a model's weights from safetensors; nothing is fetched, and no code of the folder is run."""
    with _quietly():
        import transformers

        try:
            loaded, told = getattr(transformers, kind).from_pretrained(
                model, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BadInputError(
                f"{model} cannot be read as a model of transformers",
                hint="give a folder with config.json and *.safetensors, as save_pretrained writes it",
                detail=str(error),
            ) from error
    require_complete(model, [name for name in told["missing_keys"] if not name.startswith("pooler.")])
    loaded.config.use_cache = False
    return loaded.eval()


def require_complete(model: Path, missing: Sequence[str]) -> None:
    """Refuses weights that a folder lacks: transformers would draw them at random.

    Args:
        model: The folder.
        missing: Names; a pooler, which nothing here reads, is none of them.
    """
    if missing:
        raise BadInputError(
            f"{model} lacks weights of its architecture: {', '.join(sorted(missing)[:3])}",
            hint="give the folder of a trained model, with all of its weights",
        )


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keeps what transformers warns of to itself."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers.utils.logging import disable_progress_bar

            disable_progress_bar()
            yield
    finally:
        logging.disable(logging.NOTSET)
