"""`modelwright targets`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from modelwright.cli import options

if TYPE_CHECKING:
    from modelwright.targets.contract import TargetOption, TargetRecord
    from modelwright.targets.readiness import Readiness


@click.command(short_help="Say what can be built and run here; if not, why.")
@click.argument("name", required=False)
@options.profile_option
@options.json_option
def targets(name: str | None, profile: str, as_json: bool) -> int:
    """Say of each target whether it can be built and run here; if not, which package or hardware is missing.

    With NAME, only of that target, with its build options and the settings that it can be run with.

    \b
    Examples:
      modelwright targets
      modelwright targets tensorrt-rtx-int8 --profile rtx-4090
    """
    from modelwright.cli.printing import print_json
    from modelwright.profiles import detect_host, load_profile
    from modelwright.targets.table import get_target, target_names

    host = detect_host()
    machine = (host if profile == "host" else load_profile(profile)).machine()
    rows = []
    for each in target_names() if name is None else (name,):
        target = get_target(each)
        rows.append((target.record, target.check_build(machine), target.check_run(host.machine())))
    if as_json:
        print_json([_to_dict(*row) for row in rows])
        return 0
    width = max(len(record.name) for record, _, _ in rows) + 2
    click.echo(f"{'target':{width}} {'build':6} {'run':4} {'runtime and precision'}")
    for index, (record, build, run) in enumerate(rows):
        yes_no = ("yes" if build.ok else "no", "yes" if run.ok else "no")
        click.echo(f"{record.name:{width}} {yes_no[0]:6} {yes_no[1]:4} {record.title}")
        # Several precisions of one runtime mostly lack the same thing: it is said once, under the last of them.
        if index + 1 == len(rows) or rows[index + 1][1:] != (build, run):
            _print_reasons(build, run)
    if name is not None:
        _print_options("Build options, for --option NAME=VALUE", "No build options.", rows[0][0].options)
        _print_options("Settings of a run, for --setting NAME=VALUE", "No settings of a run.", rows[0][0].settings)
    return 0


def _print_reasons(build: Readiness, run: Readiness) -> None:
    said = set()
    for what, readiness in (("build", build), ("run", run)):
        if readiness.reason and readiness.reason not in said:
            said.add(readiness.reason)
            click.echo(f"    {what}: {readiness.reason}")
            if readiness.hint:
                click.echo(f"      -> {readiness.hint}")


def _to_dict(record: TargetRecord, build: Readiness, run: Readiness) -> dict[str, object]:
    return {
        "target": record.name,
        "title": record.title,
        "devices": list(record.devices),
        "build": {"ok": build.ok, "reason": build.reason, "hint": build.hint},
        "run": {"ok": run.ok, "reason": run.reason, "hint": run.hint},
        "options": [_option_to_dict(option) for option in record.options],
        "settings": [
            {
                **_option_to_dict(option),
                "vendor_name": option.vendor_name,
                "changes_answers": option.changes_answers,
            }
            for option in record.settings
        ],
    }


def _option_to_dict(option: TargetOption) -> dict[str, object]:
    from modelwright.targets.options import describe_values

    return {"name": option.name, "values": describe_values(option), "default": option.default, "help": option.help}


def _print_options(title: str, none: str, options: Sequence[TargetOption]) -> None:
    if not options:
        click.echo(f"\n{none}")
        return
    from modelwright.targets.options import describe_value, describe_values

    click.echo(f"\n{title}:")
    for option in options:
        default = "the vendor's" if option.default is None else describe_value(option.default)
        click.echo(f"  {option.name}={describe_values(option)}  [{default}]")
        click.echo(click.wrap_text(option.help, width=78, initial_indent="      ", subsequent_indent="      "))
