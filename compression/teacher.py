"""A trained network whose answers another one learns from. For child processes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.compression.layers import flatten
from modelwright.compression.network import Network
from modelwright.compression.objective import Objective
from modelwright.compression.settings import Settings
from modelwright.core.samples.sample_set import LABELS
from modelwright.exporters.torch.source import import_torch


class Teacher:
    """Gives answers, and says what sets those of another network apart from them.

    For classes that is the Kullback-Leibler divergence of softened answers, times the square of the temperature (Hinton
    et al. 2015, arXiv 1503.02531); else, and of outputs with one value a sample beside the classes, the mean squared
    difference.

    Args:
        network: That teaches; it is not trained any more.
        has_classes: Whether its outputs are logits, whose classes lie on the second axis where there are several.
        settings: Of them `alpha` and `temperature`.
    """

    def __init__(self, network: Network, *, has_classes: bool, settings: Settings) -> None:
        self.network = Network(
            name=network.name,
            module=network.module.requires_grad_(requires_grad=False),
            examples=network.examples,
            positional=network.positional,
            is_program=network.is_program,
        )
        self.network.set_training(training=False)
        self.has_classes = has_classes
        self._settings = settings

    def answer(self, batch: Mapping[str, Any]) -> list[Any]:
        """Returns its outputs for a batch."""
        with import_torch().no_grad():
            return flatten(self.network(batch))

    def blend(
        self, outputs: Any, wanted: list[Any], batch: Mapping[str, Any], objective: Objective, apart: Any = 0.0
    ) -> Any:
        """Returns alpha * the task's own loss + (1 - alpha) * what sets a network apart.

        Args:
            outputs: Of that network, for a batch.
            wanted: What `answer` gave for it.
            batch: The batch.
            objective: With the task's own loss.
            apart: What sets it apart beside the outputs.
        """
        apart = apart + self._set_apart(flatten(outputs), wanted)
        return self._settings.alpha * objective.loss(outputs, batch) + (1 - self._settings.alpha) * apart

    def describe(self) -> dict[str, str]:
        """Returns its hyper-parameters, for the record."""
        told = {
            "alpha": f"{self._settings.alpha:g}",
            "teacher": "Kullback-Leibler" if self.has_classes else "squares",
        }
        return told | ({"temperature": f"{self._settings.temperature:g}"} if self.has_classes else {})

    def _set_apart(self, outputs: list[Any], wanted: list[Any]) -> Any:
        functional, heat = import_torch().nn.functional, self._settings.temperature
        total = 0.0
        for output, target in zip(outputs, wanted, strict=True):
            if not target.is_floating_point():
                continue
            if not self.has_classes or output.dim() < 2 or output.shape[1] < 2:
                total = total + functional.mse_loss(output, target)
                continue
            soft = functional.log_softmax(output / heat, 1), functional.log_softmax(target / heat, 1)
            answers = output.numel() // output.shape[1]
            total = total + functional.kl_div(*soft, reduction="sum", log_target=True) / answers * heat**2
        return total


def has_classes(answers: Mapping[str, Any], settings: Settings) -> bool:
    """Whether what is learnt are classes: answers by name, as data have them."""
    return LABELS in answers and settings.loss != "mse"
