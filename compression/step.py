"""What a method does to a network: before, while and after it is trained. The table of methods is `steps.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modelwright.compression.augmentation import Batch
from modelwright.compression.data import Data, Indices
from modelwright.compression.methods import Method
from modelwright.compression.network import Network
from modelwright.compression.objective import Objective
from modelwright.compression.settings import Settings
from modelwright.compression.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a network is trained for.

    Attributes:
        train: The training data.
        chosen: Numbers of the samples that train.
        held: Numbers of those that choose among epochs.
        objective: Loss and metric.
        settings: Hyper-parameters.
        augment: Changes a batch that trains; None leaves it alone.
        teacher: The source as it was, where what comes of it learns from its answers too; else None.
    """

    train: Data
    chosen: Indices
    held: Indices
    objective: Objective
    settings: Settings
    augment: Callable[[Batch], Batch] | None = None
    teacher: Teacher | None = None


class Step:
    """One method at work; a class of its own says what differs from plain training.

    Args:
        method: As the user asked for it.
        task: What is trained for.
    """

    lr = 1e-3
    """Learning rate where the user gives none."""

    def __init__(self, method: Method, task: Task) -> None:
        self.method = method
        self.task = task
        self.notes: list[str] = []
        self.extra: Any = None
        """A module that is trained beside the network and is no part of the result; None without one."""

    def prepare(self, network: Network) -> None:
        """Changes the network before it is trained; the same network always in the same way."""

    def begin_epoch(self, network: Network, epoch: int) -> None:
        """Changes weights before an epoch, counted from 1."""

    def loss(self, network: Network, batch: Mapping[str, Any]) -> Any:
        """Returns the loss that is trained with."""
        outputs, teacher = network(batch), self.task.teacher
        if teacher is None:
            return self.task.objective.loss(outputs, batch)
        return teacher.blend(outputs, teacher.answer(batch), batch, self.task.objective)

    def may_ship(self, epoch: int) -> bool:
        """Whether the network after an epoch is what was asked for; 0 is before the first."""
        del epoch
        return True

    def finish(self, network: Network) -> None:
        """Changes the network after it was trained, before it is counted and the next method begins."""

    def convert(self, network: Network) -> None:
        """Gives the network the form in which it is saved; nothing follows."""

    def describe(self) -> dict[str, str]:
        """Returns hyper-parameters of its own, for the record."""
        return {}
