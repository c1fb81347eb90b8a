"""What names a causal language model: a folder of transformers, or a GGUF file; told by name and config alone."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.exporters.language.config import CONFIG_FILE

GGUF_SUFFIX = ".gguf"
_ENDINGS = ("ForCausalLM", "LMHeadModel")
"""Of the architectures of transformers that predict the next token."""


def is_gguf(source: str | Path) -> bool:
    """Whether a source is a GGUF file, by its name."""
    return Path(source).suffix.lower() == GGUF_SUFFIX


def is_pickled(folder: str | Path) -> bool:
    """Whether the weights of a folder are pickled, by the names of its files."""
    path = Path(folder)
    return path.is_dir() and any(path.glob("pytorch_model*.bin")) and not any(path.glob("*.safetensors"))


def is_language_source(source: str | Path) -> bool:
    """Whether a source is a causal language model; a damaged config is no sign of one."""
    path = Path(source)
    if is_gguf(path):
        return path.is_file()
    if not (path / CONFIG_FILE).is_file():
        return False
    try:
        architectures = read_json(path / CONFIG_FILE, "the config of a transformers model").get("architectures")
    except BadInputError:
        return False
    return isinstance(architectures, list) and any(str(name).endswith(_ENDINGS) for name in architectures)
