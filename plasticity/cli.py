"""What every command line of the suite does alike: subcommands from functions, a user's mistake as a message."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tyro

from plasticity.errors import UserError


def run(
    prog: str, description: str, commands: Mapping[str, Callable[..., Any]], args: Sequence[str] | None = None
) -> int:
    """Run one of `commands` (tyro makes flags and help from signature and docstring) and return the exit code.

    0, or what the command returns; 2 for a mistake of the user, with the message on stderr and no traceback; 130 if
    interrupted.
    """
    try:
        code = tyro.extras.subcommand_cli_from_dict(dict(commands), prog=prog, description=description, args=args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; stay silent about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


def use_compilation_cache() -> None:
    """Keep compiled programs on disk between processes, unless the user has chosen a place or switched it off.

    The folder is `$JAX_COMPILATION_CACHE_DIR` or `~/.cache/plasticity-suite/xla`.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:  # pyrefly: ignore
        cache = os.path.join(
            os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "plasticity-suite", "xla"
        )
        jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
