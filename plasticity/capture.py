"""Read intermediate values out of anybody's model: `tap` marks one, `capture` returns all that were marked.

    def loss(params, x):
        pre = tap("hidden/pre", x @ params["w"])
        return jnp.mean(tap("hidden/post", jax.nn.relu(pre)))

    value, taps = capture(loss)(params, x)  # taps == {"hidden/pre": ..., "hidden/post": ...}

A tap is an identity that JAX keeps in its traced programs (`jax.ad_checkpoint.checkpoint_name`), so it works in
Linen, NNX, Equinox, Haiku and plain functions. `capture` traces the function, adds the tapped values to the
outputs of the traced program, and runs that. The captured function may itself be under `jit`, `vmap` or `grad`;
the tapped code may lie within `jit`, `vmap`, `grad`, `value_and_grad` or `checkpoint`.

What the caller should know:
- Each call traces anew and, outside of `jit`, runs operation by operation: wrap the result in `jax.jit` for speed.
- A value that is tapped within a `vmap` has the mapped axis too, usually but not always in front.
- Use what `tap` returns. A tap whose result is dropped may vanish when the program is differentiated.
- `scan`, `while` and `cond` keep their values to themselves, and taps within a `custom_jvp` or `custom_vjp`
  function would cost it its rule: both raise a `UserError` that names the tap. So does a name that is reached twice.
- A `jit` or `checkpoint` with taps in it is inlined: its sharding annotations, or its saving of memory when the
  captured function is differentiated from outside, are lost. Without taps they stay as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from plasticity.errors import UserError

X = TypeVar("X")

#: Tells taps from the names that others give to values for rematerialisation policies.
_PREFIX = "plasticity.tap:"
#: Calls whose body may stand in place of the call, and the parameter that holds the body. Old and new names.
_INLINED = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
}


def tap(name: str, x: X) -> X:
    """Mark an array under a name and return it unchanged; `capture` finds it there.

    A name may be reached once a program. Raises `UserError` if `x` is not a single array.
    """
    if not jax.tree_util.all_leaves([x]):
        raise UserError(f"tap {name!r} takes one array, got {type(x).__name__}: tap its parts under their own names")
    return checkpoint_name(x, _PREFIX + name)


def capture(fn: Callable[..., Any]) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """`capture(fn)(*args, **kwargs)` returns `(fn(*args, **kwargs), {name: tapped value})`.

    `fn` is traced, as under `jit`: it may return arrays and trees of arrays only. Its arguments may be anything. Taps
    come in the order in which they are reached. Raises `UserError` for a tap that cannot leave its place and for
    a name that is reached twice.
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> tuple[Any, dict[str, jax.Array]]:
        # The arguments are closed over: so they may be anything, and tracers from outside pass as constants.
        closed, shapes = jax.make_jaxpr(lambda: fn(*args, **kwargs), return_shape=True)()
        results, tree = closed.jaxpr.outvars, jax.tree.structure(shapes)
        program = _Program(closed)
        values = program([program.named(atom, program.top) for atom in results] + list(program.taps.values()))
        taps = dict(zip(program.taps, values[len(results) :], strict=True))
        return jax.tree.unflatten(tree, values[: len(results)]), taps

    return run


class _Program:
    """A traced program without arguments, in which the calls around taps are inlined.

    taps: name -> the variable or literal that holds the value. top: what stands for the variables that inlining
    replaced.
    """

    def __init__(self, closed: Any) -> None:
        self.jaxpr = closed.jaxpr
        self.taps: dict[str, Any] = {}
        self.top: dict[Any, Any] = {}
        self._constants: list[Any] = list(closed.jaxpr.constvars)
        self._values: list[Any] = list(closed.consts)
        self._equations: list[Any] = []
        self._read(closed.jaxpr, self.top, inner=False)

    def __call__(self, outputs: list[Any]) -> list[Any]:
        """Run the program for these variables and literals."""
        jaxpr = self.jaxpr.replace(constvars=[], invars=self._constants, outvars=outputs, eqns=self._equations)
        values = core.jaxpr_as_fun(core.ClosedJaxpr(jaxpr, []))(*self._values)
        # A Python number comes back as such from a traced program.
        return [
            value if isinstance(value, jax.Array) else jnp.asarray(value, atom.aval.dtype)
            for atom, value in zip(outputs, values, strict=True)
        ]

    @staticmethod
    def named(atom: Any, names: dict[Any, Any]) -> Any:
        """What stands for a variable here; a literal, or a variable that was not replaced, stands for itself."""
        return atom if isinstance(atom, core.Literal) else names.get(atom, atom)

    def _read(self, jaxpr: Any, names: dict[Any, Any], inner: bool) -> None:
        """Append the equations of `jaxpr`. Inner variables get new names: derived programs share variables."""
        for eqn in jaxpr.eqns:
            inputs = [self.named(atom, names) for atom in eqn.invars]
            kind = eqn.primitive.name
            if within := _taps_within(eqn):
                if kind not in _INLINED:
                    raise UserError(
                        f"tap {within[0]!r} lies within a {kind} of JAX, which its value cannot leave: "
                        "make it an output there and tap that output outside"
                    )
                self._inline(eqn, inputs, names)
                continue
            if inner:
                names |= {var: core.Var(var.aval) for var in eqn.outvars if not isinstance(var, core.DropVar)}
            if (name := _tap_name(eqn)) is not None:
                if name in self.taps:
                    raise UserError(f"tap {name!r} is reached twice in one program: give each place its own name")
                self.taps[name] = inputs[0]
            outputs = [names.get(var, var) for var in eqn.outvars]
            self._equations.append(eqn.replace(invars=inputs, outvars=outputs))

    def _inline(self, eqn: Any, inputs: list[Any], names: dict[Any, Any]) -> None:
        """Append the body of a call instead of the call."""
        body = eqn.params[_INLINED[eqn.primitive.name]]
        jaxpr = getattr(body, "jaxpr", body)
        own = dict(zip(jaxpr.invars, inputs, strict=True))
        for var, value in zip(jaxpr.constvars, getattr(body, "consts", ()), strict=True):
            own[var] = core.Var(var.aval)
            self._constants.append(own[var])
            self._values.append(value)
        self._read(jaxpr, own, inner=True)
        names |= {var: self.named(atom, own) for var, atom in zip(eqn.outvars, jaxpr.outvars, strict=True)}


def _tap_name(eqn: Any) -> str | None:
    """The name of a tap, or None for any other equation."""
    name = eqn.params.get("name")
    if eqn.primitive.name != "name" or not name.startswith(_PREFIX):
        return None
    return name.removeprefix(_PREFIX)


def _taps_within(eqn: Any) -> list[str]:
    """Names of the taps anywhere inside the programs that an equation holds, in the order of the program.

    The backward pass of `checkpoint` computes the forward pass again: those taps have been reached before.
    """
    if eqn.params.get("differentiated"):
        return []
    names: list[str] = []
    for jaxpr in core.jaxprs_in_params(eqn.params):
        for inner in jaxpr.eqns:
            name = _tap_name(inner)
            names += [name] if name is not None else _taps_within(inner)
    return names
