"""`--max-drop`: what loses more is never delivered, and what is said of it can be counted again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from modelwright.core.errors import BadInputError, LimitNotMetError, UsageError
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.harness.building import Built, build_targets

COUNT = 200
WIDTH, CLASSES = 192, 8


class Teller:
    """Keeps what came out of each task."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self, task: str, text: str) -> None: ...

    def say(self, task: str, text: str) -> None: ...

    def advance(self, task: str, done: int, total: int) -> None: ...

    def finish(self, task: str, text: str, *, ok: bool = True) -> None:
        del task, ok
        self.told.append(text)


class Bench:
    """A single layer that chooses among eight classes, half in doubt: INT8 turns some answers, and no layer saves them.

    Its labels are FP32's own answers: whatever another answer is, is lost.
    """

    def __init__(self, folder: Path, last: str = "Identity") -> None:
        self.folder, self.model = folder, folder / "model.onnx"
        rng = np.random.default_rng(5)
        weights = rng.standard_normal((WIDTH, CLASSES)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node(last, ["product"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
            [numpy_helper.from_array(weights, "w")],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), self.model)
        self.samples, self.judged = folder / "samples.npz", folder / "eval.npz"
        np.savez(self.samples, x=rng.standard_normal((COUNT, WIDTH)).astype(np.float32))
        self.x = rng.standard_normal((COUNT, WIDTH)).astype(np.float32)
        with ReferenceModel(self.model) as model:
            self.fp32 = np.concatenate([model.run({"x": row[None]})["y"] for row in self.x])
        self.labels = self.fp32.argmax(axis=1)
        np.savez(self.judged, x=self.x, labels=self.labels, target_y=self.fp32)

    def build(self, target: str = "ort-int8", out: str = "out", **changes: Any) -> Built:
        given = {"samples": self.samples, "evaluation": self.judged} | changes
        return build_targets(self.model, out=self.folder / out, targets=[target], **given)

    def answers(self, artifact: Artifact) -> Any:
        """Runs an artifact of ONNX Runtime by the vendor's plain API."""
        onnxruntime = pytest.importorskip("onnxruntime")
        session = onnxruntime.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"])
        return np.concatenate([session.run(None, {"x": row[None]})[0] for row in self.x])

    def run(self, *arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "modelwright.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def lost(bench: Bench) -> int:
    """How many of the 200 answers ort-int8 turns, counted by hand."""
    artifact = bench.build(out="free").artifacts["ort-int8"]
    assert artifact.manifest.proof is not None
    assert artifact.manifest.proof.drop is None
    count = int(np.sum(bench.answers(artifact).argmax(axis=1) != bench.labels))
    assert 0 < count < 20, "the model is made so that INT8 turns a few answers"
    return count


def test_a_limit_that_is_just_held(bench: Bench, lost: int) -> None:
    allowed = 100 * lost / COUNT
    artifact = bench.build(out="held", max_drop=allowed).artifacts["ort-int8"]
    assert artifact.manifest.proof is not None
    drop = artifact.manifest.proof.drop
    assert drop is not None
    turned = int(np.sum(bench.answers(artifact).argmax(axis=1) != bench.labels))
    assert drop.points == 100 * turned / COUNT == allowed
    assert (drop.by, drop.fp32, drop.max_points, drop.count) == ("accuracy", 1.0, allowed, COUNT)
    assert open_artifact(bench.folder / "held" / "ort-int8").manifest.proof == artifact.manifest.proof


def test_a_limit_that_is_just_missed(bench: Bench, lost: int) -> None:
    with pytest.raises(LimitNotMetError, match=rf"{100 * lost / COUNT:.3g} points lost on 200 samples") as caught:
        bench.build(out="missed", max_drop=100 * lost / COUNT - 0.01)
    assert caught.value.exit_code == 7
    assert caught.value.hint
    assert not (bench.folder / "missed" / "ort-int8").exists()


def test_without_labels_the_limit_is_of_agreement(bench: Bench, lost: int) -> None:
    plain = bench.folder / "plain.npz"
    np.savez(plain, x=bench.x)
    with pytest.raises(LimitNotMetError, match="agreement with FP32"):
        bench.build(out="unlabelled", evaluation=plain, task="classes", max_drop=100 * lost / COUNT - 0.01)
    # What the limit is of decides which candidate is taken: another one may turn other answers.
    held = bench.build(out="unlabelled", evaluation=plain, task="classes", max_drop=5.0).artifacts["ort-int8"]
    assert held.manifest.proof is not None
    assert held.manifest.proof.drop is not None
    turned = int(np.sum(bench.answers(held).argmax(axis=1) != bench.labels))
    assert (held.manifest.proof.drop.by, held.manifest.proof.drop.points) == ("kept", 100 * turned / COUNT)


def test_labels_that_fp32_never_gets_right_do_not_open_the_limit(bench: Bench, lost: int) -> None:
    """Of an accuracy of 0 % nothing can be lost."""
    shifted = bench.folder / "shifted.npz"
    np.savez(shifted, x=bench.x, labels=bench.fp32.argmin(axis=1))
    with pytest.raises(LimitNotMetError, match="agreement with FP32"):
        bench.build(out="shifted", evaluation=shifted, max_drop=100 * lost / COUNT - 0.01)


@pytest.mark.slow
def test_what_was_built_without_a_limit_is_not_taken_for_one_that_keeps_it(bench: Bench, lost: int) -> None:
    folder = bench.folder / "earlier" / "ort-int8"
    bench.build(out="earlier")
    with pytest.raises(BadInputError, match="was not built from these inputs"):
        bench.build(out="earlier", max_drop=0.0)
    assert folder.exists(), "nobody allowed to replace it"
    with pytest.raises(LimitNotMetError):
        bench.build(out="earlier", max_drop=0.0, overwrite=True)
    assert not folder.exists(), "it would look as if it kept to the limit"
    loose = bench.build(out="earlier", max_drop=50.0).artifacts["ort-int8"]
    with pytest.raises(LimitNotMetError):
        bench.build(out="earlier", max_drop=0.0, overwrite=True)
    assert not loose.directory.exists()


BITS = """
import numpy as np

def bits(outputs, targets):
    return np.mean([np.array_equal(one[0], other) for one, other in zip(outputs["y"], targets["target_y"])])
"""


@pytest.mark.slow
def test_a_float_artifact_from_before_is_marked_where_it_is_over_the_limit(tmp_path: Path) -> None:
    """Its files do not depend on the limit: it is found again, and then its manifest must say so."""
    pytest.importorskip("openvino")
    bench = Bench(tmp_path, last="Tanh")  # which every runtime rounds otherwise
    metric = bench.folder / "bits.py"
    metric.write_text(BITS)
    before = bench.build("openvino-fp32", out="float").artifacts["openvino-fp32"]
    with pytest.raises(LimitNotMetError, match=r"bits\.py:bits 1 to "):
        bench.build("openvino-fp32", out="float", max_drop=0.5, metric=f"{metric}:bits")
    marked = open_artifact(before.directory)
    assert marked.manifest.files == before.manifest.files
    assert marked.manifest.proof is not None
    assert marked.manifest.proof.drop is not None
    assert marked.manifest.proof.drop.is_over
    code, said = bench.run("measure", str(marked.directory), "-e", "quick")
    assert code == 0
    assert "No recommendation: every measured target misses a limit" in said
    # Without a limit it is as good as it was.
    again = bench.build("openvino-fp32", out="float").artifacts["openvino-fp32"]
    assert again.manifest.proof is not None
    assert again.manifest.proof.drop is None


@pytest.mark.slow
def test_a_metric_of_the_users(bench: Bench, lost: int) -> None:
    metric = bench.folder / "share.py"
    metric.write_text(
        "import numpy as np\n\ndef errors(outputs, targets):\n"
        '    return np.mean(np.concatenate(outputs["y"]).argmax(axis=1) != targets["labels"])\n\n'
        "errors.higher_is_better = False\n"
    )
    artifact = bench.build(out="metric", max_drop=5.0, metric=f"{metric}:errors").artifacts["ort-int8"]
    turned = int(np.sum(bench.answers(artifact).argmax(axis=1) != bench.labels))
    proof = artifact.manifest.proof
    assert proof is not None
    assert proof.drop is not None
    assert (proof.drop.by, proof.drop.measure) == ("metric", "share.py:errors")
    assert (proof.drop.fp32, proof.drop.points) == (0.0, 100 * turned / COUNT)
    assert str(bench.folder) not in (bench.folder / "metric" / "ort-int8" / "artifact.json").read_text()
    with pytest.raises(LimitNotMetError, match=r"share\.py:errors 0 to"):
        bench.build(out="metric2", max_drop=100 * lost / COUNT - 0.01, metric=f"{metric}:errors")
    with pytest.raises(UsageError, match="nothing says how much"):
        bench.build(out="metric3", metric=f"{metric}:errors")


def test_where_fp32_gives_no_answer_other_samples_are_asked_for(bench: Bench) -> None:
    silent = bench.folder / "silent.npz"
    np.savez(silent, x=np.zeros_like(bench.x))
    with pytest.raises(LimitNotMetError, match="FP32 gives no answer on the 200 samples") as caught:
        bench.build(out="silent", evaluation=silent, task="classes", max_drop=50.0)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("give others with --eval")
    assert bench.build(out="silent", max_drop=50.0).artifacts


@pytest.mark.slow
def test_exit_codes_and_rows_of_a_comparison(bench: Bench, lost: int) -> None:
    allowed = str(100 * lost / COUNT - 0.01)
    given = [str(bench.model), "-s", str(bench.samples), "--eval", str(bench.judged)]
    code, said = bench.run("compare", *given, "-t", "ort-int8", "-e", "quick", "--max-drop", allowed, "-o", "c")
    assert code == 7
    assert "failed ort-int8: loses too much: accuracy 100.00% to" in said
    assert not (bench.folder / "c" / "artifacts" / "ort-int8").exists()
    rows = {row["target"]: row for row in json.loads((bench.folder / "c" / "results.json").read_text())["measurements"]}
    row = rows["ort-int8"]
    assert (row["status"], row["exit_code"], row["latency_ms"]) == ("failed", 7, None)
    assert row["drop"]["points"] == 100 * lost / COUNT
    assert row["accuracy"] == 1 - lost / COUNT
    assert rows["ort-fp32"]["status"] == "measured"
    assert rows["ort-fp32"]["drop"]["points"] == 0.0
    assert "loses too much" in (bench.folder / "c" / "report.html").read_text()


def test_few_samples_are_said_to_resolve_little(bench: Bench) -> None:
    few = bench.folder / "few.npz"
    np.savez(few, x=bench.x[:20], labels=bench.labels[:20])
    teller = Teller()
    bench.build("ort-fp32", out="few", evaluation=few, max_drop=0.5, progress=teller)
    assert any("20 samples resolve 5 points" in text and "give 200 or more" in text for text in teller.told)


@pytest.mark.parametrize("points", [100.0, 1e9])
def test_a_limit_that_nothing_could_exceed_is_no_limit(tmp_path: Path, points: float) -> None:
    with pytest.raises(UsageError, match="limits nothing") as caught:
        build_targets("m.onnx", samples="s.npz", out=tmp_path, targets=["ort-fp32"], max_drop=points)
    assert "--max-drop 0.5" in (caught.value.hint or "")
