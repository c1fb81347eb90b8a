"""The FP32 file that all precisions are made of: converted once a model, and taken where its answers are FP32's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import write_json
from modelwright.core.outputs.fidelity import compare_outputs
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import BuildRequest, Feeds
from modelwright.targets.quantization.goal import Figures, Level, describe_goal
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.rounded import find_rounded_model
from modelwright.targets.tflite import client
from modelwright.targets.tflite.answers import Outputs, answer, answer_in_batches
from modelwright.targets.tflite.sizes import Resizer, find_free_sizes

_JUDGED = 16
"""Samples that judge a conversion: what a converter does wrong shows in every inference."""
_ROUNDING = 0.1
"""Severity that rounding may come to; beyond it the converter may have done something wrong that another way avoids."""
_RESIZED = 4
"""Samples that judge a file at a size that is not theirs."""
_BATCH = 3
"""Neither 1 nor a size that the file was made at."""


def describe_conversion() -> dict[str, Any]:
    """Returns by what one of several ways to convert is taken."""
    return {"judged": _JUDGED, "rounding": _ROUNDING, "goal": describe_goal()}


def convert(request: BuildRequest) -> dict[str, Any]:
    """Converts ONNX to FP32 TFLite, once for all precisions; of two ways the one that follows FP32.

    Returns:
        The converter's result (`converter/job.py`), with the `folder` of its `file`.

    Raises:
        BuildFailedError: TFLite lacks an operator, or no file gives FP32's answers.
    """
    folder = request.shared / "tflite-fp32"
    result_file = folder / "result.json"
    if result_file.is_file():
        shared: dict[str, Any] = json.loads(result_file.read_text())
        return shared
    folder.mkdir(exist_ok=True)
    made = _Conversion(request, folder).make()
    write_json(result_file, made)
    return made


def convert_rounded(request: BuildRequest, converted: Mapping[str, Any]) -> Path | None:
    """Converts the copy of the model whose weights are rounded, in the way that the model itself was; once for all.

    Args:
        request: Whose calibration samples the weights are rounded for.
        converted: From `convert`.

    Returns:
        A file with the tensors of the float file; None where there is no such copy, or it converts otherwise.
    """
    path = Path(converted["folder"], "rounded.tflite")
    known = path.with_suffix(".json")
    if known.is_file():
        return path if json.loads(known.read_text())["is_same"] else None
    rounded = find_rounded_model(request)
    is_same = False
    if rounded is not None:
        like = str(Path(converted["folder"], converted["file"]))
        order = {**converted["order"], "onnx": str(rounded), "file": path.name, "like": like}
        try:
            is_same = client.run_step(order, request.progress).get("binding") == converted["binding"]
        except BuildFailedError as error:
            request.progress(f"the rounded weights are not used: {error.message}")
    write_json(known, {"is_same": is_same})
    return path if is_same else None


@dataclass(frozen=True, kw_only=True)
class _Way:
    """One way to convert.

    Attributes:
        resizes: Try for a file that takes any batch size.
        infinities: Keep minus infinity infinite, at the price of some speed.
    """

    resizes: bool
    infinities: bool = False


class _Conversion:
    """Tries ways to convert one model, the fastest file's first, until one follows FP32."""

    def __init__(self, request: BuildRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._shapes = _find_shapes(request)
        self._judge = Judge.of_request(request)
        self._number = 0

    def make(self) -> dict[str, Any]:
        resizes = self._request.signature.batch_is_dynamic
        first = self._run_converter(_Way(resizes=resizes))
        if self._judge is None:
            return first
        made, figures = first, self._compare(first, self._judge)
        for way in () if _is_right(figures) else self._find_others(first):
            other = self._run_converter(way)
            found = self._compare(other, self._judge)
            if found.rank > figures.rank:
                if first["binding"]["dynamic_batch"] and not other["binding"]["dynamic_batch"]:
                    fault = _describe(figures)
                    other["notes"].append(f"the file runs one sample at a time; resized, it is wrong: {fault}")
                made, figures = other, found
            if _is_right(figures):
                break
        if figures.level < Level.FAIR:
            raise BuildFailedError(
                f"onnx2tf converts the model, but the file does not follow FP32: {_describe(figures)}",
                hint="the ort-* and openvino-* targets take the ONNX model as it is",
            )
        return self._free_sizes(made)

    def _free_sizes(self, made: dict[str, Any]) -> dict[str, Any]:
        """Returns a file that takes other sizes than the samples', where the model does and its answers stay FP32's."""
        judge = self._judge
        free = find_free_sizes(self._request.signature, self._shapes)
        if judge is None or not free or not made["binding"]["dynamic_batch"] or made["has_infinities"]:
            return made
        self._request.progress("trying for a file that takes other sizes than the samples'")
        resizer = Resizer(self._request.signature, free)
        sized = self._run_converter(_Way(resizes=True), others=resizer.shapes(self._shapes, resizer.doubled))
        if "pinned" in sized or not _is_right(self._compare(sized, judge)):
            return made
        told = [resizer.describe(free)]
        with ReferenceModel(self._request.model_path) as model:
            for sizes in (resizer.doubled, resizer.odd):
                feeds = [resizer.resize(each, sizes) for each in judge.samples.feeds(_RESIZED)]
                try:
                    reference = [model.run(each) for each in feeds]
                except BadInputError:
                    continue  # the model itself does not take this size
                if not _is_right(self._compare_sized(sized, feeds, reference, judge)):
                    return made
                told.append(resizer.describe(sizes))
        sized["notes"].append(
            f"other sizes than the samples' can be fed; the float file was compared at {', '.join(told)}"
        )
        return sized

    def _compare_sized(
        self, made: Mapping[str, Any], feeds: Sequence[Feeds], reference: Sequence[Outputs], judge: Judge
    ) -> Figures:
        file, binding = Path(made["folder"], made["file"]), made["binding"]
        try:
            found = list(answer(file, binding, feeds, self._request.progress))
        except BuildFailedError as error:
            return Figures.broken(f"{error.message}: {error.detail}")
        return Figures.from_fidelity(compare_outputs(reference, found, judge.roles))

    def _find_others(self, first: Mapping[str, Any]) -> Iterator[_Way]:
        resizable = bool(first["binding"]["dynamic_batch"])
        if first["has_infinities"]:
            yield _Way(resizes=resizable, infinities=True)
        if resizable:
            yield _Way(resizes=False)
        if resizable and first["has_infinities"]:
            yield _Way(resizes=False, infinities=True)

    def _run_converter(self, way: _Way, others: Mapping[str, Sequence[int]] | None = None) -> dict[str, Any]:
        self._number += 1
        order = {
            "action": "convert",
            "onnx": str(self._request.model_path),
            "output": str(self._folder),
            "file": f"fp32.{self._number}.tflite",
            "shapes": {name: list(shape) for name, shape in self._shapes.items()},
            "splits_batch": self._request.signature.batch_is_dynamic,
            "others": others,
            **asdict(way),
        }
        return {**client.run_step(order, self._request.progress), "folder": str(self._folder), "order": order}

    def _compare(self, made: Mapping[str, Any], judge: Judge) -> Figures:
        """Compares a file with FP32, sample by sample; one that can be resized in batches too. The worse counts."""
        file, binding, progress = Path(made["folder"], made["file"]), made["binding"], self._request.progress

        def run(feeds: Iterable[Feeds]) -> Iterator[Outputs]:
            return answer(file, binding, feeds, progress)

        progress("checking the values of the FP32 file")
        count = min(len(judge.reference), _JUDGED)
        count -= count % _BATCH if count > _BATCH else 0  # all ways are judged on the same samples
        try:
            figures = judge.judge(run, count)
            if binding["dynamic_batch"] and count % _BATCH == 0:
                batched = judge.judge(lambda feeds: answer_in_batches(run, feeds, _BATCH), count)
                figures = min(figures, batched, key=lambda each: each.rank)
        except BuildFailedError as error:
            return Figures.broken(f"{error.message}: {error.detail}")
        return figures


def _find_shapes(request: BuildRequest) -> dict[str, tuple[int, ...]]:
    """Returns each input's shape at batch 1: that of the samples; without any, dynamic dimensions are not known."""
    samples = request.tuning or request.calibration
    if samples is not None and samples.count:
        return {name: value.shape for name, value in next(samples.feeds(1)).items()}
    shapes = {}
    for spec in request.signature.inputs:
        shape = [1 if axis == 0 and isinstance(size, str) else size for axis, size in enumerate(spec.shape or ())]
        if any(isinstance(size, str) for size in shape):
            raise BuildFailedError(
                f"TFLite needs fixed shapes, and {spec.describe()} has dynamic ones besides the batch",
                hint="give a few samples more: their shape is then taken",
            )
        shapes[spec.name] = tuple(int(size) for size in shape)
    return shapes


def fix_signature(signature: Signature, binding: Mapping[str, Any]) -> tuple[Signature, list[str]]:
    """Returns the signature of a converted file, and notes on the dimensions that vary in the model and not in it."""
    served = binding["dynamic_batch"] or binding["splits_batch"]
    counts = {spec.shape[0] for spec in signature.inputs if spec.shape}
    sizes = {
        name: int(size)
        for spec, entry in zip(signature.inputs, binding["inputs"], strict=True)
        for axis, (name, size) in enumerate(zip(spec.shape or (), entry["shape"], strict=True))
        if isinstance(name, str) and not (served and name in counts) and axis not in entry.get("varies", ())
    }
    if not sizes:
        return signature, []
    fixed = signature.with_fixed(sizes)
    ends = zip(fixed.outputs, binding["outputs"], strict=True)
    fixed = replace(fixed, outputs=tuple(_fix_output(spec, entry, served=served) for spec, entry in ends))
    told = {name: f"{name} fixed at {size}" for name, size in sizes.items()}
    batches = [told.pop(name) for name in list(told) if name in counts]
    notes = [f"{text}: the file takes one sample an inference" for text in batches]
    if told:
        cure = "for another size, build it with samples of that size"
        notes.append(f"{', '.join(told.values())}, as in the samples: {cure}")
    return fixed, notes


def _fix_output(spec: TensorSpec, entry: Mapping[str, Any], *, served: bool) -> TensorSpec:
    """Gives sizes to the dimensions that follow from the inputs', such as half of a height, but for the batch's."""
    sizes = entry["shape"]
    if spec.shape is None or sizes is None or len(sizes) != len(spec.shape):
        return spec
    scales = entry["scales_with_batch"] or [served and axis == 0 for axis in range(len(sizes))]
    parts = zip(spec.shape, sizes, scales, strict=True)
    return replace(
        spec, shape=tuple(size if isinstance(name, str) and not grows else name for name, size, grows in parts)
    )


def _is_right(figures: Figures) -> bool:
    return figures.severity is not None and figures.severity <= _ROUNDING


def _describe(figures: Figures) -> str:
    return figures.fault or figures.finding or figures.describe()
