"""Which revision of this repository results are of."""

from __future__ import annotations

import subprocess
from pathlib import Path


def find_revision() -> str:
    """Returns the short hash of the last commit, or `unknown` outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
