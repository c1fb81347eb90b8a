"""An artifact is held against the user's limit where it is proved; what was held otherwise is proved again."""

from __future__ import annotations

from dataclasses import replace as replace_evidence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from modelwright.core.errors import LimitNotMetError
from modelwright.core.outputs.drop import Drop
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.limit import Limit
from modelwright.core.records.artifact import Proof
from modelwright.core.records.exported import ExportedModel, ExportSource
from modelwright.core.records.machine import Machine
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.limits import OverLimitError, find_drop, is_held_alike, require_within
from modelwright.targets.building.prove import prove
from modelwright.targets.table import get_target

HOST = Machine(name="old", architecture="x86_64", instruction_sets=frozenset({"sse4_2"}), cores=2)
LIMIT = Limit(max_drop=0.5, by="accuracy", evaluated=200)
PROOF = Proof(
    fidelity=Fidelity(
        samples=200, outputs=(), worst_output=None, cosine=None, agreement=None, agreement_reason="no scores"
    ),
    count=200,
    correct=150,
    correct_fp32=152,
    samples_sha256="a" * 64,
    host=HOST,
    threads=1,
)
EVIDENCE = Evidence(
    calibration=None,
    tuning=None,
    evaluation=SampleRef(path=Path("x.npz"), part="evaluation"),
    described={},
    reference=Path("/nowhere"),
    random=False,
    limit=LIMIT,
)


def held(proof: Proof, max_drop: float) -> Proof:
    evidence = replace_evidence(EVIDENCE, limit=replace(LIMIT, max_drop=max_drop))
    return find_drop(proof, evidence, Path("/nowhere"))


def test_two_of_200_right_answers_are_a_point() -> None:
    require_within("ort-int8", held(PROOF, 1.0))
    with pytest.raises(OverLimitError, match=r"1 point lost on 200 samples, where --max-drop allows 0\.99") as caught:
        require_within("ort-int8", held(PROOF, 0.99))
    assert caught.value.exit_code == 7
    assert caught.value.hint
    assert caught.value.proof.drop is not None
    assert caught.value.proof.drop.points == 1.0


def test_without_a_limit_nothing_is_held() -> None:
    proof = find_drop(PROOF, replace_evidence(EVIDENCE, limit=None), Path("/nowhere"))
    assert proof.drop is None
    require_within("ort-int8", proof)


@pytest.mark.parametrize(
    ("limit", "alike"),
    [
        (LIMIT, True),
        (None, False),
        (replace(LIMIT, max_drop=0.4), False),
        (replace(LIMIT, by="kept"), False),
        (replace(LIMIT, by="metric"), False),
    ],
)
def test_a_proof_counts_for_its_own_limit_alone(limit: Limit | None, alike: bool) -> None:
    assert is_held_alike(held(PROOF, 0.5), limit) is alike


def test_a_proof_by_a_metric_is_never_taken_again() -> None:
    """What its file reads may have changed, and no hash says so."""
    drop = Drop(by="metric", measure="m.py:f", fp32=0.9, artifact=0.9, points=0.0, count=200, max_points=0.5)
    assert not is_held_alike(replace(PROOF, drop=drop), replace(LIMIT, by="metric"))
    assert not is_held_alike(replace(PROOF, drop=drop), None)
    assert not is_held_alike(PROOF, LIMIT)


def test_what_cannot_run_here_is_built_without_a_limit() -> None:
    built: dict[str, Any] = {"model_file": "m", "recipe": {}, "requires": {"instruction_sets": ["amx_int8"]}}
    exported = ExportedModel(
        model_path=Path("m.onnx"),
        signature=Signature(inputs=(), outputs=()),
        source=ExportSource(kind="onnx", path="m.onnx", sha256="a" * 64, files={}),
        num_parameters=0,
        opset=17,
        sha256="a" * 64,
        files={},
        size_bytes=0,
        comparison=None,
        comparison_reason="",
        notes=(),
        versions={},
        program=None,
        program_sha256=None,
    )

    def attempt(limit: Limit | None) -> tuple[Proof | None, str | None]:
        evidence = replace_evidence(EVIDENCE, limit=limit)
        target, said = get_target("ort-int8"), list[str]()
        return prove(target, built, Path(), exported, evidence, HOST, HOST, 1, said.append, files={}, answers=None)

    with pytest.raises(LimitNotMetError, match="cannot be held against --max-drop") as caught:
        attempt(LIMIT)
    assert caught.value.hint is not None
    assert "without --max-drop" in caught.value.hint
    proof, reason = attempt(None)
    assert proof is None
    assert reason is not None
    assert "not proved" in reason
