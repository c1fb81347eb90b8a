"""Language models from a folder to a comparison, by the command line, on a model of random weights."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from language_models import make_language_folder, write_gguf

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.codec import decode
from modelwright.core.records.language_artifact import open_language_artifact
from modelwright.harness.language import building
from modelwright.harness.language.comparing import build_language
from modelwright.harness.language.record import LanguageComparison
from modelwright.harness.language.request import make_language_request
from modelwright.harness.language.writing import is_language_results, read_language_results

pytestmark = pytest.mark.slow

NEW_TOKENS = 5
PROMPTS = [{"prompt": f"What is {number} times {number + 3}, and why?", "answer": "It is so."} for number in range(12)]
QUESTIONS = [{"question": "Say b.", "choices": ["b", "c"], "answer": number % 2} for number in range(4)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-m", "modelwright.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, [*PROMPTS, *QUESTIONS])))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_folder(tmp_path_factory.mktemp("model") / "tiny", "llama", max_position_embeddings=256)


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, texts: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("out") / "comparison"
    done = run(
        *("compare", folder, "-s", texts, "-o", out, "-e", "quick", "-t", "ort-fp32", "--baseline", "ort-fp32"),
        *("--new-tokens", NEW_TOKENS, "--batch", 2, "--max-perplexity-increase", "5%"),
    )
    return out, done


def read(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> LanguageComparison:
    assert compared[1].returncode == 0, compared[1].stderr
    return read_language_results(compared[0] / "results.json")


def test_a_folder_goes_in_and_a_comparison_comes_out(
    compared: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    comparison = read(compared)
    assert is_language_results(compared[0] / "results.json")
    (row,) = comparison.measured
    assert row.target == comparison.baseline == "ort-fp32"
    assert row.token_ms is not None
    assert row.token_ms.p50 is not None
    assert row.num_tokens == (NEW_TOKENS - 1) * comparison.settings.rounds
    assert [len(turn.token_ms) for turn in row.turns] == [NEW_TOKENS - 1] * comparison.settings.rounds
    assert row.offline is not None
    assert row.offline.batch == 2
    assert row.cache_bytes
    # Keys and values of 3 layers, 2 heads of 8 channels, in FP32: of the prompt and all tokens but the last.
    read_tokens = row.turns[-1].prompt_tokens + NEW_TOKENS - 1
    assert row.cache_bytes >= read_tokens * 3 * 2 * 2 * 8 * 4
    assert comparison.max_perplexity_increase == 0.05
    assert comparison.verdict is not None
    assert comparison.verdict.ship == "ort-fp32"


def test_fp32_against_itself_loses_nothing(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    (row,) = read(compared).measured
    quality = row.quality
    assert quality is not None
    assert quality.increase.value == 0
    assert quality.agreement.value == 1
    assert quality.answers is not None
    assert quality.answers.exact == quality.answers.count
    (task,) = quality.tasks
    assert task.count == task.total == len(QUESTIONS)
    assert task.whole.correct == task.whole.correct_fp32 == task.whole.kept == 2  # one choice for all: half are right


def test_what_judges_neither_calibrates_nor_tunes(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    texts = read(compared).texts
    parts = [texts.calibration, texts.tuning, texts.evaluation]
    assert all(part is not None for part in parts)
    assert len({part.sha256 for part in parts if part is not None}) == 3
    assert sum(part.texts for part in parts if part is not None) == len(PROMPTS) + len(QUESTIONS)


def test_files_and_terminal_show_the_same(compared: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = compared
    comparison = read(compared)
    assert comparison.verdict is not None
    assert comparison.verdict.sentence in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80 or str(out) in done.stdout
    page = (out / "report.html").read_text()
    assert comparison.verdict.sentence in page
    (line,) = csv.DictReader((out / "results.csv").read_text().splitlines())
    assert float(line["perplexity"]) == pytest.approx(comparison.measured[0].quality.perplexity)  # type: ignore[union-attr]
    assert float(line["speedup"]) == 1


def test_an_unchanged_artifact_is_neither_built_nor_judged_again(
    compared: tuple[Path, subprocess.CompletedProcess[str]], folder: Path, texts: Path
) -> None:
    out = compared[0]
    before = open_language_artifact(out / "artifacts" / "ort-fp32").seal
    done = run(
        *("compare", folder, "-s", texts, "-o", out, "-e", "quick", "-t", "ort-fp32", "--baseline", "ort-fp32"),
        *("--new-tokens", NEW_TOKENS, "--max-perplexity-increase", "5%", "--json"),
    )
    comparison = decode(LanguageComparison, json.loads(done.stdout))
    assert comparison.measured[0].reused
    assert open_language_artifact(out / "artifacts" / "ort-fp32").seal == before


def test_a_copied_artifact_is_measured_without_texts_and_refused_when_changed(
    compared: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    read(compared)
    copy = tmp_path / "device" / "ort-fp32"
    shutil.copytree(compared[0] / "artifacts" / "ort-fp32", copy)
    done = run("measure", copy, "-e", "quick", "--new-tokens", 3, "--json")
    assert done.returncode == 0, done.stderr
    comparison = decode(LanguageComparison, json.loads(done.stdout))
    assert {len(turn.token_ms) for turn in comparison.measured[0].turns} == {2}
    assert "runs here" in run("verify", copy).stdout
    stats = json.loads(run("inspect", copy, "--stats", "--json").stdout)
    assert stats["bits_per_weight"] == pytest.approx(8 * stats["weights_bytes"] / comparison.model.num_parameters)
    (copy / "prompts.json").write_text("{}")
    for command in ("verify", "measure"):
        done = run(command, copy)
        assert done.returncode == 3
        assert "prompts.json was changed" in done.stderr


def test_options_that_mean_nothing_here_are_refused_by_name(folder: Path, texts: Path, tmp_path: Path) -> None:
    done = run("compare", folder, "-s", texts, "-o", tmp_path / "x", "--max-drop", 1, "--spin")
    assert done.returncode == 2
    assert "--max-drop, --spin:" in done.stderr
    done = run("build", "net.onnx", "-s", texts, "-o", tmp_path / "x", "--new-tokens", 3)
    assert done.returncode == 2
    assert "--new-tokens: for language models" in done.stderr


def test_a_prompt_beyond_the_context_is_named(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 60}))
    done = run("compare", folder, "-s", path, "-o", tmp_path / "x", "--baseline", "ort-fp32", "-t", "ort-fp32")
    assert done.returncode == 3
    assert "line 1: the prompt has 300 tokens, and 20 more are generated; the model's context holds 256" in done.stderr


def test_a_gguf_file_is_a_source_of_every_runtime(folder: Path, texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path, out = write_gguf(folder, tmp_path / "tiny.gguf"), tmp_path / "built"
    done = run("build", path, "-s", texts, "-o", out, "-t", "torch-fp32", "-t", "ort-fp32")
    assert done.returncode == 0, done.stderr
    for target in ("torch-fp32", "ort-fp32"):
        source = open_language_artifact(out / target).manifest.model.source
        assert (source.kind, list(source.files)) == ("gguf", ["tiny.gguf"])


def test_a_build_that_the_memory_does_not_hold_is_not_begun(
    folder: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is free is told by a fake: too little for the baseline, then enough for that alone."""
    request = make_language_request(folder, samples=texts, targets=["tflite-int8-dynamic"], baseline="ort-fp32")
    free = iter([10**8, 10**10, 10**8])
    monkeypatch.setattr(building, "read_available_bytes", lambda: next(free))
    with pytest.raises(BuildFailedError) as caught:
        build_language(request, tmp_path / "out")
    assert caught.value.message == (
        "--baseline ort-fp32: building ort-fp32 would take about 501 MB of memory, by estimate, of which 100 MB are "
        "free"
    )
    built = build_language(request, tmp_path / "out")
    (absent,) = built.absent
    assert absent.status == "failed"
    assert "would take about 501 MB of memory" in (absent.reason or "")
    assert "--target" in (absent.hint or "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model", "ort-fp32"]
