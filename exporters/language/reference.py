"""What transformers' own implementation of a folder answers to the cases; for the child that has torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelwright.core.errors import BadInputError
from modelwright.exporters.language.cases import Cases, make_cases, positions_of
from modelwright.exporters.language.streamed import load_streamed


def compute_reference(
    folder: str, shape: dict[str, int], path: str, low_memory: bool, progress: Callable[[str], None]
) -> None:
    """Runs the cases through the source and writes its logits, and the tokens that it chose.

    Args:
        folder: Of transformers.
        shape: The arguments of `make_cases`.
        path: Where the answers are written: an `.npz`.
        low_memory: Hold the weights of one module at a time.
        progress: Takes the phase that begins.

    Raises:
        BadInputError: transformers cannot load the folder.
    """
    progress("computing the answers of PyTorch" + (", module by module" if low_memory else ""))
    source = _Source(_load(Path(folder), low_memory=low_memory))
    answers = compute_answers(source, make_cases(**shape))
    np.savez(path, allow_pickle=False, **answers)


def compute_answers(source: _Source, cases: Cases) -> dict[str, NDArray[Any]]:
    """Returns the logits of each case, and `greedy`, the tokens."""
    answers: dict[str, NDArray[Any]] = {}
    cache = source.new_cache()
    mask = np.ones_like(cases.prompt)
    answers["prefill"] = source.run(cases.prompt, mask, positions_of(mask), cache)
    steps, logits = [int(answers["prefill"][0, -1].argmax())], []
    for _ in range(cases.greedy - 1):
        mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
        logits.append(source.run(np.array([[steps[-1]]]), mask, positions_of(mask)[:, -1:], cache)[0, -1])
        steps.append(int(logits[-1].argmax()))
    answers["greedy"] = np.array(steps)
    answers["steps"] = np.stack(logits) if logits else answers["prefill"][0, -1:]
    cache, mask = source.new_cache(), cases.batch_mask
    answers["batch"] = cases.without_padding(source.run(cases.batch, mask, positions_of(mask), cache))
    mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
    answers["batch step"] = source.run(cases.batch[:, :1], mask, positions_of(mask)[:, -1:], cache)
    cache = source.new_cache()
    for layer in range(cases.layers):
        source.fill(cache, layer, *cases.random_cache(layer))
    mask = np.ones((1, cases.cached + 1), np.int64)
    last = np.array([[cases.context_length - 1]])
    answers["long cache"] = source.run(cases.prompt[:, :1], mask, last, cache)
    return answers


class _Source:
    """A model of transformers that is asked with numpy arrays."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # transformers renames the argument: its earlier name warns, and its later one is not known to earlier versions.
        names = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def fill(self, cache: Any, layer: int, key: NDArray[np.float32], value: NDArray[np.float32]) -> None:
        import torch

        cache.update(torch.from_numpy(key), torch.from_numpy(value), layer)

    def run(
        self, tokens: NDArray[np.int64], mask: NDArray[np.int64], positions: NDArray[np.int64], cache: Any
    ) -> NDArray[np.float32]:
        """Returns the logits of each position and puts keys and values into the cache."""
        import torch

        with torch.inference_mode():
            found = self._model(
                input_ids=torch.from_numpy(tokens),
                attention_mask=torch.from_numpy(mask),
                position_ids=torch.from_numpy(positions),
                use_cache=True,
                **{self._cache_name: cache},
            )
        logits: NDArray[np.float32] = found.logits.float().numpy()
        return logits


def _load(folder: Path, *, low_memory: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    if low_memory:
        return load_streamed(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers raises whatever a wrong file leads to
        raise BadInputError(
            f"{folder} cannot be loaded by transformers, whose answers its export is held against",
            hint="load it with AutoModelForCausalLM.from_pretrained and mend what that says",
            detail=str(error),
        ) from error
    return model.eval()
