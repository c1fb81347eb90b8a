"""Artifacts as models of lm-evaluation-harness, which is an environment's own to have: `pip install lm_eval`.

    python -m modelwright.harness.language.lm_evaluation run --model modelwright --tasks colours
        --include_path . --model_args artifact=out/artifacts/ort-int8-weights,threads=2

in one line is its command line, with `modelwright` among its models; from Python it is
`lm_eval.simple_evaluate(ArtifactLM(folder), ...)`. Any of its tasks runs so, few-shot examples and generated answers
among them. Those that ask for choices and need neither are scored by `compare --tasks` as well, with the same numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lm_eval.models  # noqa: F401 - it lists its own models only where none is listed yet
import numpy as np
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from modelwright.core.errors import BadInputError
from modelwright.core.records.language_artifact import open_language_artifact, verify_language_files
from modelwright.harness.language.generating import choose
from modelwright.harness.language.quality import score_tokens
from modelwright.harness.language.questions import encode_pair
from modelwright.harness.language.tokenizer import TextTokenizer
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings

_GENERATED_TOKENS = 256
"""Where a task does not say: as lm-evaluation-harness has it."""


@register_model("modelwright")
class ArtifactLM(LM):  # type: ignore[misc]
    """An artifact that generates text.

    Args:
        artifact: Its folder.
        threads: To run it with.
        batch_size: Handed over by the command line; requests are answered one by one.
        max_batch_size: Likewise.
        device: Likewise; an artifact says itself what runs it.

    Raises:
        BadInputError: It is none, or its files are not those that were built.
    """

    def __init__(
        self,
        artifact: str,
        threads: int = 1,
        batch_size: Any = 1,  # noqa: ARG002
        max_batch_size: Any = None,  # noqa: ARG002
        device: Any = None,  # noqa: ARG002
    ) -> None:
        super().__init__()
        opened = open_language_artifact(Path(artifact))
        verify_language_files(opened)
        manifest = opened.manifest
        self._name = str(artifact)
        self._stack = ExitStack()
        self._generator = self._stack.enter_context(
            get_target(manifest.target).load(
                opened.directory,
                manifest.model_file,
                manifest.recipe,
                manifest.model,
                RunSettings(threads=int(threads)),
            )
        )
        self._tokenizer = TextTokenizer(opened.directory, manifest.model.vocab_size)
        self._longest = manifest.model.context_length
        self._ends = frozenset(manifest.model.eos_token_ids)

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: ARG002
        """Returns how likely each continuation is after its context, and whether it is what would be generated."""
        return [self._score(*encode_pair(self._tokenizer, *request.args)) for request in requests]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Returns how likely whole texts are, each token after as many before it as the windows of the harness give."""
        return [self._score_text(request.args[0]) for request in requests]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Returns answers, always the likeliest token, up to one of the texts that end them.

        Raises:
            BadInputError: A task asks for tokens drawn at random.
        """
        return [self._answer(*request.args) for request in requests]

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        return self._tokenizer.render_chat(chat_history, self._name, speaks_next=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._tokenizer.read_template(self._name) if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        return self._name.replace("/", "__")

    def _score(self, tokens: Sequence[int], start: int) -> tuple[float, bool]:
        """Returns the likelihood of the tokens from `start` on; what the model cannot read at once is cut in front."""
        cut = max(0, len(tokens) - self._longest - 1)
        whole, first = np.asarray(tokens[cut:], dtype=np.int64), start - cut
        if first < 1:
            raise BadInputError(
                f"{self._name}: a continuation of {len(tokens) - start:,} tokens; the model's context holds "
                f"{self._longest:,}",
                hint="leave that task out",
            )
        logits = self._generator.score(whole[None, :-1])[0]
        costs, tops = score_tokens(logits[first - 1 :], whole[first:])
        return -float(costs.sum()), bool((tops == whole[first:]).all())

    def _score_text(self, text: str) -> float:
        tokens = list(self._tokenizer.encode(text).tokens)
        windows = get_rolling_token_windows(
            token_list=tokens,
            prefix_token=self._tokenizer.prefix_token,
            max_seq_len=self._longest,
            context_len=1,
        )
        pairs = [make_disjoint_window(window) for window in windows]
        return sum(self._score([*context, *continuation], len(context))[0] for context, continuation in pairs)

    def _answer(self, context: str, wanted: Mapping[str, Any]) -> str:
        if wanted.get("do_sample") or float(wanted.get("temperature") or 0) > 0:
            raise BadInputError(
                "a task asks for tokens drawn at random, and artifacts are judged by the likeliest ones",
                hint='override it by --gen_kwargs "do_sample=False,temperature=0"',
            )
        until = wanted.get("until") or []
        ends = [until] if isinstance(until, str) else [end for end in until if end]
        count = int(wanted.get("max_gen_toks", wanted.get("max_new_tokens", _GENERATED_TOKENS)))
        room = self._longest - count
        if room < 1:
            raise BadInputError(
                f"a task asks for {count:,} tokens; the model's context holds {self._longest:,}",
                hint="override it by --gen_kwargs max_gen_toks=64",
            )
        special = not self._tokenizer.begins_text(context)
        prompt = self._tokenizer.encode(context, special=special).tokens[-room:]
        logits = self._generator.prefill(np.asarray([prompt], dtype=np.int64))
        answer: list[int] = []
        while True:
            token = int(choose(logits)[0])
            if token in self._ends:
                break
            answer.append(token)
            text = self._tokenizer.decode(answer)
            if len(answer) == count or any(end in text for end in ends):
                break
            logits = self._generator.step(np.asarray([token], dtype=np.int64))
        text = self._tokenizer.decode(answer)
        return text[: min((text.index(end) for end in ends if end in text), default=len(text))]


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())
