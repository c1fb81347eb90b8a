"""A program that generates text with an artifact in LiteRT."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.core.records.language import TOKENIZER_FILE, LanguageModel
from modelwright.targets.options import RunSettings
from modelwright.targets.snippets import join_lines, quote_python
from modelwright.targets.tflite.language.decoder import (
    DECODE,
    HIDDEN,
    LOGITS,
    OWN_PLACE,
    POSITIONS,
    PREFILL,
    ROWS,
    TOKENS,
    name_mask,
)

_NEW_TOKENS = 20


def write_python(model_file: str, record: LanguageModel, windows: Sequence[int | None], settings: RunSettings) -> str:
    """Returns the program; it is run in the artifact's folder with a prompt as its argument.

    The interpreter copies the cache in for every token. The harness writes it where the compiled model reads it.

    Args:
        model_file: The file with both graphs.
        record: Of the exported model.
        windows: How far layers look back, None for those that see all.
        settings: How to run.
    """

    def masks(distance: str) -> str:
        return ", ".join(
            f'"{name_mask(window)}": see({distance}, {window or record.context_length})' for window in windows
        )

    return join_lines(
        "import sys",
        "",
        "import numpy as np",
        "from ai_edge_litert.interpreter import Interpreter",
        "from tokenizers import Tokenizer",
        "",
        f"interpreter = Interpreter({quote_python(model_file)}, num_threads={settings.threads})",
        f'prefill, decode = (interpreter.get_signature_runner(name) for name in ("{PREFILL}", "{DECODE}"))',
        "",
        "",
        "def see(distance, window):  # what is added for places so many tokens back",
        f"    return np.where((distance >= 0) & (distance < window), 0, {HIDDEN!r}).astype(np.float32)[None, None]",
        "",
        "",
        f'tokenizer = Tokenizer.from_file("{TOKENIZER_FILE}")',
        "tokens = np.array(tokenizer.encode(sys.argv[1]).ids, np.int32)",
        f"ends = {set(record.eos_token_ids) or 'set()'}",
        f"length, capacity = len(tokens), len(tokens) + {_NEW_TOKENS}",
        "places = np.arange(length, dtype=np.int32)",
        "distance = places[:, None] - places",
        "results = prefill(",
        f"    {TOKENS}=tokens, {POSITIONS}=places, {ROWS}=places[-1:], **{{{masks('distance')}}}",
        ")",
        "room = ((0, 0), (0, capacity - length), (0, 0))  # keys and values of the tokens to come: zeros until then",
        'cache = {name[4:]: np.pad(value, room)[None] for name, value in results.items() if name.startswith("new_")}',
        "answer = []",
        f"while len(answer) < {_NEW_TOKENS}:",
        f'    token = int(results["{LOGITS}"].argmax())',
        "    if token in ends:",
        "        break",
        "    answer.append(token)",
        "    if length == capacity:",
        "        break",
        "    distance = length - np.arange(capacity)[None]",
        "    results = decode(",
        f"        {TOKENS}=np.array([token], np.int32),",
        f"        {POSITIONS}=np.array([length], np.int32),",
        f"        {OWN_PLACE}=(distance == 0).astype(np.float32)[None, None],",
        f"        **{{{masks('distance')}}},",
        "        **cache,",
        "    )",
        "    for name in cache:",
        '        cache[name][:, :, length] = results[f"new_{name}"][:, :, 0]',
        "    length += 1",
        "print(tokenizer.decode(answer))",
    )
