"""`distil:file.py:student`: another network learns from the answers of this one, and takes its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.compression.layers import flatten
from modelwright.compression.loading import load_student
from modelwright.compression.network import Network, make_network
from modelwright.compression.saving import require_savable
from modelwright.compression.step import Step
from modelwright.compression.teacher import Teacher, has_classes
from modelwright.core.errors import BadInputError
from modelwright.exporters.torch.source import import_torch

_CHANNELS_OF_MAPS = 1
_LEAST_SPREAD = 1e-6


class Distillation(Step):
    """Trains a student with alpha * task + (1 - alpha) * what sets it apart from the teacher.

    Features that are to match add their squared difference, in units of what the teacher's vary by (Romero et al. 2014,
    arXiv 1412.6550); where their channels are not as many, a linear map is trained beside the student, which is no part
    of it.
    """

    def prepare(self, network: Network) -> None:
        student = make_network(load_student(self.method.student, self.task.train.path))
        settings = self.task.settings
        self._teacher = Teacher(network, has_classes=has_classes(self.task.train.answers, settings), settings=settings)
        self._require_alike(student, network)
        require_savable(student)
        network.name, network.module = student.name, student.module
        network.examples = {name: network.examples[name] for name in student.examples}
        network.positional, network.is_program, network.masks = student.positional, False, {}
        network.output_names = student.output_names or network.output_names
        self._kept: dict[str, Any] = {}
        self._hooks = [
            _keep_output(self._kept, f"{who} {number}", _find_layer(each, name))
            for number, names in enumerate(map(_split_match, settings.match))
            for who, each, name in (("teacher", self._teacher.network, names[0]), ("student", network, names[1]))
        ]
        self._axes: list[int] = []
        self.extra = self._make_maps(network)
        self.notes.extend(student.notes)

    def loss(self, network: Network, batch: Mapping[str, Any]) -> Any:
        if self.task.settings.alpha == 1:  # the student alone, as others are held against
            return self.task.objective.loss(network(batch), batch)
        wanted, outputs = self._teacher.answer(batch), network(batch)
        apart: Any = 0.0
        for number in range(len(self.task.settings.match)):
            teacher, student = self._kept[f"teacher {number}"], self._kept[f"student {number}"]
            apart = apart + _compare_features(self._map(number, student), teacher)
        return self._teacher.blend(outputs, wanted, batch, self.task.objective, apart)

    def finish(self, network: Network) -> None:
        del network
        for hook in self._hooks:
            hook.remove()

    def describe(self) -> dict[str, str]:
        match = self.task.settings.match
        return self._teacher.describe() | ({"match": ", ".join(match)} if match else {})

    def _require_alike(self, student: Network, network: Network) -> None:
        """Refuses a student that is called in another way, or answers in other shapes."""
        if set(student.examples) != set(network.examples):
            raise BadInputError(
                f"the student {student.name} takes {', '.join(student.examples)}, and the teacher "
                f"{', '.join(network.examples)}",
                hint="give forward of both the same names of parameters",
            )
        torch = import_torch()
        student.set_training(training=False)
        with torch.no_grad():
            wanted = [list(tensor.shape) for tensor in self._teacher.answer(network.examples)]
            try:
                found = [list(tensor.shape) for tensor in flatten(student(network.examples))]
            except Exception as error:  # what a module raises is its own affair
                raise BadInputError(
                    f"the student {student.name} fails on the teacher's inputs: {type(error).__name__}: {error}",
                    hint="it has to take the same shapes: "
                    + ", ".join(f"{name} {list(value.shape)}" for name, value in network.examples.items()),
                ) from error
        if found != wanted:
            raise BadInputError(
                f"the student {student.name} answers {found} where the teacher answers {wanted}",
                hint="give the student the outputs of the teacher, in their order and shapes",
            )

    def _make_maps(self, network: Network) -> Any:
        """Returns linear maps from the student's features to the teacher's, one a pair; None without pairs."""
        torch = import_torch()
        if not self.task.settings.match:
            return None
        with torch.no_grad():
            self._teacher.answer(network.examples)
            network(network.examples)
        maps = torch.nn.ModuleList()
        for number, text in enumerate(self.task.settings.match):
            teacher, student = self._kept[f"teacher {number}"], self._kept[f"student {number}"]
            layer = _find_layer(self._teacher.network, _split_match(text)[0])
            axis = _find_channels(list(teacher.shape), list(student.shape), is_convolution=_has_convolution(layer))
            if axis is None:
                raise BadInputError(
                    f"--match {text}: features {list(student.shape)} cannot match {list(teacher.shape)}",
                    hint="choose layers whose features differ in their channels alone",
                )
            self._axes.append(axis)
            maps.append(torch.nn.Linear(student.shape[axis], teacher.shape[axis], bias=False))
        return maps

    def _map(self, number: int, features: Any) -> Any:
        axis = self._axes[number]
        return self.extra[number](features.movedim(axis, -1)).movedim(-1, axis)


def _find_channels(teacher: list[int], student: list[int], *, is_convolution: bool) -> int | None:
    """Returns the axis of the channels, in which alone features may differ; None where they differ in another, too.

    It is the second of what convolutions make and of maps, and the last of tokens and of rows; shapes decide where
    they leave but one of the two.
    """
    if len(teacher) != len(student) or len(teacher) < 2:
        return None
    last = len(teacher) - 1
    ordered = (_CHANNELS_OF_MAPS, last) if is_convolution or len(teacher) > 3 else (last, _CHANNELS_OF_MAPS)
    return next(
        (axis for axis in ordered if teacher[:axis] + teacher[axis + 1 :] == student[:axis] + student[axis + 1 :]), None
    )


def _has_convolution(layer: Any) -> bool:
    return any(isinstance(each, import_torch().nn.modules.conv._ConvNd) for each in layer.modules())  # noqa: SLF001


def _compare_features(student: Any, teacher: Any) -> Any:
    return ((student - teacher) ** 2).mean() / teacher.var().clamp(min=_LEAST_SPREAD)


def _split_match(text: str) -> tuple[str, str]:
    teacher, _, student = text.partition("=")
    return teacher, student


def _find_layer(network: Network, name: str) -> Any:
    try:
        return network.module.get_submodule(name)
    except AttributeError as error:
        known = [each for each, _ in network.module.named_modules() if each]
        raise BadInputError(
            f"--match: {network.name} has no layer {name}",
            hint=f"its layers: {', '.join(known[:20])}" if known else "a saved program has no layers: give its factory",
        ) from error


def _keep_output(kept: dict[str, Any], key: str, layer: Any) -> Any:
    def keep(_module: Any, _args: Any, output: Any) -> None:
        tensors = flatten(output)
        if tensors:
            kept[key] = tensors[0]

    return layer.register_forward_hook(keep)
