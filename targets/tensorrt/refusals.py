"""What TensorRT says when it refuses, in words: its log, its parser's errors, and calls that return nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from modelwright.core.errors import BuildFailedError, ModelwrightError, ToolchainMissingError
from modelwright.targets.tensorrt.flavours import Flavour
from modelwright.targets.tensorrt.layers import is_layer_table

_KEPT_LINES = 200
_MEMORY_LINE = re.compile(r"Total (Activation|Weights) Memory: (\d+) bytes")
_NOISE = ("Thread context has not been set",)
"""What TensorRT for RTX logs as an internal error in every build that succeeds."""


@dataclass(frozen=True, kw_only=True)
class _Cause:
    """What some of the vendor's lines mean.

    Attributes:
        pattern: Found in one of its error lines; a group names the node that they are about.
        meaning: In our words.
        cure: What to do.
        is_missing: Whether something is absent on this machine, whatever was asked for.
    """

    pattern: re.Pattern[str]
    meaning: str
    cure: str
    is_missing: bool = False


_CAUSES = (
    _Cause(
        pattern=re.compile(r"out ?of ?memory|insufficient memory|cudaError 2\b|error: 2\.|failed allocation", re.I),
        meaning="there is not enough GPU memory",
        cure="free GPU memory (nvidia-smi lists who uses it), make the largest shapes smaller (--shapes), or limit "
        "scratch memory: --option workspace-mb=N",
    ),
    _Cause(
        pattern=re.compile(r"cudaError 3[456]\b|failure with error:? 3[456]\b|driver version is insufficient", re.I),
        meaning="the NVIDIA driver is absent or too old for this TensorRT's CUDA",
        cure="update the NVIDIA driver, or install TensorRT's packages for the driver's CUDA version (-cu12, -cu13)",
        is_missing=True,
    ),
    _Cause(
        pattern=re.compile(r"cudaError 100|failure with error:? 100|no CUDA-capable device", re.I),
        meaning="CUDA finds no GPU",
        cure="see what nvidia-smi -L lists, and CUDA_VISIBLE_DEVICES",
        is_missing=True,
    ),
    _Cause(
        pattern=re.compile(
            r"SM ?\d+ is not supported|unsupported SM|compute capability.*(not|un)\s?support"
            r"|no kernel image|cudaError 209|for Turing \(SM75\)",
            re.I,
        ),
        meaning="this compute capability cannot do it",
        cure="build for a GPU that this version supports (NVIDIA's support matrix), or in another precision",
    ),
    _Cause(
        pattern=re.compile(r"within workspace limit|increas\w+ the (allowed )?workspace", re.I),
        meaning="no kernel fits the workspace limit",
        cure="raise it, --option workspace-mb=N, or leave it to TensorRT",
    ),
    _Cause(
        pattern=re.compile(
            r"(?P<node>\S+) has no runners that implement it"
            r"|Could not find any implementation for node (?P<named>[^\s)]+?)\.?(?:[)\s]|$)",
            re.I,
        ),
        meaning="it has no kernel for this node on that GPU",
        cure="take it out of the model (post-processing such as NonMaxSuppression runs as well outside "
        "of it), or use a target of another runtime",
    ),
    _Cause(
        pattern=re.compile(r"version mismatch|serialized engine|magic tag|serialization assertion|plan file", re.I),
        meaning="the engine is of another version of TensorRT, or damaged",
        cure="build it again with the version that is installed here",
    ),
)


@dataclass
class VendorLog:
    """What TensorRT logged, as far as it is of use; nothing is printed.

    Attributes:
        errors: Lines of the severities ERROR and INTERNAL_ERROR.
        warnings: Lines of the severity WARNING.
        tables: The tables of layers.
        memory_bytes: `Activation` and `Weights` -> bytes on the GPU that the built engine needs.
    """

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    memory_bytes: dict[str, int] = field(default_factory=dict)

    def take(self, severity: str, text: str) -> None:
        """Sorts one line in. Called from the vendor's threads, where an exception would end the process."""
        if severity in ("ERROR", "INTERNAL_ERROR"):
            if len(self.errors) < _KEPT_LINES and not text.startswith(_NOISE):
                self.errors.append(text.strip())
        elif severity == "WARNING":
            if len(self.warnings) < _KEPT_LINES:
                self.warnings.append(text.strip())
        elif is_layer_table(text):
            self.tables.append(text)
        else:
            match = _MEMORY_LINE.match(text)
            if match is not None:
                self.memory_bytes[match.group(1)] = int(match.group(2))


_loggers: list[Any] = []
"""Kept to the end of the process: TensorRT holds a pointer to the first one that it was given."""


def make_logger(trt: Any) -> tuple[Any, VendorLog]:
    """Returns a logger for TensorRT's objects, and what it collects; registers the plugins that ONNX operators need."""
    log = VendorLog()

    class _Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            log.take(severity.name, msg)

    logger = _Logger()
    _loggers.append(logger)
    trt.init_libnvinfer_plugins(logger, "")
    return logger, log


class Refusal:
    """Turns calls that return nothing into errors with the lines that the vendor logged meanwhile."""

    def __init__(self, flavour: Flavour, log: VendorLog) -> None:
        self._flavour = flavour
        self._log = log

    def unless(self, call: Callable[[], Any], purpose: str) -> Any:
        """Returns what a call returns when it is something."""
        failure: Exception | None = None
        result = None
        try:
            result = call()
        except (RuntimeError, TypeError, ValueError) as error:  # pybind's words for null pointers and C++ exceptions
            failure = error
        if result is None or result is False:
            raise explain_refusal(self._flavour, self._log, purpose) from failure
        return result


def explain_refusal(
    flavour: Flavour,
    log: VendorLog,
    purpose: str,
    kind: type[ModelwrightError] = BuildFailedError,
) -> ModelwrightError:
    """Returns the error for a call of TensorRT's that came back with nothing.

    Args:
        flavour: Whose call.
        log: What it logged.
        purpose: What the call was for, as it reads in `TensorRT cannot ...`.
        kind: The error unless the lines mean that something is missing on this machine.
    """
    lines = log.errors or log.warnings
    detail = "\n".join([*log.errors, *log.warnings[-10:]]) or None
    for cause in _CAUSES:
        found = next((match for line in lines if (match := cause.pattern.search(line)) is not None), None)
        if found is not None:
            raised = ToolchainMissingError if cause.is_missing else kind
            node = next((name for name in found.groupdict().values() if name), None)
            meaning = cause.meaning if node is None else f"{cause.meaning}: {node}"
            return raised(f"{flavour.title} cannot {purpose}: {meaning}", hint=cause.cure, detail=detail)
    first = next((line for line in lines if "Error Code" in line), lines[0] if lines else "it does not say why")
    return kind(f"{flavour.title} cannot {purpose}: {_shorten(first)}", detail=detail)


def _shorten(line: str) -> str:
    """Cuts the names of the vendor's functions and source files off a line."""
    text = re.sub(r"^(?:\[[\w.]+::\w+::\d+\] |\w+::\w+: )?Error Code \d+: ", "", line)
    text = re.sub(r"\s*In \w+ at \S+:\d+ ?", "", text).replace("((", "(")
    return text if len(text) <= 400 else f"{text[:400]}..."


@dataclass(frozen=True, kw_only=True)
class ParserFault:
    """One error of the ONNX parser.

    Attributes:
        node: Name of the ONNX node; empty where the error is about the whole file.
        operator: Of the node.
        code: The vendor's: `UNSUPPORTED_NODE`, ...
        text: The vendor's words.
        place: Function, file and line of the vendor's parser.
    """

    node: str
    operator: str
    code: str
    text: str
    place: str

    def describe(self) -> str:
        where = f"node {self.node} ({self.operator}): " if self.operator else ""
        return f"{where}{self.text}"


def read_parser_errors(parser: Any) -> list[ParserFault]:
    """Returns all errors of a parser that refused a model, the first one first."""
    faults = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        operator = str(error.node_operator())
        faults.append(
            ParserFault(
                node=str(error.node_name()) or (f"number {error.node()}" if operator else ""),
                operator=operator,
                code=error.code().name,
                text=_word_parser_text(str(error.desc()), error.code().name),
                place=f"{error.func()}, {error.file()}:{error.line()}",
            )
        )
    return faults


def _word_parser_text(text: str, code: str) -> str:
    """Returns the sentence in a parser's assertion; some assert nothing but `false`."""
    text = re.sub(r"^Assertion failed: ", "", text)
    quoted = re.search(r'&& "(.*)"$', text)
    if quoted is not None:
        text = quoted.group(1)
    if text in ("false", ""):
        return "TensorRT does not have this operator" if code == "UNSUPPORTED_NODE" else f"TensorRT says {code}"
    return text


def explain_parser_errors(flavour: Flavour, parser: Any, log: VendorLog) -> ModelwrightError:
    """Returns the error for a model that the parser refused, with all that it said."""
    faults = read_parser_errors(parser)
    if not faults:
        return explain_refusal(flavour, log, "read the ONNX model")
    first = faults[0]
    further = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    unknown = [fault for fault in faults if fault.code.startswith(("UNSUPPORTED", "INVALID_NODE"))]
    return BuildFailedError(
        f"{flavour.title} cannot read the model: {first.describe()}{further}",
        hint="express what the node does by other operators before exporting, or use a target of another runtime"
        if unknown
        else None,
        detail="\n".join(f"{fault.describe()} [{fault.code}; {fault.place}]" for fault in faults),
    )
