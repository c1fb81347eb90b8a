"""A program that generates text with an artifact in OpenVINO, set as its generator is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.core.records.language import TOKENIZER_FILE, LanguageModel
from modelwright.targets.openvino.settings import list_properties
from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import join_lines, quote_python


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


def _python(value: Any) -> str:
    return quote_python(value) if isinstance(value, str) else str(value)
