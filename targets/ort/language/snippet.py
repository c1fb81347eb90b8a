"""A program that generates text with an artifact in ONNX Runtime, its session set as the generator's is."""

from __future__ import annotations

from modelwright.core.records.language import TOKENIZER_FILE, LanguageModel
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.fuse import LENGTHS, LONGEST, POSITIONS, ROWS
from modelwright.targets.ort.snippet import list_session
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
