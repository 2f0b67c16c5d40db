"""The one exception that means "the input is wrong", as opposed to "the program is wrong".

Every command line turns a `UserError` into its message and exit code 2, without a traceback. Messages
name the value, what is allowed and, where there is one, the nearest match.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input: a spec, a value, a file or a folder that cannot be used as given."""


def unknown(kind: str, value: str, allowed: Iterable[str]) -> UserError:
    """The error for a name that is not one of `allowed`, with the nearest match if there is one."""
    names = sorted(allowed)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"unknown {kind} {value!r}.{hint} Allowed: {', '.join(names) or '(none)'}")
