"""`modelwright targets`."""

from __future__ import annotations

import click

from modelwright.cli import options


@click.command(short_help="Say what can be built and run here; if not, why.")
@options.profile_option
@options.json_option
def targets(profile: str, as_json: bool) -> int:
    """Say of each target whether it can be built and run here; if not, which package or hardware is missing."""
    from modelwright.cli.printing import print_json
    from modelwright.profiles import detect_host, load_profile
    from modelwright.targets.table import get_target, target_names

    host = detect_host()
    machine = (host if profile == "host" else load_profile(profile)).machine()
    rows = []
    for name in target_names():
        target = get_target(name)
        can_build, can_run = target.check_build(machine), target.check_run(host.machine())
        rows.append((name, target.record, can_build, can_run))
    if as_json:
        print_json(
            [
                {
                    "target": name,
                    "title": record.title,
                    "build": {"ok": build.ok, "reason": build.reason, "hint": build.hint},
                    "run": {"ok": run.ok, "reason": run.reason, "hint": run.hint},
                }
                for name, record, build, run in rows
            ]
        )
        return 0
    click.echo(f"{'target':21} {'build':6} {'run':4} {'runtime and precision'}")
    for name, record, build, run in rows:
        yes_no = ("yes" if build.ok else "no", "yes" if run.ok else "no")
        click.echo(f"{name:21} {yes_no[0]:6} {yes_no[1]:4} {record.title}")
        said = set()
        for what, readiness in (("build", build), ("run", run)):
            if readiness.reason and readiness.reason not in said:
                said.add(readiness.reason)
                click.echo(f"{'':21} {what}: {readiness.reason}")
                if readiness.hint:
                    click.echo(f"{'':21}   -> {readiness.hint}")
    return 0
