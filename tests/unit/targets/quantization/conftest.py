"""What tests of the search share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scripted_search import SIGNATURE

from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.targets.quantization.judge import Judge


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    rows = np.random.default_rng(0).standard_normal((40, 2)).astype(np.float32)
    np.savez(tmp_path / "s.npz", x=rows)
    samples = open_samples(SampleRef(path=tmp_path / "s.npz", part="all"), SIGNATURE)
    reference = [{"y": feeds["x"]} for feeds in samples.feeds()]
    roles = {"y": OutputRole(name="y", role="regression", why="two numbers", axis=1)}
    return Judge(samples=samples, part="tuning", reference=reference, roles=roles)
