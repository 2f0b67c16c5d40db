"""Whether an installation is in order: versions, devices, the folders beside the library, optional parts."""

from __future__ import annotations

import importlib.machinery
import os
import re
import sys
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import jax
from rich.console import Console
from rich.markup import escape

from plasticity import cli

DISTRIBUTION = "plasticity-suite"
#: The folders that are run from a clone, as `python -m NAME`.
FOLDERS = ("tasks", "rl", "sweeps", "analysis")
ROOT = Path(__file__).resolve().parent.parent


def report(console: Console) -> int:
    """Print what was found; 1 if something will not work, else 0."""
    fault = devices(console)
    console.print("\n[bold]folders[/bold]")
    for name, found, fine in folders():
        fault |= not fine
        console.print(f"  {name:<10} {'[green]ok[/green]   ' if fine else '[red]fault[/red]'} {escape(found)}")
    console.print("\n[bold]compiled programs are kept in[/bold]")
    cli.use_compilation_cache()
    console.print(f"  {escape(str(jax.config.values['jax_compilation_cache_dir']))}")
    console.print("\n[bold]optional parts[/bold]")
    for extra, missing in sorted(missing_by_extra().items()):
        if missing:
            target = f"-e '.[{extra}]'" if is_clone() else f"'{DISTRIBUTION}[{extra}]'"
            console.print(f"  {extra:<10} lacks {escape(', '.join(missing))}: {escape(f'pip install {target}')}")
        else:
            console.print(f"  {extra:<10} [green]ok[/green]")
    return int(fault)


def devices(console: Console) -> bool:
    """Print versions and devices; True if JAX finds no device."""
    from plasticity.provenance import provenance

    try:
        facts = provenance()
    except RuntimeError as error:
        console.print(f"[red]fault[/red] JAX finds no device: {escape(str(error))}")
        return True
    console.print("[bold]versions[/bold]")
    console.print(f"  python {facts['python']}, " + ", ".join(f"{k} {v}" for k, v in facts["packages"].items()))
    console.print(f"  {escape(facts['platform'])}")
    console.print("\n[bold]devices[/bold]")
    console.print(f"  {facts['local_devices']} x {escape(facts['device'])} ({facts['backend']})")
    console.print(f"  {facts['cpu_cores']} CPU cores, matmul precision {facts['matmul_precision']}, x64 {facts['x64']}")
    return False


def is_clone() -> bool:
    """Whether the library lies in a clone, beside the folders that are run from there."""
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "sweeps").is_dir()


def folders() -> list[tuple[str, str, bool]]:
    """(name, what `python -m name` would find from the current folder, whether that is right) for each of `FOLDERS`."""
    if not is_clone():
        return [
            (name, "run from a clone of the project; the installed library works without it", True) for name in FOLDERS
        ]
    found = []
    for name in FOLDERS:
        # `python -m` puts the current folder first, whatever this process was started as.
        spec = importlib.machinery.PathFinder.find_spec(name, [os.getcwd(), *sys.path[1:]])
        places = [] if spec is None else [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
        if not (ROOT / name).is_dir():
            found.append((name, f"missing: {ROOT / name}", False))
        elif not (ROOT / name / "__main__.py").is_file():
            found.append((name, "there is nothing to run in it yet", True))
        elif not places:
            found.append((name, f"not found from here; run  python -m {name}  in {ROOT}", True))
        elif not Path(str(places[0])).resolve().is_relative_to(ROOT / name):
            found.append((name, f"shadowed by {places[0]}; run  python -m {name}  in {ROOT}", False))
        else:
            found.append((name, f"python -m {name}", True))
    return found


def missing_by_extra() -> dict[str, list[str]]:
    """For each optional part the distributions that are not installed. Accelerators are left to `devices`."""
    missing: dict[str, list[str]] = defaultdict(list)
    for extra, requirement in _requirements():
        name = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
        if extra.startswith("cuda") or name == DISTRIBUTION:
            continue
        try:
            metadata.version(name)
            missing[extra] += []
        except metadata.PackageNotFoundError:
            missing[extra].append(name)
    return dict(missing)


def _requirements() -> list[tuple[str, str]]:
    """(extra, requirement) pairs, from the installed metadata or, in a clone that is not installed, from pyproject."""
    if (ROOT / "pyproject.toml").is_file():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return [(extra, r) for extra, found in project["optional-dependencies"].items() for r in found]
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    matches = [(re.search(r"extra == ['\"]([\w-]+)['\"]", line), line) for line in lines]
    return [(match[1], line) for match, line in matches if match]
