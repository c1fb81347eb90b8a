"""lm-evaluation-harness finds the same numbers: its own PyTorch model, ours in its place, and `--tasks` without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("lm_eval")
pytest.importorskip("accelerate")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import lm_eval
from language_models import make_language_folder
from lm_eval.tasks import TaskManager

from modelwright.cli.build import build
from modelwright.core.records.language_artifact import open_language_artifact
from modelwright.harness.language.lm_evaluation import ArtifactLM

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_choice: options
doc_to_target: right
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}]
"""
ASKED = {
    "plain": 'doc_to_text: "{{question}}"\n',
    "spaced": 'description: "Say.\\n\\n"\ndoc_to_text: "Question: {{question}}\\nAnswer: "\n',
    "joined": 'target_delimiter: ""\ndoc_to_text: question\n',
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("tasks")
    ends = ("six", "a rather long end of it", "é", "7", "no")
    documents = [
        {"question": f"{n} and {n + 2} is", "options": [ends[(n + i) % 5] for i in range(3)], "right": n * n % 3}
        for n in range(24)
    ]
    (here / "questions.jsonl").write_text("\n".join(map(json.dumps, documents)))
    for name, text in ASKED.items():
        (here / f"{name}.yaml").write_text(TASK.format(name=name, file=here / "questions.jsonl") + text)
    prompts = [{"prompt": f"What is {n} times {n + 3}, and why?", "answer": "It is so."} for n in range(12)]
    (here / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    make_language_folder(here / "tiny", "llama", max_position_embeddings=256)
    tasks = [part for name in ASKED for part in ("--tasks", str(here / f"{name}.yaml"))]
    texts = ["-s", str(here / "prompts.jsonl"), "-o", str(here / "out"), "-t", "ort-fp32"]
    done = CliRunner().invoke(build, [str(here / "tiny"), *texts, *tasks], standalone_mode=False)
    assert done.exception is None, done.output
    return here


def evaluate(folder: Path, monkeypatch: pytest.MonkeyPatch, model: Any, **more: Any) -> Any:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(folder / "hub"))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=list(ASKED), task_manager=manager, bootstrap_iters=0, **more)["results"]


def test_the_same_accuracies_by_three_ways(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"model_args": f"pretrained={folder / 'tiny'},dtype=float32", "device": "cpu", "batch_size": 1}
    theirs = evaluate(folder, monkeypatch, "hf", **options)
    adapted = evaluate(folder, monkeypatch, ArtifactLM(str(folder / "out" / "ort-fp32")))
    proof = open_language_artifact(folder / "out" / "ort-fp32").manifest.proof
    assert proof is not None
    for task in proof.tasks:
        ways = {"acc": task.whole, "acc_norm": task.by_character, "acc_bytes": task.by_byte}
        ours = {name: right.correct / task.count for name, right in ways.items()}
        for found in (adapted, theirs):
            assert {name: found[task.name][f"{name},none"] for name in ways} == pytest.approx(ours)
    assert len({(task.whole.correct, task.by_character.correct) for task in proof.tasks}) > 1
