"""Programs that generate text with an artifact in OpenVINO, set as its generator is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.core.records.language import TOKENIZER_FILE, LanguageModel
from modelwright.targets.openvino.settings import list_properties
from modelwright.targets.openvino.snippet import CPP_NOTE, write_value_cpp
from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import join_lines, list_cpp, quote_cpp, quote_python


def write_python(model_file: str, precision: Mapping[str, str], record: LanguageModel, settings: RunSettings) -> str:
    """Returns the program; it is run in the artifact's folder with a prompt as its argument.

    Args:
        model_file: The `.xml`.
        precision: Properties that the recipe has it compiled with.
        record: Of the exported model.
        settings: How to run.
    """
    properties: dict[str, Any] = {**list_properties(settings), **precision}
    return join_lines(
        "import sys",
        "",
        "import numpy as np",
        "import openvino as ov",
        "from tokenizers import Tokenizer",
        "",
        f'tokenizer = Tokenizer.from_file("{TOKENIZER_FILE}")',
        "config = {",
        [f"    {quote_python(name)}: {_python(value)}," for name, value in properties.items()],
        "}",
        f'compiled = ov.Core().compile_model({quote_python(model_file)}, "CPU", config)',
        "request = compiled.create_infer_request()  # holds the cache; request.reset_state() empties it",
        "",
        "tokens = tokenizer.encode(sys.argv[1]).ids",
        f"ends = {set(record.eos_token_ids) or 'set()'}",
        "answer, length = [], 0",
        "while len(answer) < 20:",
        "    length += len(tokens)",
        "    request.infer(",
        "        {",
        '            "input_ids": np.array([tokens], np.int64),',
        '            "attention_mask": np.ones((1, length), np.int64),',
        '            "position_ids": np.arange(length - len(tokens), length, dtype=np.int64)[None],',
        '            "num_logits": np.ones(1, np.int64),  # of the last position only',
        '            "beam_idx": np.zeros(1, np.int32),',
        "        }",
        "    )",
        "    tokens = [int(request.get_output_tensor(0).data[0, -1].argmax())]",
        "    if tokens[0] in ends:",
        "        break",
        "    answer += tokens",
        "print(tokenizer.decode(answer))",
    )


def write_cpp(model_file: str, precision: Mapping[str, str], record: LanguageModel, settings: RunSettings) -> str:
    """Returns the program in C++17, which takes the prompt's tokens as its arguments and prints those of the answer."""
    properties: dict[str, Any] = {**list_properties(settings), **precision}
    return join_lines(
        "// Takes the prompt's tokens as arguments, prints the answer's: text is made of them by any reader of",
        f"// {TOKENIZER_FILE}, such as openvino_tokenizers.",
        CPP_NOTE,
        "#include <openvino/openvino.hpp>",
        "",
        "#include <algorithm>",
        "#include <cstdint>",
        "#include <cstdlib>",
        "#include <iostream>",
        "#include <set>",
        "#include <string>",
        "#include <vector>",
        "",
        "int main(int argc, char** argv) {",
        "  ov::Core core;",
        "  const ov::AnyMap config{",
        [f"      {{{quote_cpp(name)}, {write_value_cpp(value)}}}," for name, value in properties.items()],
        "  };",
        f'  auto compiled = core.compile_model({quote_cpp(model_file)}, "CPU", config);',
        "  auto request = compiled.create_infer_request();  // holds the cache; request.reset_state() empties it",
        "",
        "  std::vector<int64_t> tokens;",
        "  for (int index = 1; index < argc; ++index) tokens.push_back(std::strtoll(argv[index], nullptr, 10));",
        f"  const std::set<int64_t> ends{{{list_cpp(record.eos_token_ids)}}};",
        "  size_t length = 0;",
        "  for (int written = 0; written < 20; ++written) {",
        "    const size_t count = tokens.size();",
        "    length += count;",
        "    const auto set = [&](const char* name, ov::Shape shape, int64_t first, int64_t step) {",
        "      ov::Tensor tensor(ov::element::i64, shape);",
        "      int64_t value = first - step;",
        "      std::generate_n(tensor.data<int64_t>(), tensor.get_size(), [&] { return value += step; });",
        "      request.set_tensor(name, tensor);",
        "    };",
        '    request.set_tensor("input_ids", ov::Tensor(ov::element::i64, {1, count}, tokens.data()));',
        '    set("attention_mask", {1, length}, 1, 0);',
        '    set("position_ids", {1, count}, length - count, 1);',
        '    set("num_logits", {1}, 1, 0);  // of the last position only',
        "    int32_t beam = 0;",
        '    request.set_tensor("beam_idx", ov::Tensor(ov::element::i32, {1}, &beam));',
        "    request.infer();",
        "    const auto logits = request.get_output_tensor(0);",
        "    const float* values = logits.data<float>();",
        "    tokens = {std::max_element(values, values + logits.get_size()) - values};",
        "    if (ends.count(tokens[0])) break;",
        "    std::cout << tokens[0] << std::endl;",
        "  }",
        "}",
    )


def _python(value: Any) -> str:
    return quote_python(value) if isinstance(value, str) else str(value)
