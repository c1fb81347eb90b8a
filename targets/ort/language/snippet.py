"""Programs that generate text with an artifact in ONNX Runtime, their session set as the generator's is."""

from __future__ import annotations

from modelwright.core.records.language import TOKENIZER_FILE, LanguageModel
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.fuse import LENGTHS, LONGEST, POSITIONS, ROWS
from modelwright.targets.ort.snippet import CPP_NOTE, list_session, list_session_cpp
from modelwright.targets.snippets import join_lines


def write_python(model_file: str, record: LanguageModel, settings: RunSettings) -> str:
    """Returns the program; it is run in the artifact's folder with a prompt as its argument.

    Each step gets the cache that the one before returned. One that is written in place, as the harness does it, is
    bound by `io_binding`: the same array as `past_key_values` and `present`, with room for all tokens.

    Args:
        model_file: The graph.
        record: Of the exported model.
        settings: How to run.
    """
    empty = f"np.zeros((1, {record.kv_heads}, 0, {record.head_dim}), np.float32)"
    return join_lines(
        "import sys",
        "",
        "import numpy as np",
        "import onnxruntime as ort",
        "from tokenizers import Tokenizer",
        "",
        list_session(model_file, settings, {}),
        "inputs = [value.name for value in session.get_inputs()]",
        "outputs = [value.name for value in session.get_outputs()]",
        f'cache = {{name: {empty} for name in inputs if name.startswith("past_key_values.")}}',
        "",
        f'tokenizer = Tokenizer.from_file("{TOKENIZER_FILE}")',
        "tokens = tokenizer.encode(sys.argv[1]).ids",
        f"ends = {set(record.eos_token_ids) or 'set()'}",
        "answer, length = [], 0",
        "while len(answer) < 20:",
        "    length += len(tokens)",
        "    feeds = {",
        '        "input_ids": np.array([tokens], np.int64),',
        f'        "{POSITIONS}": np.arange(length - len(tokens), length, dtype=np.int64)[None],  # not all read it',
        f'        "{LENGTHS}": np.array([length - 1], np.int32),',
        f'        "{LONGEST}": np.array(length, np.int32),',
        f'        "{ROWS}": np.array([len(tokens) - 1]),  # logits of the last position only',
        "        **cache,",
        "    }",
        "    results = dict(zip(outputs, session.run(outputs, {name: feeds[name] for name in inputs})))",
        '    tokens = [int(results.pop("logits").argmax())]',
        '    cache = {name.replace("present", "past_key_values"): value for name, value in results.items()}',
        "    if tokens[0] in ends:",
        "        break",
        "    answer += tokens",
        "print(tokenizer.decode(answer))",
    )


def write_cpp(model_file: str, record: LanguageModel, settings: RunSettings) -> str:
    """Returns the program in C++17, which takes the prompt's tokens as its arguments and prints those of the answer."""
    return join_lines(
        "// Takes the prompt's tokens as arguments, prints the answer's: text is made of them by any reader of",
        f"// {TOKENIZER_FILE}, such as the tokenizers library of Hugging Face.",
        CPP_NOTE,
        "#include <onnxruntime_cxx_api.h>",
        "",
        "#include <algorithm>",
        "#include <cstdint>",
        "#include <cstdlib>",
        "#include <iostream>",
        "#include <map>",
        "#include <set>",
        "#include <string>",
        "#include <vector>",
        "",
        "int main(int argc, char** argv) {",
        list_session_cpp(model_file, settings, {}),
        "  Ort::AllocatorWithDefaultOptions allocator;",
        "  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);",
        "  std::vector<std::string> inputs, outputs;",
        "  for (size_t index = 0; index < session.GetInputCount(); ++index)",
        "    inputs.push_back(session.GetInputNameAllocated(index, allocator).get());",
        "  for (size_t index = 0; index < session.GetOutputCount(); ++index)",
        "    outputs.push_back(session.GetOutputNameAllocated(index, allocator).get());",
        "  std::map<std::string, Ort::Value> cache;",
        f"  const int64_t empty[] = {{1, {record.kv_heads}, 0, {record.head_dim}}};",
        "  for (const auto& name : inputs)",
        '    if (name.rfind("past_key_values.", 0) == 0)',
        "      cache.emplace(name, Ort::Value::CreateTensor<float>(allocator, empty, 4));",
        "",
        "  std::vector<int64_t> tokens;",
        "  for (int index = 1; index < argc; ++index) tokens.push_back(std::strtoll(argv[index], nullptr, 10));",
        f"  const std::set<int64_t> ends{{{', '.join(map(str, record.eos_token_ids))}}};",
        "  int64_t length = 0;",
        "  for (int written = 0; written < 20; ++written) {",
        "    const int64_t count = static_cast<int64_t>(tokens.size());",
        "    length += count;",
        "    std::vector<int64_t> positions;",
        "    for (int64_t index = length - count; index < length; ++index) positions.push_back(index);",
        "    int32_t last = static_cast<int32_t>(length - 1), longest = static_cast<int32_t>(length);",
        "    int64_t row = count - 1;  // logits of the last position only",
        "    const int64_t whole[] = {1, count}, one[] = {1};",
        "    std::vector<const char*> read, given;",
        "    std::vector<Ort::Value> feeds;",
        "    for (const auto& name : inputs) {  // not all graphs read all of these",
        "      read.push_back(name.c_str());",
        '      if (name == "input_ids")',
        "        feeds.push_back(Ort::Value::CreateTensor<int64_t>(memory, tokens.data(), tokens.size(), whole, 2));",
        f'      else if (name == "{POSITIONS}")',
        "        feeds.push_back("
        "Ort::Value::CreateTensor<int64_t>(memory, positions.data(), positions.size(), whole, 2));",
        f'      else if (name == "{LENGTHS}")',
        "        feeds.push_back(Ort::Value::CreateTensor<int32_t>(memory, &last, 1, one, 1));",
        f'      else if (name == "{LONGEST}")',
        "        feeds.push_back(Ort::Value::CreateTensor<int32_t>(memory, &longest, 1, nullptr, 0));",
        f'      else if (name == "{ROWS}")',
        "        feeds.push_back(Ort::Value::CreateTensor<int64_t>(memory, &row, 1, one, 1));",
        "      else",
        "        feeds.push_back(std::move(cache.at(name)));",
        "    }",
        "    for (const auto& name : outputs) given.push_back(name.c_str());",
        "    auto results = session.Run(Ort::RunOptions{nullptr}, read.data(), feeds.data(), feeds.size(),",
        "                               given.data(), given.size());",
        "    for (size_t index = 0; index < outputs.size(); ++index) {",
        '      if (outputs[index] == "logits") {',
        "        const float* logits = results[index].GetTensorData<float>();",
        "        const size_t words = results[index].GetTensorTypeAndShapeInfo().GetElementCount();",
        "        tokens = {std::max_element(logits, logits + words) - logits};",
        "      } else {  // present.* is what past_key_values.* is next",
        '        cache.insert_or_assign("past_key_values." + outputs[index].substr(sizeof("present.") - 1),',
        "                               std::move(results[index]));",
        "      }",
        "    }",
        "    if (ends.count(tokens[0])) break;",
        "    std::cout << tokens[0] << std::endl;",
        "  }",
        "}",
    )
