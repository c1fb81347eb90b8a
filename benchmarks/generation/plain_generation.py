"""Generates with one artifact as anyone would: `python -m generation.plain_generation SPEC.json`, in its environment.

It answers lines on standard input: `run TURN` with the times and tokens of an answer, always the likeliest one, `score
FILE` after writing what each token of the texts costs there, `finish` with the memory at its peak. It imports nothing
of modelwright but where it is modelwright's artifact that generates.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from generation.greedy import Loaded

WARM_TOKENS = 2
ROWS = 32
"""Positions whose distributions are in double precision at a time."""


def open_loaded(spec: Mapping[str, Any]) -> Loaded:
    """Returns what the runtime's module in `runtimes` makes of an artifact."""
    module = importlib.import_module(f"generation.runtimes.{spec['runtime']}")
    loaded: Loaded = module.load(spec)
    return loaded


def run_turn(loaded: Loaded, spec: Mapping[str, Any], turn: int) -> dict[str, Any]:
    """Answers a prompt and reads an opening; a little of it first, since others ran in between and took the caches."""
    prompts, openings, new_tokens = spec["prompts"], spec["openings"], spec["new_tokens"]
    prompt = prompts[turn % len(prompts)]
    loaded.generate(prompt, WARM_TOKENS)
    gc.collect()
    gc.disable()
    found = loaded.generate(prompt, new_tokens)
    opening = loaded.generate(openings[turn % len(openings)], 1) if openings else None
    gc.enable()
    if len(found.tokens) != new_tokens:
        raise ValueError(f"wrote {len(found.tokens)} tokens of {new_tokens}")
    return {
        "prompt_tokens": len(prompt),
        "first_ns": found.first_ns,
        "step_ns": found.step_ns,
        "tokens": [int(token) for token in found.tokens],
        "opening_ns": None if opening is None else opening.first_ns,
        "opening_tokens": None if opening is None else len(openings[turn % len(openings)]),
    }


def score(loaded: Loaded, windows: list[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
    """Returns `costs`: of each token that counts, -log p in nats, and `tops`, the likeliest token in its place.

    Args:
        loaded: The artifact.
        windows: `tokens` that are read at once, and `first`: the first of them that counts.
    """
    costs, tops = [], []
    for window in windows:
        tokens, first = np.asarray(window["tokens"], np.int64), window["first"]
        logits = loaded.score(window["tokens"])[first - 1 : -1]
        for start in range(0, len(logits), ROWS):
            rows = np.asarray(logits[start : start + ROWS], np.float64)
            rows -= rows.max(axis=-1, keepdims=True)
            logs = rows - np.log(np.exp(rows).sum(axis=-1, keepdims=True))
            costs.append(-logs[np.arange(len(logs)), tokens[first + start : first + start + len(logs)]])
            tops.append(logs.argmax(axis=-1))
    return {"costs": np.concatenate(costs), "tops": np.concatenate(tops)}


def read_peak_bytes() -> int:
    """Returns the largest resident set of this process since it started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Loads the artifact, answers once, says so, and obeys."""
    replies = sys.stdout
    sys.stdout = sys.stderr  # what vendors print is no answer
    spec = json.loads(Path(sys.argv[1]).read_text())
    loaded = open_loaded(spec)
    loaded.generate(spec["prompts"][0], WARM_TOKENS)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        order, _, argument = line.strip().partition(" ")
        if order == "run":
            reply = json.dumps(run_turn(loaded, spec, int(argument)))
        elif order == "score":
            np.savez(argument, **score(loaded, json.loads(Path(spec["windows"]).read_text())))  # type: ignore[arg-type]
            reply = "scored"
        else:
            reply = json.dumps({"peak_bytes": read_peak_bytes()})
        print(reply, file=replies, flush=True)


if __name__ == "__main__":
    main()
