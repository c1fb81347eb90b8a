"""Train teacher and student: writes ``teacher.safetensors``, ``student.safetensors`` and ``held_out.npz``.

Both learn from the training weeks; the validation weeks choose the epoch. The held-out weeks are simulated with a seed
of their own and looked at once, at the end.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from modelwright.examples.greenhouse.climate import STATE
from modelwright.examples.greenhouse.data import (
    HELD_OUT_PATH,
    TRAINING_WEEKS,
    simulate_held_out,
    simulate_validation,
    training_weeks,
)
from modelwright.examples.greenhouse.model import FOLDER, STATES, STUDENT, TEACHER, NextState

_SEED = 20261127
_THREADS = 2
_EPOCHS = 60
_BATCH_SIZE = 256
_PEAK_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-4

Weeks = tuple[Tensor, Tensor]
"""Features [steps, 16] and the states that follow [steps, 4], float32."""


def train(name: str, fitted: Weeks, validation: Weeks) -> NextState:
    """Train one network.

    Args:
        name: For the lines that are printed.
        fitted: Weeks that are trained on.
        validation: Weeks that choose the epoch.

    Returns:
        The network of the best epoch, in evaluation mode.
    """
    torch.manual_seed(_SEED)
    generator = torch.Generator().manual_seed(_SEED)
    features, following = fitted
    model = NextState({"teacher": TEACHER, "student": STUDENT}[name])
    model.mean, model.deviation = features.mean(0), features.std(0)
    model.change = (following - features[:, :STATES]).std(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    batches = len(features) // _BATCH_SIZE
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_LEARNING_RATE, total_steps=_EPOCHS * batches)
    best, least = copy.deepcopy(model.state_dict()), float("inf")
    for epoch in range(_EPOCHS):
        order = torch.randperm(len(features), generator=generator)
        for rows in order[: batches * _BATCH_SIZE].split(_BATCH_SIZE):
            loss = find_loss(model, features[rows], following[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        with torch.no_grad():
            found = find_loss(model, *validation).item()
        if found < least:
            best, least = copy.deepcopy(model.state_dict()), found
        if (epoch + 1) % 10 == 0:
            print(f"{name}, epoch {epoch + 1}: validation loss {found:.5f}", flush=True)
    model.load_state_dict(best)
    model.eval()
    return model


def find_loss(model: NextState, features: Tensor, following: Tensor) -> Tensor:
    """Mean squared error of the change, each state by how much it changes: 1 is what predicting none comes to."""
    error: Tensor = (model(features) - following) / model.change
    return error.square().mean()


def judge(model: nn.Module, weeks: Weeks) -> list[str]:
    """Return a line for each state: the error, and R squared of the state and of its change."""
    features, following = weeks
    with torch.no_grad():
        error = model(features) - following
    change = following - features[:, :STATES]
    return [
        f"{state:20} RMSE {error[:, place].square().mean().sqrt():.4f}, "
        f"R2 {1 - error[:, place].var() / following[:, place].var():.6f}, "
        f"R2 of the change {1 - error[:, place].var() / change[:, place].var():.4f}"
        for place, state in enumerate(STATE)
    ]


def main() -> None:
    """Simulate, train, write, and print what came out."""
    parser = argparse.ArgumentParser(description="Train the greenhouse's teacher and student again.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder to write to")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(_THREADS)
    torch.use_deterministic_algorithms(True)
    started = time.perf_counter()
    fitted, validation, held_out = (
        (torch.from_numpy(weeks[0]), torch.from_numpy(weeks[1]))
        for weeks in (training_weeks(), simulate_validation(), simulate_held_out())
    )
    print(f"{TRAINING_WEEKS} training weeks, {len(fitted[0])} steps, {time.perf_counter() - started:.0f} s")
    np.savez_compressed(
        folder / HELD_OUT_PATH.name, features=held_out[0].numpy(), target_next_state=held_out[1].numpy()
    )
    for name in ("teacher", "student"):
        model = train(name, fitted, validation)
        (folder / f"{name}.safetensors").write_bytes(save(model.state_dict()))
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{name}: {count} parameters, {time.perf_counter() - started:.0f} s", *judge(model, held_out), sep="\n  ")


if __name__ == "__main__":
    main()
