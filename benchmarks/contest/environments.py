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
            nothing else is installed: some packages ask for more than the part used here needs. A file `NAME.npm`
            beside it names packages of Node.js, whose files the peer loads from `node_modules`.
        cache: Folder for all environments.

    Raises:
        NoEnvironmentError: The installer's last line.
    """
    requirements, node_packages = REQUIREMENTS / f"{name}.txt", REQUIREMENTS / f"{name}.npm"
    pins = [path.read_bytes() for path in (requirements, node_packages) if path.exists()]
    digest = hashlib.sha256(b"".join(pins)).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    python = folder / "bin" / "python"
    if (folder / MARKER).exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    _install([*command, "--ignore-requires-python", "-r", str(requirements)])
    if node_packages.exists():
        command = ["npm", "install", "--silent", "--ignore-scripts", "--no-save", "--prefix", str(folder)]
        _install([*command, *node_packages.read_text().split()])
    (folder / MARKER).touch()
    return python


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoEnvironmentError(f"does not install: {command[0]} is not on this machine") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise NoEnvironmentError(f"does not install: {lines[-1] if lines else done.returncode}")
