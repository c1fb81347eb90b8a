"""A folder of onnxruntime-genai's model builder, by its Generator."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime_genai as og
from generation.greedy import Answer, Logits, Prompt, to_answer


class _Loaded:
    def __init__(self, folder: str) -> None:
        self._model = og.Model(folder)

    def generate(self, prompt: Prompt, count: int) -> Answer:
        tokens, times = [], [time.perf_counter_ns()]
        generator = self._begin(prompt, count)
        for _ in range(count):
            generator.generate_next_token()
            tokens.append(generator.get_next_tokens()[0])
            times.append(time.perf_counter_ns())
        return to_answer(tokens, times)

    def score(self, tokens: Prompt) -> Logits:
        generator = self._begin(tokens, 1)
        logits: Logits = np.asarray(generator.get_output("logits"), np.float32)[0]
        return logits

    def _begin(self, tokens: Prompt, count: int) -> Any:
        """Returns a generator that has read tokens; at its least length no token ends the text."""
        params = og.GeneratorParams(self._model)
        length = len(tokens) + count
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(self._model, params)
        generator.append_tokens(np.asarray(tokens, np.int32))
        return generator


def load(spec: Mapping[str, Any]) -> _Loaded:
    """Loads the folder, whose `genai_config.json` says how many threads."""
    return _Loaded(spec["file"])
