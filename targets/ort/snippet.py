"""Programs that run an artifact in ONNX Runtime on the CPU, set as `OrtSession` sets it."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.core.records.signature import Signature
from modelwright.targets.options import RunSettings, Value, resolve_options
from modelwright.targets.ort.settings import ENTRIES, LEVELS, MODES, SETTINGS, find_attribute
from modelwright.targets.snippets import CPP_TYPES, choose_shape, join_lines, list_cpp, quote_cpp, quote_python

CPP_NOTE = (
    "// The C++ API of ONNX Runtime's releases, 1.23 or newer: the Python package has neither headers nor library."
)
_CPP_HALF = {"float16": "Ort::Float16_t"}
_CPP_CALLS = {
    "SessionOptions.enable_cpu_mem_arena": "CpuMemArena",
    "SessionOptions.enable_mem_pattern": "MemPattern",
}


def write_python(model_file: str, signature: Signature, settings: RunSettings, entries: Mapping[str, str]) -> str:
    """Returns the program in Python.

    Args:
        model_file: To load.
        signature: Of the model.
        settings: How to run it.
        entries: Of the session's configuration, which the artifact needs.
    """
    feeds = [
        f"    {quote_python(spec.name)}: np.zeros({choose_shape(spec)}, np.{_name_python(spec.dtype)}),"
        for spec in signature.inputs
    ]
    outputs = ", ".join(quote_python(spec.name) for spec in signature.outputs)
    return join_lines(
        ["from concurrent.futures import ThreadPoolExecutor", ""] if settings.requests > 1 else [],
        "import numpy as np",
        "import onnxruntime as ort",
        "",
        list_session(model_file, settings, entries),
        "",
        "feeds = {",
        feeds,
        "}",
        f"names = [{outputs}]",
        _run_python(settings.requests),
    )


def list_session(model_file: str, settings: RunSettings, entries: Mapping[str, str]) -> list[str]:
    """Returns the lines in Python that load a model as `session`; see `write_python`."""
    chosen = resolve_options(SETTINGS, settings.options)
    return [
        "options = ort.SessionOptions()",
        f"options.intra_op_num_threads = {settings.threads}",
        f"options.inter_op_num_threads = {chosen['inter-threads']}",
        f"options.execution_mode = ort.ExecutionMode.{MODES[str(chosen['execution'])]}",
        f"options.graph_optimization_level = ort.GraphOptimizationLevel.{LEVELS[str(chosen['graph-level'])]}",
        *(
            f'options.add_session_config_entry("{ENTRIES[name]}", "{int(value)}")'
            if name in ENTRIES
            else f"options.{find_attribute(name)} = {value}"
            for name, value in _list_others(settings)
        ),
        *(f'options.add_session_config_entry("{key}", "{value}")' for key, value in entries.items()),
        f"session = ort.InferenceSession({quote_python(model_file)}, options, providers=['CPUExecutionProvider'])",
    ]


def _run_python(requests: int) -> list[str]:
    if requests == 1:
        return ["outputs = dict(zip(names, session.run(names, feeds)))"]
    return [
        f"with ThreadPoolExecutor({requests}) as callers:  # one session serves several callers at a time",
        f"    results = list(callers.map(lambda one: session.run(names, one), [feeds] * {requests}))",
        "outputs = dict(zip(names, results[0]))",
    ]


def _name_python(dtype: str) -> str:
    return "bool_" if dtype == "bool" else dtype


def _list_others(settings: RunSettings) -> list[tuple[str, Value]]:
    """Returns what was chosen besides what every program says."""
    said = ("inter-threads", "execution", "graph-level")
    return [(name, value) for name, value in settings.options.items() if name not in said]


def write_cpp(model_file: str, signature: Signature, settings: RunSettings, entries: Mapping[str, str]) -> str:
    """Returns the program in C++17; see `write_python`."""
    feeds = []
    for index, spec in enumerate(signature.inputs):
        shape = choose_shape(spec)
        kind = (CPP_TYPES | _CPP_HALF)[spec.dtype]
        feeds += [
            f"  const std::array<int64_t, {len(shape)}> shape{index}{{{list_cpp(shape)}}};",
            f"  inputs.push_back(Ort::Value::CreateTensor<{kind}>(allocator, shape{index}.data(), "
            f"shape{index}.size()));",
            "  std::memset(inputs.back().GetTensorMutableRawData(), 0, inputs.back().GetTensorSizeInBytes());",
        ]
    return join_lines(
        CPP_NOTE,
        "#include <onnxruntime_cxx_api.h>",
        "",
        "#include <array>",
        "#include <cstring>",
        "#include <vector>",
        "",
        "int main() {",
        list_session_cpp(model_file, settings, entries),
        "",
        "  Ort::AllocatorWithDefaultOptions allocator;",
        "  std::vector<Ort::Value> inputs;",
        feeds,
        f"  const char* input_names[] = {{{list_cpp(quote_cpp(spec.name) for spec in signature.inputs)}}};",
        f"  const char* output_names[] = {{{list_cpp(quote_cpp(spec.name) for spec in signature.outputs)}}};",
        [f"  // Call Run from {settings.requests} threads: one session serves several callers at a time."]
        if settings.requests > 1
        else [],
        "  auto outputs = session.Run(Ort::RunOptions{nullptr}, input_names, inputs.data(), inputs.size(),",
        f"                             output_names, {len(signature.outputs)});",
        "}",
    )


def list_session_cpp(model_file: str, settings: RunSettings, entries: Mapping[str, str]) -> list[str]:
    """Returns the lines in C++ that load a model as `session`; see `write_python`."""
    chosen = resolve_options(SETTINGS, settings.options)
    return [
        '  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "modelwright");',
        "  Ort::SessionOptions options;",
        f"  options.SetIntraOpNumThreads({settings.threads});",
        f"  options.SetInterOpNumThreads({chosen['inter-threads']});",
        f"  options.SetExecutionMode(ExecutionMode::{MODES[str(chosen['execution'])]});",
        f"  options.SetGraphOptimizationLevel(GraphOptimizationLevel::{LEVELS[str(chosen['graph-level'])]});",
        *(f"  options.{_set_cpp(name, value)};" for name, value in _list_others(settings)),
        *(f'  options.AddConfigEntry("{key}", "{value}");' for key, value in entries.items()),
        f"  Ort::Session session(env, ORT_TSTR({quote_cpp(model_file)}), options);",
    ]


def _set_cpp(name: str, value: Value) -> str:
    if name in ENTRIES:
        return f'AddConfigEntry("{ENTRIES[name]}", "{int(value)}")'
    vendor_name = next(option.vendor_name for option in SETTINGS if option.name == name)
    return f"{'Enable' if value else 'Disable'}{_CPP_CALLS[vendor_name]}()"
