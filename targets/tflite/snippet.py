"""Programs that run an artifact in a TFLite interpreter, set as `TfliteRunner` sets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.targets.options import RunSettings, resolve_options
from modelwright.targets.snippets import join_lines, list_cpp, quote_cpp, quote_python
from modelwright.targets.tflite.settings import SETTINGS


def write_python(model_file: str, binding: Mapping[str, Any], settings: RunSettings) -> str:
    """Returns the program in Python.

    Args:
        model_file: The `.tflite`.
        binding: Where the model's inputs and outputs are in the file.
        settings: How to run it.
    """
    chosen = resolve_options(SETTINGS, settings.options)
    resolver = "" if chosen["xnnpack"] else "OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    arguments = [
        f"model_path={quote_python(model_file)}",
        f"num_threads={settings.threads}",
        *([f"experimental_op_resolver_type={resolver}"] if resolver else []),
        *(["experimental_default_delegate_latest_features=True"] if chosen["latest-features"] else []),
    ]
    inputs: Sequence[Mapping[str, Any]] = binding["inputs"]
    return join_lines(
        "import numpy as np",
        f"from ai_edge_litert.interpreter import Interpreter{', OpResolverType' if resolver else ''}",
        "",
        [f"# One interpreter for each of {settings.requests} callers at a time."] if settings.requests > 1 else [],
        f"interpreter = Interpreter({', '.join(arguments)})",
        "takes, gives = interpreter.get_input_details(), interpreter.get_output_details()",
        [
            f'interpreter.resize_tensor_input(takes[{int(entry["position"])}]["index"], {_shape(entry)})'
            for entry in inputs
            if binding["dynamic_batch"]
        ],
        "interpreter.allocate_tensors()",
        "",
        [
            f'interpreter.set_tensor(takes[{int(entry["position"])}]["index"], '
            f'np.zeros({_shape(entry)}, takes[{int(entry["position"])}]["dtype"]))  # {quote_python(entry["name"])}'
            for entry in inputs
        ],
        ["interpreter.reset_all_variables()  # the file keeps its state from call to call"]
        if binding["reset_variables"]
        else [],
        "interpreter.invoke()",
        "outputs = {",
        [f"    {quote_python(entry['name'])}: {_read_python(entry)}," for entry in binding["outputs"]],
        "}",
    )


def _shape(entry: Mapping[str, Any]) -> list[int]:
    return [int(size) for size in entry["shape"]]


def _read_python(entry: Mapping[str, Any]) -> str:
    value = f'interpreter.get_tensor(gives[{int(entry["position"])}]["index"])'
    order = entry.get("order")
    return value if order is None else f"{value}.transpose({tuple(map(int, order))})"


def write_cpp(model_file: str, binding: Mapping[str, Any], settings: RunSettings) -> str:
    """Returns the program in C++17; the arguments are those of `write_python`."""
    chosen = resolve_options(SETTINGS, settings.options)
    by_hand = bool(chosen["latest-features"]) and bool(chosen["xnnpack"])
    bare = by_hand or not chosen["xnnpack"]
    resolver = "BuiltinOpResolverWithoutDefaultDelegates" if bare else "BuiltinOpResolver"
    feeds = []
    for entry in binding["inputs"]:
        position = int(entry["position"])
        if binding["dynamic_batch"]:
            feeds.append(
                f"  interpreter->ResizeInputTensor(interpreter->inputs()[{position}], {{{list_cpp(_shape(entry))}}});"
            )
    return join_lines(
        "// The C++ API of TensorFlow Lite 2.17 or newer; in LiteRT's sources it lies under tflite/ instead.",
        ['#include "tensorflow/lite/delegates/xnnpack/xnnpack_delegate.h"'] if by_hand else [],
        '#include "tensorflow/lite/interpreter_builder.h"',
        '#include "tensorflow/lite/kernels/register.h"',
        '#include "tensorflow/lite/model_builder.h"',
        "",
        "#include <cstring>",
        "#include <memory>",
        "",
        "int main() {",
        f"  auto model = tflite::FlatBufferModel::BuildFromFile({quote_cpp(model_file)});",
        f"  tflite::ops::builtin::{resolver} resolver;",
        "  tflite::InterpreterBuilder builder(*model, resolver);",
        f"  builder.SetNumThreads({settings.threads});",
        [
            "  auto options = TfLiteXNNPackDelegateOptionsDefault();",
            f"  options.num_threads = {settings.threads};",
            "  options.flags |= TFLITE_XNNPACK_DELEGATE_FLAG_ENABLE_LATEST_OPERATORS;",
            "  options.flags |= TFLITE_XNNPACK_DELEGATE_FLAG_ENABLE_SUBGRAPH_RESHAPING;",
            "  std::unique_ptr<TfLiteDelegate, decltype(&TfLiteXNNPackDelegateDelete)> delegate(",
            "      TfLiteXNNPackDelegateCreate(&options), &TfLiteXNNPackDelegateDelete);",
            "  builder.AddDelegate(delegate.get());",
        ]
        if by_hand
        else [],
        "  std::unique_ptr<tflite::Interpreter> interpreter;",
        "  if (builder(&interpreter) != kTfLiteOk) return 1;",
        feeds,
        "  if (interpreter->AllocateTensors() != kTfLiteOk) return 1;",
        [
            f"  std::memset(interpreter->input_tensor({int(entry['position'])})->data.raw, 0,\n"
            f"              interpreter->input_tensor({int(entry['position'])})->bytes);  // {quote_cpp(entry['name'])}"
            for entry in binding["inputs"]
        ],
        ["  interpreter->ResetVariableTensors();  // the file keeps its state from call to call"]
        if binding["reset_variables"]
        else [],
        "  if (interpreter->Invoke() != kTfLiteOk) return 1;",
        [
            f"  // output_tensor({int(entry['position'])}): {quote_cpp(entry['name'])}{_order_cpp(entry)}"
            for entry in binding["outputs"]
        ],
        "}",
    )


def _order_cpp(entry: Mapping[str, Any]) -> str:
    order = entry.get("order")
    return "" if order is None else f", to be transposed by {{{list_cpp(map(int, order))}}}"
