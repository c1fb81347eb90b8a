"""A folder of optimum-intel's export, by openvino-genai's LLMPipeline; texts are scored by OpenVINO from the same file.

LLMPipeline gives no logits. Its cache of prompts that were read before is off: the others have none, and every prompt
comes again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from generation.greedy import Answer, Logits, Prompt, to_answer

cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None  # it would report usage to a server
import openvino  # noqa: E402
import openvino_genai  # noqa: E402


class _Clock(openvino_genai.StreamerBase):  # type: ignore[misc]
    """Notes each token and when it came."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self.times = [time.perf_counter_ns()]

    def write(self, token: Any) -> Any:
        now = time.perf_counter_ns()
        for one in token if isinstance(token, list) else [token]:
            self.tokens.append(int(one))
            self.times.append(now)
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


class _Loaded:
    def __init__(self, folder: str, threads: int) -> None:
        self._folder, self._threads = folder, threads
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False
        scheduler.max_num_batched_tokens = 2**16
        self._pipeline = openvino_genai.LLMPipeline(
            folder, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=threads, ENABLE_CPU_PINNING=False
        )
        self._scoring: Any = None

    def generate(self, prompt: Prompt, count: int) -> Answer:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = count, True, False
        tokens = openvino.Tensor(np.asarray([prompt], np.int64))
        inputs = openvino_genai.TokenizedInputs(tokens, openvino.Tensor(np.ones((1, len(prompt)), np.int64)))
        clock = _Clock()
        self._pipeline.generate(inputs, config, clock)
        return to_answer(clock.tokens, clock.times)

    def score(self, tokens: Prompt) -> Logits:
        if self._scoring is None:
            properties = {"INFERENCE_NUM_THREADS": self._threads, "ENABLE_CPU_PINNING": False}
            compiled = openvino.Core().compile_model(Path(self._folder) / "openvino_model.xml", "CPU", properties)
            self._scoring = compiled.create_infer_request()
        count = len(tokens)
        inputs = {
            "input_ids": np.asarray([tokens], np.int64),
            "attention_mask": np.ones((1, count), np.int64),
            "position_ids": np.arange(count, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        self._scoring.reset_state()
        names = {name for port in self._scoring.model_inputs for name in port.names}
        found = self._scoring.infer({name: value for name, value in inputs.items() if name in names})
        logits: Logits = np.asarray(found["logits"], np.float32)[0]
        return logits


def load(spec: Mapping[str, Any]) -> _Loaded:
    """Loads the folder."""
    return _Loaded(spec["file"], spec["threads"])
