"""A process that answers lines with lines: a vendor's runtime behind it can die without taking anyone along."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.core.errors import MeasurementInvalidError
from modelwright.harness.run.runner import ENVIRONMENT


class LoopFailedError(MeasurementInvalidError):
    """A runtime could not load or run a file; says what it printed last."""


class LineProcess:
    """One process with one file, which says `ready` once it is loaded.

    Args:
        name: Of what it runs.
        command: Of the process; the path of its specification follows.
        spec: That specification, in JSON values.
        scratch: Folder for what is handed over.
        environment: Of the process, beside what every measured one gets.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        spec: Mapping[str, Any],
        scratch: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        stem = "".join(character if character.isalnum() else "-" for character in name)
        self.answers = scratch / f"{stem}.npz"
        self._log = scratch / f"{stem}.log"
        path = scratch / f"{stem}.json"
        path.write_text(json.dumps(spec))
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, str(path)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env={**ENVIRONMENT, "PATH": "/usr/bin:/bin", **environment},
            )  # fmt: skip
        try:
            self._read()
        except LoopFailedError:
            self.close()
            raise

    def ask(self, order: str) -> str:
        """Sends a line and returns the one that comes back.

        Raises:
            LoopFailedError: It ended instead.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{order}\n")
            self._process.stdin.flush()
        except OSError:
            self._fail()
        return self._read()

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return line

    def _fail(self) -> None:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        raise LoopFailedError(lines[-1][:300] if lines else "it ended without a word")
