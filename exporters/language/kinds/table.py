"""Which kinds of causal language models are exported: model type in config.json -> what describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.exporters.language.config import Config
from modelwright.exporters.language.decoder import Decoder
from modelwright.exporters.language.kinds.gemma import describe_gemma, describe_gemma2, describe_gemma3
from modelwright.exporters.language.kinds.gpt2 import describe_gpt2
from modelwright.exporters.language.kinds.llama import (
    describe_llama,
    describe_mistral,
    describe_qwen2,
    describe_qwen3,
)

KINDS: Mapping[str, Callable[[Config], Decoder]] = {
    "gemma": describe_gemma,
    "gemma2": describe_gemma2,
    "gemma3_text": describe_gemma3,
    "gpt2": describe_gpt2,
    "llama": describe_llama,
    "mistral": describe_mistral,
    "qwen2": describe_qwen2,
    "qwen3": describe_qwen3,
}


def require_known(values: Mapping[str, Any], path: object) -> str:
    """Returns the model type of a config.

    Raises:
        BadInputError: Not one that is exported; lists those that are.
    """
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in KINDS:
        found = "no model_type" if kind is None else f"the model type {str(kind)[:60]!r}"
        named = values.get("architectures")
        architecture = f" ({str(named[0])[:80]})" if isinstance(named, list) and named else ""
        raise BadInputError(
            f"{path} has {found}{architecture}; language models that are exported: {', '.join(sorted(KINDS))}",
            hint="take a model of one of these kinds, or give a factory in Python as the source: FILE.py:FUNCTION",
        )
    return kind
