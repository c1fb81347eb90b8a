"""The teacher, 108,100 parameters, and the student, 5,508: fully connected networks of one form.

Nothing here imports the rest of the package, so that the file also works as ``model.py:create_teacher``.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

FOLDER = Path(__file__).parent
FEATURES, STATES = 16, 4
TEACHER = (160, 320, 128, 96)
"""Neurons of the hidden layers."""
STUDENT = (64, 64)


class NextState(nn.Module):  # type: ignore[misc]  # mypy does not follow torch
    """Predicts a greenhouse's state in five minutes: what it is, and the change that the layers give."""

    output_names = ("next_state",)

    def __init__(self, hidden: Sequence[int]) -> None:
        """Build the network with random weights.

        Args:
            hidden: Neurons of each hidden layer.
        """
        super().__init__()
        layers: list[nn.Module] = []
        width = FEATURES
        for neurons in hidden:
            layers += [nn.Linear(width, neurons), nn.ReLU()]
            width = neurons
        self.layers = nn.Sequential(*layers, nn.Linear(width, STATES))
        # Of the training weeks; no parameters.
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.register_buffer("change", torch.ones(STATES))

    def forward(self, features: Tensor) -> Tensor:
        """Predict a batch of states.

        Args:
            features: State, controls and weather, float32 ``[batch, 16]``, in the units of ``climate.py``.

        Returns:
            The state five minutes later, float32 ``[batch, 4]``, in the same units.
        """
        change: Tensor = self.layers((features - self.mean) / self.deviation) * self.change
        return features[:, :STATES] + change


def create_teacher() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Load the trained teacher; see `load`."""
    return load("teacher")


def create_student() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Load the student that was trained without the teacher; see `load`."""
    return load("student")


def create_untrained_student() -> nn.Module:
    """Build the student with random weights, for distillation; only the features' spread is known to it."""
    student = NextState(STUDENT)
    trained = load_file(FOLDER / "student.safetensors")
    student.load_state_dict({name: trained[name] for name in ("mean", "deviation", "change")}, strict=False)
    return student


def load(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Load a trained network.

    Args:
        name: ``teacher`` or ``student``.

    Returns:
        The model in evaluation mode, and its example inputs: ``features``, float32 ``[2, 16]``.
    """
    model = NextState({"teacher": TEACHER, "student": STUDENT}[name])
    model.load_state_dict(load_file(FOLDER / f"{name}.safetensors"))
    model.eval()
    # Two rows, because torch.export fixes a batch of one as a constant.
    return model, (model.mean + torch.zeros(2, 1),)
