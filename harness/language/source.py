"""Whether what the user names is a causal language model; looked at by name and config alone."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json

_CONFIG = "config.json"
_ENDINGS = ("ForCausalLM", "LMHeadModel")
"""Of the architectures of transformers that predict the next token."""


def is_language_source(source: str | Path) -> bool:
    """Whether a source is a transformers folder of a causal language model; a damaged config is no sign of one."""
    config = Path(source) / _CONFIG
    if not config.is_file():
        return False
    try:
        architectures = read_json(config, "the config of a transformers model").get("architectures")
    except BadInputError:
        return False
    return isinstance(architectures, list) and any(str(name).endswith(_ENDINGS) for name in architectures)
