"""How good predictions are: by the change of the state in five minutes, each state by how much it changes.

``quality.py:scaled_error`` is what ``--loss`` takes, ``quality.py:explained_change`` what ``--metric`` takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
OUTPUT = "next_state"
_WEIGHTS = Path(__file__).with_name("teacher.safetensors")


@cache
def typical_change() -> Floats:
    """Returns the standard deviation of each state's change over the training weeks [4]."""
    from safetensors.numpy import load_file

    change: Floats = load_file(_WEIGHTS)["change"]
    return change


def scaled_error(outputs: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the mean squared error, each state by how much it changes: 1 is what predicting no change comes to."""
    import torch

    error = (outputs - batch[f"target_{OUTPUT}"]) / torch.from_numpy(typical_change())
    return error.square().mean()


def explained_change(outputs: Mapping[str, Sequence[Array]], targets: Mapping[str, Array]) -> float:
    """Returns the share of the change that is explained, the mean over the four states; 0 is the old state's worth."""
    error = np.concatenate(outputs[OUTPUT]) - targets[f"target_{OUTPUT}"]
    return float(1 - np.square(error / typical_change()).mean())
