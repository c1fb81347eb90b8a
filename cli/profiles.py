"""`modelwright profiles`."""

from __future__ import annotations

import click

from modelwright.cli import options


@click.command(short_help="List hardware profiles and which this machine fits.")
@click.argument("name", required=False)
@options.json_option
def profiles(name: str | None, as_json: bool) -> int:
    """List the built-in hardware profiles and which of them this machine fits, or show the one called NAME.

    `host` is this machine as detected. A path to a .toml file of your own works wherever a name does.

    \b
    Examples:
      modelwright profiles
      modelwright profiles rtx-4090
    """
    from modelwright.cli.printing import print_json
    from modelwright.profiles import Profile, builtin_profiles, detect_host, explain_misfit, load_profile
    from modelwright.targets.table import suiting_targets

    def describe(profile: Profile) -> dict[str, object]:
        return {**profile.to_dict(), "targets": list(suiting_targets(profile.machine()))}

    host = detect_host()
    if name is not None:
        print_json(describe(load_profile(name)))
        return 0
    rows = [(profile, explain_misfit(profile, host)) for profile in builtin_profiles()]
    if as_json:
        print_json([{**describe(profile), "fits": not reasons, "reasons": reasons} for profile, reasons in rows])
        return 0
    kind = {True: ", virtual machine", False: ", bare metal", None: ""}[host.virtual_machine]
    click.echo(f"host: {host.board or host.cpu_model or host.architecture}, {host.cores} cores{kind}")
    sets = ", ".join(sorted(host.machine().instruction_sets)) or "no instruction sets of note"
    click.echo(click.wrap_text(sets, width=80, initial_indent=" " * 6, subsequent_indent=" " * 6))
    meters = ", ".join(host.meters) or "none readable" + "".join(f" ({reason})" for reason in host.meters_denied)
    click.echo(f"      meters: {meters}\n")
    for profile, reasons in rows:
        mark = "fits" if not reasons else "    "
        click.echo(f"{mark}  {profile.name:20} {profile.title}")
        if reasons:
            click.echo(f"{'':27}not here: {reasons[0]}")
    return 0
