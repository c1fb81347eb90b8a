"""An environment for each peer, made of its pinned requirements in a cache folder; ours is never touched."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "recipes" / "requirements"
MARKER = "complete"


class NoEnvironmentError(Exception):
    """Its packages could not be installed; says why in a line."""


def find_or_make(name: str, cache: Path) -> Path:
    """Returns the Python of an environment, installing it the first time.

    Args:
        name: Of a file in `recipes/requirements`, whose hash is in the folder's name. It pins all that is imported, and
            nothing else is installed: some packages ask for more than the part used here needs.
        cache: Folder for all environments.

    Raises:
        NoEnvironmentError: pip's last line.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / MARKER).exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--ignore-requires-python", "-r", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NoEnvironmentError(f"does not install: {lines[-1] if lines else done.returncode}")
    (folder / MARKER).touch()
    return python
