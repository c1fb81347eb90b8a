from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.harness.language.questions import ask, choose_by_likelihood, compare_tasks, cost_choices, encode_pair
from modelwright.harness.language.task_files import Asked
from modelwright.harness.language.tokenizer import TextTokenizer
from modelwright.harness.language.workload import Choice, Question, Task
from modelwright.targets.language.contract import Generator, Logits, Tokens

tokenizers = pytest.importorskip("tokenizers")

WORDS = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, " a": 4, " b": 5, "ab": 6, " ": 7, "\n": 8}


@pytest.fixture
def tokenizer(tmp_path: Path) -> TextTokenizer:
    """Tokens of one or two letters; `ab` is one token, and a word takes the space before it."""
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=WORDS, merges=[("a", "b"), (" ", "a"), (" ", "b")], ignore_merges=False)
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    return TextTokenizer(tmp_path, len(WORDS))


def test_the_space_before_a_word_is_the_continuations(tokenizer: TextTokenizer) -> None:
    assert encode_pair(tokenizer, "a", " b") == ((2, 5), 1)
    assert encode_pair(tokenizer, "a ", "b") == ((2, 5), 1)


def test_a_token_that_spans_both_goes_with_its_number(tokenizer: TextTokenizer) -> None:
    """`ba` is two tokens, `bab` two others: what counts lies beyond the question's own number of tokens."""
    assert encode_pair(tokenizer, "ba", "b b") == ((3, 6, 5), 2)
    with pytest.raises(BadInputError, match="leaves no token to the choice 'b'"):
        ask(Asked(where="here", context="ba", choices=("b", "bb"), label=0, delimiter=""), tokenizer, 9)


def test_without_a_question_a_choice_follows_the_token_between_texts(tokenizer: TextTokenizer) -> None:
    assert encode_pair(tokenizer, "", "a b") == ((1, 2, 5), 1)


def test_a_question_longer_than_the_context_is_named(tokenizer: TextTokenizer) -> None:
    with pytest.raises(BadInputError, match="here: the question has 4 tokens; the model's context holds 3"):
        ask(Asked(where="here", context="a a a", choices=("b", "a"), label=0), tokenizer, 3)


class _Fixed(Generator):
    """Gives each token the chance that a table says, whatever comes before."""

    def __init__(self, *chances: float) -> None:
        self._logits = np.log(np.array(chances)).astype(np.float32)

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        return np.repeat(self._logits[None], len(tokens), 0)

    def step(self, tokens: Tokens) -> Logits:
        return self.prefill(tokens)

    def score(self, tokens: Tokens) -> Logits:
        return np.broadcast_to(self._logits, (*tokens.shape, self._logits.size))

    def cache_bytes(self) -> int | None:
        return None


def _choice(*tokens: int, characters: int, size_bytes: int) -> Choice:
    return Choice(tokens=(0, *tokens), start=1, characters=characters, size_bytes=size_bytes)


def test_each_way_to_compare_choices_by_hand() -> None:
    """By the whole 1.39 nats beat 2.08; by character 2.08 / 2 beat 1.39; by byte 1.39 / 4 beat 2.08 / 2; and so on."""
    question = Question(
        choices=(_choice(1, characters=1, size_bytes=4), _choice(2, 2, 2, characters=2, size_bytes=2)), label=0
    )
    generator = _Fixed(0.25, 0.25, 0.5)
    costs = cost_choices(generator, question)
    assert costs == pytest.approx([math.log(4), 3 * math.log(2)], rel=1e-6)
    task = Task(name="t", questions=(question,), total=1)
    (scores,) = compare_tasks([task], [[costs]], [[(1.0, 5.0)]])
    ways = (scores.whole, scores.by_character, scores.by_byte, scores.by_token)
    assert [each.correct for each in ways] == [
        1,
        0,
        1,
        0,
    ]
    assert (scores.whole.correct_fp32, scores.whole.kept, scores.by_token.kept) == (1, 1, 0)
    assert scores.whole.kept_ci95 is not None
    assert 0.2 < scores.whole.kept_ci95[0] < 0.3  # one of one is not all of all


def test_the_first_of_equal_choices_is_taken() -> None:
    assert choose_by_likelihood([2.0, 2.0], [1, 1]) == 0
    assert choose_by_likelihood([2.0, 3.0], [1, 4]) == 1
