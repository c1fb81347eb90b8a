from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.language_artifact import PromptSet, Texts
from modelwright.harness.language.judging import judge, take_reference
from modelwright.harness.language.workload import Choice, Document, Question, Task, Workload
from modelwright.targets.language.contract import Generator, Logits, Tokens

WORDS = 8
CONTEXT = 64


class Bigram(Generator):
    """A language in which a token depends on the one before it alone: every figure can be worked out by hand.

    Args:
        follow: Chance of the number after the last one; all others share the rest.
        step_by: What the likeliest token is above the last one.
    """

    def __init__(self, follow: float, *, step_by: int = 1, words: int = WORDS) -> None:
        table = np.full((words, words), (1 - follow) / (words - 1))
        for word in range(words):
            table[word, (word + step_by) % words] = follow
        self._logits = (np.log(table) + 3.0).astype(np.float32)
        self.longest = 0

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        return self._logits[tokens[:, -1]]

    def step(self, tokens: Tokens) -> Logits:
        return self._logits[tokens]

    def score(self, tokens: Tokens) -> Logits:
        self.longest = max(self.longest, tokens.shape[1])
        return self._logits[tokens]

    def cache_bytes(self) -> int | None:
        return None


def _make_workload(*, questions: bool = False) -> Workload:
    """Texts that count upwards; 200 tokens are predicted, each of 2 bytes."""
    count = [index % WORDS for index in range(101)]
    choices = tuple(Choice(tokens=(2, word), start=1, characters=1, size_bytes=1) for word in (3, 5))
    asked = tuple(Question(choices=choices, label=label) for label in (0, 1))
    return Workload(
        calibration=(),
        tuning=(),
        evaluation=(
            Document(tokens=tuple(count), size_bytes=200),
            Document(tokens=tuple(count), size_bytes=200),
        ),
        asked=PromptSet(prompts=((1, 2), (5,)), openings=(), new_tokens=4),
        tasks=(Task(name="threes", questions=asked, total=7),) if questions else (),
        described=Texts(),
        evaluation_sha256="0" * 64,
    )


def _judge(tmp_path: Path, candidate: Generator, workload: Workload, fp32: Generator | None = None):  # type: ignore[no-untyped-def]
    take_reference(fp32 or Bigram(0.5), workload, CONTEXT, tmp_path, lambda _text: None)
    return judge(candidate, workload, CONTEXT, tmp_path, lambda _text: None)


def test_figures_by_hand(tmp_path: Path) -> None:
    found = _judge(tmp_path, Bigram(0.25), _make_workload())
    assert found.tokens == 200
    assert found.perplexity == pytest.approx(4, rel=1e-5)
    assert found.perplexity_fp32 == pytest.approx(2, rel=1e-5)
    assert found.increase.value == pytest.approx(1, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(1, rel=1e-5)
    assert found.bits_per_byte_fp32 == pytest.approx(0.5, rel=1e-5)
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log((0.5 / 7) / (0.75 / 7))
    assert found.divergence.value == pytest.approx(by_hand, rel=1e-5)
    assert found.divergence_positions == 200
    assert found.agreement.value == 1
    assert found.answers is not None
    assert (found.answers.count, found.answers.exact, found.answers.similarity.value) == (2, 2, 1)


def test_fp32_against_itself_loses_nothing(tmp_path: Path) -> None:
    found = _judge(tmp_path, Bigram(0.5), _make_workload())
    assert found.increase.value == 0
    assert found.divergence.value == pytest.approx(0, abs=1e-9)


def test_another_language_agrees_nowhere(tmp_path: Path) -> None:
    found = _judge(tmp_path, Bigram(0.5, step_by=2), _make_workload())
    assert found.agreement.value == 0
    assert found.answers is not None
    assert found.answers.exact == 0
    # From 2: 3 4 5 6 and 4 6 0 2. From 5: 6 7 0 1 and 7 1 3 5. To turn one into the other takes four edits.
    assert found.answers.similarity.value == 0


def test_questions_are_answered_by_likelihood(tmp_path: Path) -> None:
    found = _judge(tmp_path, Bigram(0.5, step_by=3), _make_workload(questions=True))
    (task,) = found.tasks
    assert (task.name, task.count, task.total) == ("threes", 2, 7)
    # After 2 FP32 takes 3, which is right once, and the candidate 5, which is right the other time.
    for right in (task.whole, task.by_character, task.by_byte, task.by_token):
        assert (right.correct, right.correct_fp32, right.kept) == (1, 1, 0)


def test_texts_longer_than_the_context_are_read_in_windows(tmp_path: Path) -> None:
    candidate = Bigram(0.25)
    found = _judge(tmp_path, candidate, _make_workload())
    assert candidate.longest == CONTEXT
    assert found.window == CONTEXT


def test_what_writes_no_text_is_refused(tmp_path: Path) -> None:
    broken = Bigram(0.5)
    broken._logits[3, 3] = np.nan
    with pytest.raises(BuildFailedError, match="writes no text"):
        _judge(tmp_path, broken, _make_workload())


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildFailedError, match="logits of 9 words, and FP32 has 8"):
        _judge(tmp_path, Bigram(0.5, words=9), _make_workload())
