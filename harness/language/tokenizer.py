"""The tokenizer that a model carries: texts to tokens and back, and conversations by the model's chat template."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.harness.language.chat_template import render
from modelwright.targets.readiness import require_import

_TOKENIZER, _CONFIG, _TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
_LARGEST_TEMPLATE = 2**20
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """Tokens of a text.

    Attributes:
        tokens: Their numbers.
        ends: Of each, where it ends in the text, in bytes of UTF-8; 0 for those that stand for none of it.
    """

    tokens: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def size_after_first(self) -> int:
        """Bytes of all tokens but the first, which nothing predicts."""
        return max(1, self.ends[-1] - self.ends[0]) if self.ends else 0

    def part(self, start: int, count: int) -> Tokenized:
        """Returns up to so many tokens from one on."""
        return Tokenized(tokens=self.tokens[start : start + count], ends=self.ends[start : start + count])


class TextTokenizer:
    """A model's tokenizer, by the tokenizers package.

    Args:
        folder: That holds `tokenizer.json` and, for conversations, a chat template.
        vocabulary: Tokens that the model knows: a tokenizer may have been given more since.

    Raises:
        BadInputError: There is none, or it cannot be read.
        ToolchainMissingError: The package is absent.
    """

    def __init__(self, folder: Path, vocabulary: int) -> None:
        tokenizers = require_import("tokenizers", "llm")
        self._folder, self._vocabulary = folder, vocabulary
        path = folder / _TOKENIZER
        if not path.is_file():
            raise BadInputError(
                f"{folder} has no {_TOKENIZER}", hint="save the tokenizer beside the model: tokenizer.save_pretrained"
            )
        with _explain(f"{path} cannot be read as a tokenizer"):
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        config = folder / _CONFIG
        self._config: Mapping[str, Any] = read_json(config, "a tokenizer's configuration") if config.is_file() else {}
        spelled = {name: _spell_token(self._config.get(name)) for name in _SPECIAL}
        self._special = {name: token for name, token in spelled.items() if token is not None}

    def encode(self, text: str, *, special: bool = True) -> Tokenized:
        """Returns the tokens of a text.

        Args:
            text: Any.
            special: Whether the tokens are added that the model expects around a text, such as one that begins it.

        Raises:
            BadInputError: One of them is none that the model knows, or the tokenizer makes none of the text.
        """
        with _explain(f"{self._folder / _TOKENIZER} makes no tokens of the text {text[:40]!r}"):
            found = self._tokenizer.encode(text, add_special_tokens=special)
        number = max(found.ids, default=0)
        if number >= self._vocabulary:
            raise BadInputError(
                f"{self._folder / _TOKENIZER} makes token {number} ({self._tokenizer.id_to_token(number)!r}) of a "
                f"text, and the model knows {self._vocabulary:,} tokens, from 0 on",
                hint="give the tokenizer that the model was trained with; or make the model know the token: "
                "model.resize_token_embeddings(len(tokenizer)), then model.save_pretrained(FOLDER)",
            )
        sizes = list(accumulate((len(char.encode("utf-8", "surrogatepass")) for char in text), initial=0))
        ends = list(accumulate((sizes[end] for _, end in found.offsets), max))
        return Tokenized(tokens=tuple(found.ids), ends=tuple(ends))

    @property
    def prefix_token(self) -> int | None:
        """The token that stands before a text without a context: that which begins texts, else that which ends them."""
        text = self._special.get("bos_token") or self._special.get("eos_token")
        number = None if text is None else self._tokenizer.token_to_id(text)
        return None if number is None else int(number)

    def begins_text(self, text: str) -> bool:
        """Whether a text has the token that begins texts written out at its start: then none is to be added."""
        begin = self._special.get("bos_token")
        return begin is not None and text.startswith(begin)

    def encode_chat(self, messages: Sequence[Mapping[str, str]], where: str) -> Tokenized:
        """Returns the tokens of a conversation in which the model speaks next; see `render_chat`."""
        return self.encode(self.render_chat(messages, where), special=False)

    def render_chat(self, messages: Sequence[Mapping[str, str]], where: str, *, speaks_next: bool = True) -> str:
        """Returns the text of a conversation, special tokens written out.

        Args:
            messages: With `role` and `content`.
            where: They stand, for errors.
            speaks_next: Whether the model begins a message of its own; else it goes on with the last one.

        Raises:
            BadInputError: The model has no chat template, or it refuses the conversation or comes to no end.
        """
        text = render(self.read_template(where), messages, self._special, where, speaks_next=speaks_next)
        if speaks_next:
            return text
        last = messages[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)] if last in text else text

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without those that only steer the model."""
        with _explain(f"{self._folder / _TOKENIZER} makes no text of tokens"):
            return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def read_template(self, where: str) -> str:
        """Returns the chat template.

        Raises:
            BadInputError: There is none.
        """
        template: Any = self._config.get("chat_template")
        file = self._folder / _TEMPLATE
        if file.is_file() and file.stat().st_size <= _LARGEST_TEMPLATE:
            template = file.read_text(encoding="utf-8")
        if isinstance(template, list):  # several, by name
            named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
            template = named.get("default")
        if not isinstance(template, str):
            raise BadInputError(
                f"{where}: the model has no chat template to make text of messages",
                hint='give prompts in the place of messages: {"prompt": "..."}',
            )
        return template


@contextlib.contextmanager
def _explain(what: str) -> Iterator[None]:
    """Words what the tokenizers package raises: plain Exception for whatever is wrong, and panics, which are none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise BadInputError(
            what,
            hint="give the tokenizer that the model was trained with: save it again with tokenizer.save_pretrained",
            detail=str(error),
        ) from error


def _spell_token(value: Any) -> str | None:
    """Returns a special token, which stands as itself or as an object that describes it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
