"""Programs that run an artifact in OpenVINO on the CPU, set as `OpenvinoSession` sets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.core.records.signature import Signature
from modelwright.targets.openvino.settings import list_properties
from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import choose_shape, is_dynamic, join_lines, list_cpp, quote_cpp, quote_python

CPP_NOTE = "// Headers and libraries lie in OpenVINO's Python package too: openvino/include and openvino/libs."


def write_python(model_file: str, precision: Mapping[str, str], signature: Signature, settings: RunSettings) -> str:
    """Returns the program in Python.

    Args:
        model_file: The `.xml`.
        precision: Properties that the recipe has it compiled with.
        signature: Of the artifact.
        settings: How to run it.
    """
    properties: dict[str, Any] = {**list_properties(settings), **precision}
    dynamic = any(map(is_dynamic, signature.inputs))
    shapes = [f"    {quote_python(spec.name)}: {list(choose_shape(spec))}," for spec in signature.inputs]
    return join_lines(
        "import numpy as np",
        "import openvino as ov",
        "",
        "core = ov.Core()",
        f"model = core.read_model({quote_python(model_file)})",
        ["shapes = {  # of what you run: fixed shapes run faster", *shapes, "}", "model.reshape(shapes)"]
        if dynamic
        else [],
        "config = {",
        [f"    {quote_python(name)}: {_python(value)}," for name, value in properties.items()],
        "}",
        'compiled = core.compile_model(model, "CPU", config)',
        "",
        "feeds = {}",
        "for port in compiled.inputs:",
        "    feeds[port] = np.zeros(list(port.shape), port.get_element_type().to_dtype())",
        _run_python(settings.requests),
        f"outputs = [request.get_output_tensor(index).data for index in range({len(signature.outputs)})]",
    )


def _python(value: Any) -> str:
    return quote_python(value) if isinstance(value, str) else str(value)


def _run_python(requests: int) -> list[str]:
    if requests == 1:
        return ["request = compiled.create_infer_request()", "request.infer(feeds)"]
    return [
        f"requests = [compiled.create_infer_request() for _ in range({requests})]  # keep all of them busy",
        "for request in requests:",
        "    request.start_async(feeds)",
        "for request in requests:",
        "    request.wait()",
    ]


def write_cpp(model_file: str, precision: Mapping[str, str], signature: Signature, settings: RunSettings) -> str:
    """Returns the program in C++17; the arguments are those of `write_python`."""
    properties: dict[str, Any] = {**list_properties(settings), **precision}
    dynamic = any(map(is_dynamic, signature.inputs))
    shapes = [
        f"      {{{quote_cpp(spec.name)}, ov::PartialShape{{{list_cpp(choose_shape(spec))}}}}},"
        for spec in signature.inputs
    ]
    return join_lines(
        CPP_NOTE,
        "#include <openvino/openvino.hpp>",
        "",
        "#include <cstring>",
        "#include <map>",
        "#include <string>",
        ["#include <vector>"] if settings.requests > 1 else [],
        "",
        "int main() {",
        "  ov::Core core;",
        f"  auto model = core.read_model({quote_cpp(model_file)});",
        [
            "  // Of what you run: fixed shapes run faster.",
            "  model->reshape(std::map<std::string, ov::PartialShape>{",
            *shapes,
            "  });",
        ]
        if dynamic
        else [],
        "  const ov::AnyMap config{",
        [f"      {{{quote_cpp(name)}, {write_value_cpp(value)}}}," for name, value in properties.items()],
        "  };",
        '  auto compiled = core.compile_model(model, "CPU", config);',
        "",
        _run_cpp(settings.requests),
        "}",
    )


def write_value_cpp(value: Any) -> str:
    """Returns a property's value as a literal of C++."""
    if isinstance(value, str):
        return f"std::string({quote_cpp(value)})"
    return str(value).lower()


def _run_cpp(requests: int) -> list[str]:
    fill = [
        "for (const auto& port : compiled.inputs()) {",
        "  auto tensor = request.get_tensor(port);",
        "  std::memset(tensor.data(), 0, tensor.get_byte_size());",
        "}",
    ]
    if requests == 1:
        return [
            "  auto request = compiled.create_infer_request();",
            *(f"  {line}" for line in fill),
            "  request.infer();",
            "  auto output = request.get_output_tensor(0);",
        ]
    return [
        "  std::vector<ov::InferRequest> requests;  // keep all of them busy",
        f"  for (int index = 0; index < {requests}; ++index) {{",
        "    requests.push_back(compiled.create_infer_request());",
        "    auto& request = requests.back();",
        *(f"    {line}" for line in fill),
        "    request.start_async();",
        "  }",
        "  for (auto& request : requests) {",
        "    request.wait();",
        "  }",
    ]
