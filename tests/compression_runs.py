"""What tests of compression share: a network that learns in moments, its data, and a run in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.compression import Compressed, Settings, compress

NET = """
import torch
from torch import nn

class Net(nn.Module):
    output_names = ("scores",)

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(6, 16)
        self.middle = nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.relu(self.middle(torch.relu(self.hidden(x)))))

def create():
    torch.manual_seed(3)
    return Net(), torch.zeros(2, 6)

def without_examples():
    return create()[0]

def regression():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 2)), torch.zeros(2, 6)

def loss(outputs, batch):
    return nn.functional.cross_entropy(outputs, batch["labels"])

def batches():
    import numpy
    with numpy.load(__file__.replace("net.py", "train.npz")) as arrays:
        x, labels = arrays["x"], arrays["labels"]
    for start in range(0, len(x), 32):
        yield {"x": x[start : start + 32], "labels": torch.from_numpy(labels[start : start + 32])}
"""


def make_samples(count: int, seed: int) -> dict[str, Any]:
    """Returns samples of three classes, by which of three sums is the largest."""
    x = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    return {"x": x, "labels": (x[:, :3] + x[:, 3:]).argmax(1)}


def call_here(
    _function: str, params: dict[str, Any], *, progress: Callable[[str], None] | None = None, **_: Any
) -> Any:
    """Runs in this process what a child would, on one thread: with two, small networks wait for the busy machine."""
    import torch

    from modelwright.compression.worker import compress_in_child

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return compress_in_child(**params, progress=progress or (lambda _text: None))
    finally:
        torch.set_num_threads(threads)


def run(place: Path, *methods: str, function: str = "create", out: str = "out", **options: Any) -> Compressed:
    names = {"overwrite", "trust", "progress"} & options.keys()
    passed = {name: options.pop(name) for name in names}
    return compress(
        f"{place / 'net.py'}:{function}" if ":" not in function and "/" not in function else function,
        methods or ("prune:magnitude:0.5",),
        train=options.pop("train", str(place / "train.npz")),
        evaluation=options.pop("evaluation", str(place / "test.npz")),
        out=place / out,
        settings=Settings(**{"epochs": 2, "lr": 1e-2, "batch": 32, **options}),
        **passed,
    )


class Stopper:
    """Interrupts, as Ctrl-C does, when a line is told."""

    def __init__(self, words: str) -> None:
        self.words = words
        self.told: list[str] = []

    def __call__(self, text: str) -> None:
        self.told.append(text)
        if self.words in text:
            raise KeyboardInterrupt
