from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.records.codec import encode
from modelwright.harness.language import chat_template
from modelwright.harness.language.build_worker import read_workload
from modelwright.harness.language.tokenizer import TextTokenizer
from modelwright.harness.language.tokenizing import PIECE_TOKENS, find_repeated, prepare_in_child
from modelwright.harness.language.workload import Document, Wanted, Workload

tokenizers = pytest.importorskip("tokenizers")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a tokenizer of words, and one token that begins a text."""
    folder = tmp_path / "model"
    folder.mkdir()
    words = {"<s>": 0, "?": 1, **{f"w{number}": number + 2 for number in range(30)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _write(path: Path, entries: list[object]) -> str:
    path.write_text("\n".join(map(json.dumps, entries)))
    return str(path)


def _words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


def _prepare(
    model: Path, samples: str, evaluation: str | None = None, *, tasks: Sequence[str] = (), **wanted: object
) -> Workload:
    out = model.parent / "workload.json"
    asked = Wanted(**{"context": 1000, "vocabulary": 1000, "new_tokens": 4, "lengths": (8, 50, 5000), **wanted})  # type: ignore[arg-type]
    prepare_in_child(str(model), samples, evaluation, tasks, encode(asked), str(out), lambda _text: None)
    return read_workload(out)


def test_bytes_are_those_of_what_is_predicted(model: Path) -> None:
    tokenizer = TextTokenizer(model, 1000)
    text = tokenizer.encode("w1 w22 ü w3")
    assert text.tokens == (0, 3, 24, 1, 5)
    assert text.ends == (0, 2, 6, 9, 12)
    assert text.size_after_first == 12
    assert text.part(2, 2).size_after_first == 3


def test_a_token_that_the_model_does_not_know_is_told_before_anything_is_run(model: Path, tmp_path: Path) -> None:
    """As of a tokenizer that was given a token of its own after the model was trained."""
    assert TextTokenizer(model, 25).encode("w1 w22").tokens == (0, 3, 24)
    with pytest.raises(BadInputError, match=r"tokenizer\.json makes token 24 \('w22'\) .* knows 24 tokens") as caught:
        TextTokenizer(model, 24).encode("w1 w22")
    assert "resize_token_embeddings" in (caught.value.hint or "")


def test_parts_are_disjoint_and_hold_all_texts(model: Path, tmp_path: Path) -> None:
    entries: list[object] = [{"text": _words(*([number] * 20))} for number in range(24)]
    found = _prepare(model, _write(tmp_path / "a.jsonl", entries))
    judged = {token for document in found.evaluation for token in document.tokens} - {0}
    calibrating = {token for row in found.calibration for token in row} - {0}
    tuning = {token for row in found.tuning for token in row} - {0}
    assert len(judged) == 12
    assert len(tuning) == 3
    assert not judged & calibrating
    assert not judged & tuning
    assert not tuning & calibrating
    described = found.described
    assert described.evaluation is not None
    assert described.calibration is not None
    assert (described.evaluation.texts, described.calibration.texts) == (12, 9)
    assert all(
        document.size_bytes == len(_words(*([9] * 20))) for document in found.evaluation if 11 in document.tokens
    )


def test_other_text_judges_and_prompts_stay_held_back(model: Path, tmp_path: Path) -> None:
    prompts: list[object] = [{"prompt": _words(*([number] * 5))} for number in range(16)]
    texts: list[object] = [{"text": _words(*([29] * 90))}]
    found = _prepare(model, _write(tmp_path / "a.jsonl", prompts), _write(tmp_path / "b.jsonl", texts), tokens=70)
    assert [document.tokens for document in found.evaluation] == [(0, *[31] * 70)]
    assert found.evaluation[0].size_bytes == 70 * 3 + 69
    assert len(found.asked.prompts) == 4
    calibrating = {token for row in (*found.calibration, *found.tuning) for token in row} - {0}
    assert not {token for prompt in found.asked.prompts for token in prompt} & calibrating
    assert [len(opening) for opening in found.asked.openings] == [8, 50]


def test_a_book_is_cut_so_that_a_part_calibrates(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text(_words(*[number % 30 for number in range(PIECE_TOKENS * 8)]))
    found = _prepare(model, str(path), context=5000)
    assert found.calibration
    assert found.tuning
    assert [len(document.tokens) for document in found.evaluation] == [PIECE_TOKENS] * 4


def test_questions_keep_what_each_choice_adds(model: Path, tmp_path: Path) -> None:
    asked: list[object] = [{"question": _words(1, 2), "choices": [_words(3), _words(4, 5)], "answer": 1}]
    texts: list[object] = [{"text": _words(*range(30)) * 3} for _ in range(8)]
    found = _prepare(model, _write(tmp_path / "a.jsonl", [*asked, *texts]))
    (task,) = found.tasks
    (question,) = task.questions
    assert [choice.tokens for choice in question.choices] == [(0, 3, 4, 5), (0, 3, 4, 6, 7)]
    assert [choice.start for choice in question.choices] == [3, 3]
    assert [choice.size_bytes for choice in question.choices] == [2, 5]
    assert question.label == 1
    assert (task.name, task.total) == ("questions", 1)


def test_tasks_only_judge_and_as_many_questions_are_asked_as_texts(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    questions = [{"q": _words(1, number), "choices": [_words(3), _words(4)], "right": 1} for number in range(5)]
    _write(tmp_path / "questions.jsonl", list(questions))
    (tmp_path / "counting.yaml").write_text(
        "dataset_path: json\ndataset_kwargs: {data_files: {test: questions.jsonl}}\ntest_split: test\n"
        "output_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: choices\ndoc_to_target: right\n"
    )
    samples = _write(tmp_path / "a.jsonl", [{"text": _words(*range(30)) * 3} for _ in range(8)])
    tasks = [str(tmp_path / "counting.yaml")]
    found = [_prepare(model, samples, tasks=given, texts=3) for given in ([], tasks)]
    (task,) = found[1].tasks
    assert (task.name, len(task.questions), task.total) == ("counting", 3, 5)
    assert found[0].described == found[1].described
    assert found[0].evaluation_sha256 != found[1].evaluation_sha256


def test_text_that_judges_and_calibrates_is_told_by_its_share(model: Path, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(0, 30, (24, 40)).tolist()
    texts: list[object] = [{"text": _words(*row)} for row in drawn]
    samples, other = _write(tmp_path / "a.jsonl", texts[:12]), _write(tmp_path / "b.jsonl", texts[12:])
    assert _prepare(model, samples, other).described.repeated == 0
    assert _prepare(model, samples).described.repeated == 0
    # The half of the samples that answers neither calibrates nor tunes.
    repeated = _prepare(model, samples, samples).described.repeated
    assert repeated == pytest.approx(8 / 12, abs=0.1)


def test_runs_that_overlap_count_once() -> None:
    document = Document(tokens=tuple(range(40)), size_bytes=400)
    assert find_repeated([document], [range(5, 25)]) == 20 / 40
    assert find_repeated([document], [range(5, 17)]) == 0
    assert find_repeated([document], []) == 0
    assert find_repeated([Document(tokens=(7, 8, 9), size_bytes=12)], [range(5, 25)]) == 1
    # Tokens of a byte each: 13 are two words.
    assert find_repeated([Document(tokens=tuple(range(40)), size_bytes=40)], [range(5, 25)]) == 0


def test_too_little_text_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="5 tokens are left to judge on, and 64 are needed"):
        _prepare(model, _write(tmp_path / "a.jsonl", [{"prompt": _words(1, 2, 3, 4, 5)}]))


def test_a_conversation_needs_a_chat_template(model: Path, tmp_path: Path) -> None:
    talk: list[object] = [{"messages": [{"role": "user", "content": _words(1, 2)}]}]
    path = _write(tmp_path / "a.jsonl", talk)
    with pytest.raises(BadInputError, match="line 1: the model has no chat template"):
        _prepare(model, path)
    template = "{% for m in messages %}{{ bos_token }} {{ m.role }} {{ m.content }} {% endfor %}w9"
    (model / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": template, "bos_token": {"content": "<s>"}})
    )
    messages = [{"role": "w7", "content": _words(1)}]
    assert TextTokenizer(model, 1000).encode_chat(messages, "here").tokens == (0, 9, 3, 11)


def test_a_template_that_refuses_a_conversation_is_quoted(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BadInputError, match=r"here: .* refuses these messages: roles must alternate"):
        TextTokenizer(model, 1000).encode_chat([{"role": "user", "content": "x"}], "here")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "within 0.5 s"),
        ("{{ 'a' * 10 ** 12 }}", "within 1,024 MiB of memory"),
        ("{{ 9 ** 9 ** 9 }}", "refuses these messages: a number of more than 256 bits"),
        (
            "{% for i in range(9) %}{{ 'a' * 900 }}{% endfor %}",
            "a text of 8,100 letters .* at most 8,000",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refuses these messages: maximum recursion"),
        ("{{ messages[3].content }}", "refuses these messages: list object has no element 3"),
        ("{{ 1 / 0 }}", "refuses these messages: division by zero"),
    ],
)
def test_a_template_without_an_end_is_stopped(
    model: Path, monkeypatch: pytest.MonkeyPatch, template: str, expected: str
) -> None:
    (model / "chat_template.jinja").write_text(template)
    with monkeypatch.context() as patch, pytest.raises(BadInputError, match=f"^here: .*{expected}"):
        patch.setattr(chat_template, "LIMIT_S", 0.5)
        patch.setattr(chat_template, "LARGEST_TEXT", 8000)
        TextTokenizer(model, 1000).render_chat([{"role": "user", "content": "x"}], "here")
    (model / "chat_template.jinja").write_text("{{ messages[0].content }} of {{ 2 * 3 }}")
    assert TextTokenizer(model, 1000).render_chat([{"role": "user", "content": "x"}], "here") == "x of 6"


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"type": "WordLevel", "vocab": {"a": 1}, "unk_token": "absent"}},
        {"model": {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": None}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<absent>", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
)
def test_a_tokenizer_that_fails_at_a_text_is_told(model: Path, change: dict[str, object]) -> None:
    path = model / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadInputError, match=r"tokenizer\.json makes no tokens of the text 'zz'") as caught:
        TextTokenizer(model, 1000).encode("zz")
    assert "save_pretrained" in (caught.value.hint or "")


def test_a_template_cannot_reach_into_python(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(BadInputError, match="refuses these messages"):
        TextTokenizer(model, 1000).encode_chat([{"role": "user", "content": "x"}], "here")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"has no tokenizer\.json"):
        TextTokenizer(tmp_path, 1000)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInputError, match="cannot be read as a tokenizer"):
        TextTokenizer(tmp_path, 1000)
