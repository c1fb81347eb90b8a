"""`config.json` of a transformers folder: read bounded, looked at before transformers sees it, and typed afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json

CONFIG_FILE = "config.json"
_HINT = "download the folder again, or correct config.json"
_LARGEST: Mapping[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer"), 1000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head"), 4096),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "head_dim"), 2**20),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions", "sliding_window"), 2**26),
    "max_window_layers": 2**20,
    "sliding_window_pattern": 1000,
}
"""Numbers beyond which no model goes: transformers makes lists as long as some of them."""
_NULLABLE = frozenset({"num_key_value_heads", "n_inner", "head_dim", "sliding_window", "max_window_layers"})


@dataclass(frozen=True, kw_only=True)
class Config:
    """A config as transformers understands it.

    Attributes:
        path: Of the file.
        values: With transformers' defaults for what the file lacks.
        loaded: transformers' own object.
    """

    path: Path
    values: Mapping[str, Any]
    loaded: Any

    def count(self, key: str, *, least: int = 1) -> int:
        """Returns a whole number.

        Raises:
            BadInputError: It is none, or too small or too large.
        """
        value = self.values.get(key)
        if type(value) is not int or not least <= value <= _LARGEST.get(key, 2**31):
            raise self.refuse(key, f"a whole number from {least} to {_LARGEST.get(key, 2**31):,}")
        return value

    def optional_count(self, key: str) -> int | None:
        """Returns a whole number, or None."""
        return None if self.values.get(key) is None else self.count(key)

    def amount(self, key: str) -> float:
        """Returns a number greater than 0.

        Raises:
            BadInputError: It is none.
        """
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise self.refuse(key, "a number greater than 0")
        return float(value)

    def optional_amount(self, key: str) -> float | None:
        """Returns a number greater than 0, or None."""
        return None if self.values.get(key) is None else self.amount(key)

    def flag(self, key: str) -> bool:
        """Returns true or false; false for what is not there."""
        value = self.values.get(key) or False
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def refuse(self, key: str, expected: str) -> BadInputError:
        """Returns the error of a value that is not as expected."""
        found = repr(self.values.get(key))
        return BadInputError(f"{self.path}: {key}: expected {expected}, found {found[:60]}", hint=_HINT)


def read_raw_config(folder: Path) -> dict[str, Any]:
    """Reads the file as it is, and refuses what would make transformers work without an end.

    Raises:
        BadInputError: Not there, not JSON, too large, too deep, with numbers that no model has, or quantized already.
    """
    path = folder / CONFIG_FILE
    values = read_json(path, "the config of a transformers model")
    for key, largest in _LARGEST.items():
        value = values.get(key)
        if key not in values or (value is None and key in _NULLABLE):
            continue
        if type(value) is not int or not 0 <= value <= largest:
            raise BadInputError(
                f"{path}: {key}: expected a whole number of at most {largest:,}, found {value!r:.60}", hint=_HINT
            )
    _require_not_quantized(path, values.get("quantization_config"))
    return values


def _require_not_quantized(path: Path, quantization: Any) -> None:
    """Refuses a model that was quantized before it was saved: FP32, which artifacts are held against, is lost.

    Raises:
        BadInputError: Names the method.
    """
    if quantization is None:
        return
    method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    named = method if isinstance(method, str) and method.isprintable() else "no method by name"
    raise BadInputError(
        f"{path}: quantization_config: the model is quantized already, by {named[:40]}",
        hint="take the model as it was before it was quantized; where its weights are floats all the same, remove "
        "quantization_config",
    )


def load_config(folder: Path) -> Config:
    """Returns the config with transformers' defaults; runs no code of the folder.

    Raises:
        BadInputError: transformers cannot read it.
        ToolchainMissingError: transformers is not installed.
    """
    from transformers import AutoConfig

    read_raw_config(folder)
    path = folder / CONFIG_FILE
    try:
        loaded = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        values = loaded.to_dict()
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise BadInputError(f"{path} is not a config that transformers reads", hint=_HINT, detail=str(error)) from error
    return Config(path=path, values=values, loaded=loaded)
