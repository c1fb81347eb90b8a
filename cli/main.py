"""The `modelwright` command: the list of commands, and the one place where errors become output."""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

import click

from modelwright.core.errors import ModelwrightError

INTERRUPTED = 130
"""What shells give a command that Ctrl-C ended: 128 + SIGINT."""

_COMMANDS = {
    "demo": "Run everything on the embedded example and show what comes out.",
    "targets": "Say what can be built and run here; if not, why.",
    "profiles": "List hardware profiles and which of them this machine fits.",
    "export": "Turn a source into a verified ONNX model.",
    "build": "Build artifacts for one or more targets, each proved against FP32.",
    "measure": "Measure artifacts on this machine, side by side.",
    "compare": "Build every target of a model, measure them side by side, say which to ship.",
    "inspect": "Show what an artifact is and how it was made.",
    "verify": "Check an artifact's hashes and whether this machine can run it.",
}

_EPILOG = """\b
Exit codes: 0 done, 2 usage, 3 bad input, 4 toolchain missing, 5 build failed,
6 measurement invalid, 7 a limit you set was not met, 130 interrupted.

\b
Start with:  modelwright demo
Then:        modelwright compare model.onnx --samples samples.npz --out comparison
"""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(importlib.import_module(f"modelwright.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    import importlib.metadata

    click.echo(f"modelwright {importlib.metadata.version('modelwright')}")
    ctx.exit()


@click.group(cls=_LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Version.")
def cli() -> None:
    """One FP32 model in; artifacts for every runtime out, proved and measured.

    modelwright exports a trained model to ONNX, builds INT8, BF16 and FP16 artifacts for ONNX Runtime, OpenVINO and
    TFLite, proves each against the FP32 model on your own samples, measures all of them side by side on the hardware
    they are for, and says which to ship and why.
    """


def main() -> None:
    """Runs the command line and ends the process with the documented exit code."""
    try:
        result: Any = cli.main(standalone_mode=False)
        sys.exit(result if isinstance(result, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ModelwrightError as error:
        _show_error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what was finished is kept; the same command goes on from there", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; writing to it again at exit must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _show_error(error: ModelwrightError) -> None:
    """Prints an error: for people on standard error; for machines, with `--json`, on standard output."""
    if "--json" in sys.argv:
        click.echo(json.dumps({"error": {**error.to_dict(), "exit_code": error.exit_code}}))
        return
    click.echo(f"{click.style('error:', fg='red', bold=True)} {error.message}", err=True)
    if error.detail:
        lines = error.detail.strip().splitlines()
        for line in lines[-12:]:
            click.echo(click.style(f"  | {line}", dim=True), err=True)
    if error.hint:
        click.echo(f"{click.style('hint:', bold=True)} {error.hint}", err=True)


if __name__ == "__main__":
    main()
