"""Artifacts in processes of their own that answer prompts in turns, or score texts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contest.line_process import LineProcess
from generation.entrants import Entrant
from generation.quality import Scores, read_scores

from modelwright.harness.language.runner import GenerationWindow, Opening

BENCHMARKS = Path(__file__).resolve().parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all are asked.

    Attributes:
        prompts: As tokens; another one each turn.
        openings: Of a chosen length, of which the first token is timed.
        new_tokens: Of each answer.
        threads: Of every runtime.
        windows: File with what is scored.
        windows_sha256: Of it.
    """

    prompts: list[list[int]]
    openings: list[list[int]]
    new_tokens: int
    threads: int
    windows: Path
    windows_sha256: str


class GenerationLoop(LineProcess):
    """One process with one artifact; see `interleave.Runner`.

    Args:
        entrant: The artifact.
        task: What it is asked.
        scratch: Folder for what is handed over.
    """

    def __init__(self, entrant: Entrant, task: Task, scratch: Path) -> None:
        spec = {
            "runtime": entrant.runtime, "file": str(entrant.path), "settings": dict(entrant.settings),
            "prompts": task.prompts, "openings": task.openings, "new_tokens": task.new_tokens,
            "threads": task.threads, "windows": str(task.windows),
        }  # fmt: skip
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(task.threads))
        # numpy's own threads spin beside the runtime's: the one process of all that has them would be slowed by them
        variables = {**OFFLINE, **limits, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS)}
        command = [str(entrant.python), "-P", "-m", "generation.plain_generation"]
        super().__init__(entrant.name, command, spec, scratch, variables)
        self._turn = 0

    def run_window(self, window_s: float) -> GenerationWindow:
        """Takes a turn, which lasts as long as an answer does."""
        del window_s
        told = json.loads(self.ask(f"run {self._turn}"))
        self._turn += 1
        opening = told["opening_ns"]
        return GenerationWindow(
            latencies_ms=[nanoseconds / 1e6 for nanoseconds in told["step_ns"]],
            inferences=len(told["tokens"]),
            elapsed_s=(told["first_ns"] + sum(told["step_ns"])) / 1e9,
            prompt_tokens=told["prompt_tokens"],
            first_ms=told["first_ns"] / 1e6,
            tokens=told["tokens"],
            opening=None if opening is None else Opening(prompt_tokens=told["opening_tokens"], first_ns=opening),
        )

    def score(self) -> Path:
        """Returns the file with what the texts cost it."""
        self.ask(f"score {self.answers}")
        return self.answers

    def read_peak_bytes(self) -> int:
        """Returns its memory at its peak."""
        peak: int = json.loads(self.ask("finish"))["peak_bytes"]
        return peak


def score_entrant(entrant: Entrant, task: Task, scratch: Path, cache: Path) -> Scores:
    """Returns what the texts cost an artifact; one that was scored by the same code on the same texts is not run again.

    Args:
        entrant: The artifact.
        task: With the texts.
        scratch: Folder for what is handed over.
        cache: Folder of earlier scores.

    Raises:
        LoopFailedError: It cannot be loaded, or gives no logits.
    """
    sources = [BENCHMARKS / "generation" / name for name in ("plain_generation.py", f"runtimes/{entrant.runtime}.py")]
    parts = [entrant.identity, json.dumps(dict(entrant.settings)), task.windows_sha256, str(task.threads)]
    parts += [hashlib.sha256(source.read_bytes()).hexdigest() for source in sources]
    path = cache / f"{hashlib.sha256(' '.join(parts).encode()).hexdigest()}.npz"
    if not path.exists():
        loop = GenerationLoop(entrant, task, scratch)
        try:
            found = loop.score()
        finally:
            loop.close()
        cache.mkdir(parents=True, exist_ok=True)
        shutil.move(found, path)
    return read_scores(path)


def take_openings_ms(windows: Mapping[int, GenerationWindow]) -> list[float]:
    """Returns the times to the first token of prompts of the chosen length."""
    return [window.opening.first_ns / 1e6 for window in windows.values() if window.opening is not None]
