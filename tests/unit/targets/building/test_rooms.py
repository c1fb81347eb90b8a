"""Searching again where what was chosen loses too much: when, how often, and what is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from modelwright.core.outputs.drop import Drop
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.limit import ROOMS, Limit
from modelwright.core.records.artifact import Proof
from modelwright.core.records.machine import Machine
from modelwright.targets.building.limits import OverLimitError
from modelwright.targets.building.rooms import keep_within

PROOF = Proof(
    fidelity=Fidelity(
        samples=512, outputs=(), worst_output=None, cosine=None, agreement=None, agreement_reason="no scores"
    ),
    count=512,
    correct=450,
    correct_fp32=454,
    samples_sha256="a" * 64,
    host=Machine(name="old", architecture="x86_64", instruction_sets=frozenset({"sse4_2"}), cores=2),
    threads=1,
)
LIMIT = Limit(max_drop=0.5, by="accuracy", evaluated=512)


class Search:
    """Chooses something that loses so many points with each room; says what a search that ends so says."""

    def __init__(self, staging: Path, points: list[float], ended_by: str = "goal") -> None:
        self.staging, self.points, self.ended_by = staging, points, ended_by
        self.rooms: list[float | None] = []

    def __call__(self, limit: Limit | None) -> str:
        assert not any(self.staging.iterdir()), "what the last one left would be shipped with this one"
        (self.staging / "model.onnx").touch()
        (self.staging / "weights").mkdir()
        points = self.points[len(self.rooms)]
        self.rooms.append(None if limit is None else limit.room)
        if limit is not None and points > limit.max_drop:
            raise self.refuse(points)
        return f"loses {points:g}"

    def refuse(self, points: float) -> OverLimitError:
        drop = Drop(by="accuracy", measure="accuracy", fp32=0.9, artifact=0.89, points=points, count=512)
        error = OverLimitError("it loses too much", replace(PROOF, drop=drop))
        error.recipe = {"search": {"ended_by": self.ended_by}} if self.ended_by else {}
        return error


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "staging").mkdir()
    return tmp_path / "staging"


def keep(search: Search, limit: Limit | None = LIMIT) -> tuple[str, list[str]]:
    return keep_within(limit, search, search.staging, lambda line: None)


def test_what_keeps_the_limit_is_judged_once(staging: Path) -> None:
    search = Search(staging, [0.4])
    assert keep(search) == ("loses 0.4", [])
    assert search.rooms == [ROOMS[0]] == [LIMIT.room]
    free = Search(staging.parent / "staging", [9.0])
    for entry in list(staging.iterdir()):
        entry.rmdir() if entry.is_dir() else entry.unlink()
    assert keep(free, None) == ("loses 9", [])
    assert free.rooms == [None]


def test_bad_luck_is_met_with_more_room_and_told(staging: Path) -> None:
    search = Search(staging, [0.781, 0.586, 0.2])
    made, told = keep(search)
    assert made == "loses 0.2"
    assert search.rooms == list(ROOMS) == sorted(ROOMS)
    assert "lost 0.781 and 0.586 points" in told[0]
    assert "these samples judged 3 artifacts" in told[0]


def test_what_never_keeps_it_is_refused_with_its_last_figures(staging: Path) -> None:
    search = Search(staging, [0.8, 0.7, 0.6])
    with pytest.raises(OverLimitError) as caught:
        keep(search)
    assert caught.value.proof.drop is not None
    assert caught.value.proof.drop.points == 0.6


@pytest.mark.parametrize("ended_by", ["candidates", "budget", ""])
def test_where_nothing_is_left_to_put_back_nothing_is_searched_again(staging: Path, ended_by: str) -> None:
    """A search that did not find what keeps the limit cannot keep a stricter one; a float target has none."""
    search = Search(staging, [0.8, 0.1], ended_by)
    with pytest.raises(OverLimitError):
        keep(search)
    assert len(search.rooms) == 1
