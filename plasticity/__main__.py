"""The `plasticity` command: what the library holds, and whether this installation is in order.

plasticity list                  all families; or one: plasticity list mitigations
plasticity describe redo         formula, fields, reference of one member of any family
plasticity doctor                versions, devices, folders, optional parts
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import tyro
from rich.console import Console

from plasticity import cli
from plasticity.errors import unknown
from plasticity.registry import Family


def families() -> dict[str, Family[Any]]:
    """The families of configs by the plural name they have on the command line."""
    from plasticity.mitigations import mitigations
    from plasticity.networks import networks
    from plasticity.optimizers import optimizers

    return {"mitigations": mitigations, "networks": networks, "optimizers": optimizers}


def list_(family: tyro.conf.Positional[str] = "all") -> None:
    """List mitigations, diagnostics, networks or optimizers, with fields, defaults and reference.

    Args:
        family: mitigations, diagnostics, networks, optimizers, or all.
    """
    from plasticity.describe import config_row, diagnostic_row, listing, mitigation_row, standalone_row
    from plasticity.diagnostics import diagnostics, standalones

    configs = families()
    names = [*configs, "diagnostics"]
    if family not in ("all", *names):
        raise unknown("family", family, ("all", *names))
    console = Console(highlight=False)
    for name in names if family == "all" else [family]:
        if name == "diagnostics":
            rows = [diagnostic_row(member) for member in diagnostics().values()]
        else:
            row = mitigation_row if name == "mitigations" else config_row
            rows = [row(key, cls) for key, cls in configs[name].members().items()]
        console.print(listing(name, rows))
        if name == "diagnostics":
            alone = [standalone_row(member) for member in standalones().values()]
            console.print(listing("diagnostics that are called on their own", alone))
    console.print("plasticity describe NAME  shows one of them; task streams: python -m tasks list", style="dim")


def describe(name: tyro.conf.Positional[str]) -> None:
    """Show what a mitigation, diagnostic, network or optimizer is, its fields and its source.

    Args:
        name: a member of any family, as `list` shows it.
    """
    from plasticity.describe import describe_config, describe_diagnostic, describe_effects, describe_standalone
    from plasticity.diagnostics import diagnostics, standalones
    from plasticity.diagnostics.standalone import recorders

    console = Console(highlight=False)
    configs = families().values()
    measures, alone = diagnostics(), {**recorders(), **standalones()}
    known = {key for family in configs for key in family.members()} | set(measures) | set(alone)
    if name not in known:
        raise unknown("name", name, known)
    # A name may stand in more than one family; then each of them is shown.
    for family in configs:
        if name in family.members():
            cls = family.get(name)
            stage = getattr(cls, "stage", "")
            describe_config(console, name, cls, f"{family.singular}, stage {stage}" if stage else family.singular)
            if stage:
                console.print(f"\ncost: {cls.cost}")
                describe_effects(console, name)
    if name in measures:
        describe_diagnostic(console, measures[name])
    if name in alone:
        describe_standalone(console, alone[name])


def doctor() -> int:
    """Check this installation: versions, devices, folders, optional parts. The exit code is 1 on a fault."""
    from plasticity.doctor import report

    return report(Console(highlight=False))


COMMANDS = {"list": list_, "describe": describe, "doctor": doctor}


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 2 for a mistake of the user."""
    return cli.run("plasticity", "Loss of plasticity: mitigations and diagnostics.", COMMANDS, args)


if __name__ == "__main__":
    sys.exit(main())
