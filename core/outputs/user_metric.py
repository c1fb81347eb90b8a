"""A metric of the user's: a Python function over all answers to all samples, run in child processes.

    def f1(outputs, targets):
        chosen = np.concatenate(outputs["logits"]).argmax(axis=1)
        return f1_score(targets["labels"], chosen)

`outputs` maps each output's name to a list with one array a sample, as the model returned it, batch dimension included;
`targets` maps `labels` and every `target_...` array of the samples to their rows, one a sample, and `index` to the
sample's place in the file or among what the sample function yields, for a metric that has its own data. Two attributes
of the function say how its number reads: `higher_is_better` (True) and `points_per_unit` (100: it is a share).

Every call gets arrays of its own. Before it judges anything, a metric is tried on FP32: it must give the same number
twice, another one when all answers are zero, and no better one when samples get each other's answers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file
from modelwright.core.outputs.limit import Metric
from modelwright.core.outputs.output_files import read_reference
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import Number, Record, decode, encode
from modelwright.core.samples.python_source import load_function, require_function, shorten_traceback
from modelwright.core.samples.sample_set import SampleSet

Array = npt.NDArray[Any]

TIMEOUT_S = 600.0
"""Of all calls on one model's answers."""
INDEX = "index"
_TARGETS = "targets.npz"
_LARGEST_SHARE = 1.0
_SAME = 1e-9
"""Of its size: what two sums of the same numbers may differ by."""
_PURPOSE = "computes a number from (outputs, targets)"
_HINT = "write it as def metric(outputs, targets): ... and return one number"


class Standing(Record):
    """What a metric says of FP32.

    Attributes:
        value: On the samples.
        shuffled: Where each sample gets another one's answers.
        empty: Where all answers are zero; None where the metric fails on them.
        again: The same as `value`, asked once more.
    """

    value: Number
    shuffled: Number
    empty: Number | None
    again: Number


def find_metric(spec: str) -> Metric:
    """Returns the metric that a text `file.py:function` names; the file is run once, in a child process.

    Raises:
        BadInputError: No such file or function, it takes other arguments, or its attributes make no sense.
    """
    path, function = require_function(spec, _PURPOSE)
    found = run_in_child(
        "modelwright.core.outputs.user_metric:describe_in_child",
        {"path": str(path), "function": function},
        purpose=f"reading the metric {spec}",
        crash_error=BadInputError,
        timeout_s=TIMEOUT_S,
    )
    return decode(Metric, found, where=f"the metric {spec}")


def stage_targets(samples: SampleSet, directory: Path) -> None:
    """Writes what the answers to these samples are held against beside the answers, for `compute` and `try_on_fp32`."""
    np.savez(directory / _TARGETS, **{**samples.targets(), INDEX: samples.rows})  # type: ignore[arg-type]


def try_on_fp32(metric: Metric, directory: Path, targets: Path) -> tuple[float, str | None]:
    """Returns what a metric says of FP32, and a sentence on what it cannot show.

    Args:
        metric: To try.
        directory: FP32's outputs, as `write_outputs` wrote them.
        targets: The folder that `stage_targets` wrote to.

    Raises:
        BadInputError: It fails, gives no number, gives two numbers for the same answers, does not depend on them, or
            finds the answers to other samples better than those to the right ones.
    """
    found = decode(Standing, _run(metric, "try_in_child", directory, targets))
    _require_sense(metric, found)
    if _is_same(found.shuffled, found.value):
        return found.value, (
            f"the metric {metric.name} says {found.value:.4g} of FP32, and the same where samples get each other's "
            "answers: it does not see whether an answer belongs to its sample"
        )
    return found.value, None


def compute(metric: Metric, directory: Path, targets: Path, parts: int = 0) -> list[float]:
    """Returns what a metric says of a model's answers: of all of them, then of `parts` parts of about the same size.

    Raises:
        BadInputError: It fails or gives no number.
    """
    return [float(value) for value in _run(metric, "compute_in_child", directory, targets, parts=parts)]


def _run(metric: Metric, function: str, directory: Path, targets: Path, **more: Any) -> Any:
    return run_in_child(
        f"modelwright.core.outputs.user_metric:{function}",
        {"metric": encode(metric), "directory": str(directory), "targets": str(targets / _TARGETS), **more},
        purpose=f"the metric {metric.name}",
        crash_error=BadInputError,
        timeout_s=TIMEOUT_S,
    )


def _require_sense(metric: Metric, found: Standing) -> None:
    """Refuses a metric by which nothing can be limited."""
    if not _is_same(found.again, found.value):
        raise BadInputError(
            f"the metric {metric.name} gives {found.value:.6g}, and {found.again:.6g} when asked again about the same "
            "answers",
            hint="fix the seed of what it draws, and keep nothing from one call for the next",
        )
    if _is_same(found.shuffled, found.value) and found.empty is not None and _is_same(found.empty, found.value):
        raise BadInputError(
            f"the metric {metric.name} gives {found.value:.4g} whatever the answers are",
            hint="compute it from `outputs`, its first argument: output name -> list of arrays, one a sample",
        )
    if abs(found.value) > _LARGEST_SHARE and metric.points_per_unit is None:
        raise BadInputError(
            f"the metric {metric.name} gives {found.value:.4g} for FP32, where a share from 0 to 1 is expected, of "
            "which a point is a hundredth",
            hint=f"write {metric.function}.points_per_unit = 1 below the function where its numbers are points already",
        )
    better = found.shuffled > found.value if metric.higher_is_better else found.shuffled < found.value
    if better and not _is_same(found.shuffled, found.value):
        word, other = ("higher", "False") if metric.higher_is_better else ("lower", "True")
        raise BadInputError(
            f"the metric {metric.name} gives {found.value:.4g} for FP32's answers, and {found.shuffled:.4g} where "
            f"samples get each other's: by it, of which {word} is better, wrong answers are the better ones",
            hint=f"write {metric.function}.higher_is_better = {other} below the function, or see that the targets are "
            "in the order of the samples",
        )


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)


def describe_in_child(path: str, function: str) -> dict[str, Any]:
    """Child side of `find_metric`."""
    sha256 = hash_file(Path(path))
    found = load_function(Path(path), function)
    _require_arguments(found, f"{Path(path).name}:{function}")
    told = {name: getattr(found, name) for name in ("higher_is_better", "points_per_unit") if hasattr(found, name)}
    if "points_per_unit" in told and not (_is_number(told["points_per_unit"]) and told["points_per_unit"] > 0):
        raise BadInputError(
            f"{function}.points_per_unit of {path} is {told['points_per_unit']!r}, not a number above 0",
            hint="100 where the metric is a share, 1 where its numbers are points already",
        )
    if not isinstance(told.get("higher_is_better", True), bool):
        raise BadInputError(
            f"{function}.higher_is_better of {path} is {told['higher_is_better']!r}, not True or False",
            hint="leave it out where more is better",
        )
    return {"path": str(Path(path).resolve()), "function": function, "sha256": sha256, **told}


def compute_in_child(metric: dict[str, Any], directory: str, targets: str, parts: int) -> list[float]:
    """Child side of `compute`."""
    call = _Call(decode(Metric, metric), Path(directory), Path(targets))
    divided = np.array_split(call.everything, parts) if parts else []
    return [call.on(call.everything), *map(call.on, divided)]


def try_in_child(metric: dict[str, Any], directory: str, targets: str) -> dict[str, Any]:
    """Child side of `try_on_fp32`."""
    call = _Call(decode(Metric, metric), Path(directory), Path(targets))
    rows = call.everything
    value = call.on(rows)
    shuffled = call.on(rows, answered=np.roll(rows, max(1, len(rows) // 2)))
    try:
        empty = call.on(rows, change=np.zeros_like)
    except BadInputError:
        empty = None  # no answer at all may be beyond what it is made for
    told: dict[str, Any] = encode(Standing(value=value, shuffled=shuffled, empty=empty, again=call.on(rows)))
    return told


def _require_arguments(function: Callable[..., Any], name: str) -> None:
    try:
        inspect.signature(function).bind({}, {})
    except TypeError as error:
        raise BadInputError(f"the metric {name} cannot be called with two arguments: {error}", hint=_HINT) from error
    except ValueError:
        return  # compiled functions do not tell


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class _Call:
    """Calls the user's function, each time with arrays of its own: what it changes in them, the next call does not see.

    Raises:
        BadInputError: The file is another one than at the beginning, or cannot be run.
    """

    def __init__(self, metric: Metric, directory: Path, targets: Path) -> None:
        if hash_file(metric.path) != metric.sha256:
            raise BadInputError(
                f"{metric.path} was changed while it was in use", hint="leave the metric alone until the command ends"
            )
        self._name = metric.name
        self._function = load_function(metric.path, metric.function)
        self._outputs = directory
        self._targets = targets
        self.everything = np.arange(len(read_reference(directory)))

    def on(
        self,
        rows: npt.NDArray[np.int64],
        *,
        answered: npt.NDArray[np.int64] | None = None,
        change: Callable[[Array], Array] = np.array,
    ) -> float:
        """Returns the metric of the answers to some samples.

        Args:
            rows: Of the samples.
            answered: Samples whose answers they get; None for their own.
            change: Makes of an answer what the function sees of it.
        """
        answers = read_reference(self._outputs, writable=True)
        outputs: dict[str, list[Array]] = {}
        for row in rows if answered is None else answered:
            for name, value in answers[int(row)].items():
                outputs.setdefault(name, []).append(value if change is np.array else change(value))
        with np.load(self._targets, allow_pickle=False) as stored:
            targets = {name: stored[name][rows] for name in stored.files}
        return self._to_number(self._call(outputs, targets))

    def _call(self, outputs: Mapping[str, Sequence[Array]], targets: Mapping[str, Array]) -> Any:
        try:
            return self._function(outputs, targets)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            raise BadInputError(
                f"the metric {self._name} failed: {type(error).__name__}: {error}",
                hint=f"it gets outputs ({', '.join(outputs)}: lists of arrays, one a sample) and targets "
                f"({', '.join(targets)}: arrays, a row a sample)",
                detail=shorten_traceback(error),
            ) from error

    def _to_number(self, value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise BadInputError(
                f"the metric {self._name} returned {type(value).__name__}, not a number", hint=_HINT
            ) from error
        if not math.isfinite(number):
            raise BadInputError(
                f"the metric {self._name} returned {number}, which is over no limit and under none",
                hint="say in the function what it is where there is nothing to count, such as 0",
            )
        return number
