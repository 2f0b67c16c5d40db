"""What an optimiser's state says: the sizes of its moments, and the size of the step that they ask for.

With first moment m and second moment v of an Adam-like state, t its step count, entry by entry:

    first moment norm    ||m||_2                     second moment norm    ||v||_2           0 .. inf
    moment ratio mean    mean |m^| / sqrt(v^)        moment ratio max      the largest       0 .. inf
    m^ = m / (1 - b1^t),  v^ = v / (1 - b2^t)

The ratio is the step in units of the learning rate (without eps; an entry with v = 0, where eps rules the step,
counts 0): 1 under a constant gradient, less where the gradient's sign changes. Just after a switch of tasks, or a
reset of moments under a shared count, single entries rise to several times that (at most (1 - b1) / sqrt(1 - b2) =
3.16 on the step itself for b1 = .9, b2 = .999, and 6.6 within twelve): the mean hides it, the largest shows it.

`moments_of` finds the moments in any optax state: inside chains, `inject_hyperparams`, masks, `multi_transform`,
`MultiSteps`, and this suite's Adam with a count per entry. It goes by the fields' names: `mu` and `nu` with `count`
(Adam, AdamW, NAdam, AdaBelief, Lion has `mu` only), `trace` (momentum) as a first moment, `nu` alone (RMSProp) as a
second. optax does not store b1 and b2, which correct the bias: they are the thresholds `adam_b1` and `adam_b2`,
unless `inject_hyperparams` holds them or there is a count per entry, which brings its own correction. Without a
count nothing is corrected. A factored second moment (Adafactor) is none of these.

A layer is a top-level key of the moments, as of the parameters. If several parts of a state hold moments (one for each
group of a `multi_transform`), entries of all parts count. Cost: a pass over the moments.

Reference: Kingma & Ba 2015 (arXiv:1412.6980); steps after switches: Lyle et al. 2023 (arXiv:2303.01486).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from plasticity.diagnostics.arrays import Scalar, safe_ratio
from plasticity.diagnostics.base import Observation, Reading, Unmet, diagnostic
from plasticity.diagnostics.norms import as_float, by_layer, norm

_ADAM = "Kingma & Ba 2015, arXiv:1412.6980"
_LYLE = "Lyle et al. 2023, arXiv:2303.01486"


class OptimizerMoments(NamedTuple):
    """Moments of one part of a state as trees like the parameters; None for what the optimiser does not keep.

    first_mass, second_mass: 1 - b^t, scalars or trees like the moments, which the moments are divided by.
    """

    first: Any
    second: Any
    first_mass: Any
    second_mass: Any


def _has_moments(node: Any) -> bool:
    names = getattr(node, "_fields", ())
    return "mu" in names or "nu" in names or "trace" in names


def _holds_hyperparams(node: Any) -> bool:
    return isinstance(getattr(node, "hyperparams", None), Mapping) and hasattr(node, "inner_state")


def _parts(state: Any, decays: Mapping[str, Any]) -> Iterator[OptimizerMoments]:
    leaves = jax.tree.leaves(state, is_leaf=lambda node: _has_moments(node) or _holds_hyperparams(node))
    for node in leaves:
        if _holds_hyperparams(node):
            own = {key: node.hyperparams.get(key, decays[key]) for key in decays}
            yield from _parts(node.inner_state, own)
        elif _has_moments(node):
            first = getattr(node, "mu", getattr(node, "trace", None))
            second = getattr(node, "nu", None)
            # Among its fields, because every tuple has a method of that name.
            count = node.count if "count" in node._fields else None

            def mass(name: str, decay: str, node: Any = node, count: Any = count) -> Any:
                own = getattr(node, name, None)
                return own if own is not None else 1.0 if count is None else 1 - jnp.asarray(decays[decay]) ** count

            yield OptimizerMoments(first, second, mass("mu_mass", "b1"), mass("nu_mass", "b2"))


def moments_of(opt_state: Any, adam_b1: Any = 0.9, adam_b2: Any = 0.999) -> list[OptimizerMoments]:
    """The moments in an optax state, one record for each part of it that holds some, in order.

    Raises `Unmet`, a `UserError`, if no part does (plain SGD, Adafactor, or not an optimiser's state).
    """
    found = list(_parts(opt_state, {"b1": adam_b1, "b2": adam_b2}))
    if not found:
        kinds = ", ".join(sorted({type(node).__name__ for node in _nodes(opt_state)}))
        raise Unmet(
            "opt_state holds no moments: no part of it has a field mu, nu or trace, as Adam, RMSProp, momentum have; "
            f"it is made of {kinds or 'nothing'}"
        )
    return found


def _nodes(state: Any) -> Iterator[Any]:
    """The state's own parts: named tuples, down to the first level that is not a plain tuple, list or dict."""
    if isinstance(state, Mapping):
        state = tuple(state.values())
    if isinstance(state, tuple | list) and not hasattr(state, "_fields"):
        for inner in state:
            yield from _nodes(inner)
    elif state is not None:
        yield state


def moment_ratios(part: OptimizerMoments) -> Any:
    """|m^| / sqrt(v^) of each entry, a tree like the moments. An entry with v = 0 counts 0."""

    def ratio(m: Array, v: Array, m_mass: Any, v_mass: Any) -> Array:
        m_hat = safe_ratio(jnp.abs(as_float(m)), as_float(m_mass))
        v_hat = safe_ratio(as_float(v), as_float(v_mass))
        # Squares of gradients below 1e-23 are 0 in float32, while the gradients are not.
        return jnp.where(v_hat == 0, 0.0, m_hat / jnp.sqrt(jnp.where(v_hat == 0, 1.0, v_hat)))

    first, structure = jax.tree.flatten(part.first)
    second = jax.tree.leaves(part.second)
    masses = [_spread(mass, structure) for mass in (part.first_mass, part.second_mass)]
    return structure.unflatten([ratio(*entry) for entry in zip(first, second, *masses, strict=True)])


def _spread(mass: Any, structure: Any) -> list[Any]:
    leaves = jax.tree.leaves(mass)
    same = structure.num_leaves > 0 and jax.tree.structure(mass) == structure
    return leaves if same else leaves * structure.num_leaves


def _collected(trees: list[Any]) -> tuple[list[Array], dict[str, list[Array]]]:
    """All leaves of some trees, and those of each layer."""
    layers: dict[str, list[Array]] = {}
    for tree in trees:
        for name, leaves in by_layer(tree).items():
            layers.setdefault(name, []).extend(leaves)
    return [as_float(leaf) for leaf in jax.tree.leaves(trees)], layers


def _moment_norm(seen: Observation, which: str) -> Reading:
    trees = [tree for part in moments_of(seen.opt_state) if (tree := getattr(part, which)) is not None]
    if not trees:
        raise Unmet(f"opt_state= holds no {which} moment")
    leaves, layers = _collected(trees)
    return Reading(norm(leaves), {name: norm(own) for name, own in layers.items()})


def _ratios(seen: Observation, adam_b1: Any, adam_b2: Any) -> tuple[list[Array], dict[str, list[Array]]]:
    parts = moments_of(seen.opt_state, adam_b1, adam_b2)
    both = [part for part in parts if part.first is not None and part.second is not None]
    if not both:
        raise Unmet("opt_state= holds no part with both a first and a second moment, as Adam's has")
    return _collected([moment_ratios(part) for part in both])


def _mean(leaves: list[Array]) -> Scalar:
    entries = sum(leaf.size for leaf in leaves)
    total = sum((jnp.sum(leaf) for leaf in leaves), start=jnp.zeros(()))
    return total / entries if entries else jnp.array(jnp.nan)


def _max(leaves: list[Array]) -> Scalar:
    largest = [jnp.max(leaf) for leaf in leaves if leaf.size]
    return jnp.max(jnp.stack(largest)) if largest else jnp.array(jnp.nan)


@diagnostic(
    name="first_moment_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("opt_state",),
    cost="one pass over the moments",
    reference=_ADAM,
)
def _first_moment_norm(seen: Observation) -> Reading:
    """L2 norm of the optimiser's first moment (Adam's mu, momentum's trace), not bias-corrected."""
    return _moment_norm(seen, "first")


@diagnostic(
    name="second_moment_norm",
    unit="L2 norm",
    range=(0, float("inf")),
    needs=("opt_state",),
    cost="one pass over the moments",
    reference=_ADAM,
)
def _second_moment_norm(seen: Observation) -> Reading:
    """L2 norm of the optimiser's second moment (Adam's and RMSProp's nu), not bias-corrected."""
    return _moment_norm(seen, "second")


@diagnostic(
    name="moment_ratio_mean",
    unit="learning rates",
    range=(0, float("inf")),
    needs=("opt_state",),
    cost="one pass over the moments",
    reference=_LYLE,
)
def _moment_ratio_mean(seen: Observation, *, adam_b1: float = 0.9, adam_b2: float = 0.999) -> Reading:
    """Mean over entries of |m^| / sqrt(v^), the size of Adam's next step in learning rates, without eps."""
    leaves, layers = _ratios(seen, adam_b1, adam_b2)
    return Reading(_mean(leaves), {name: _mean(own) for name, own in layers.items()})


@diagnostic(
    name="moment_ratio_max",
    unit="learning rates",
    range=(0, float("inf")),
    needs=("opt_state",),
    cost="one pass over the moments",
    reference=_LYLE,
)
def _moment_ratio_max(seen: Observation, *, adam_b1: float = 0.9, adam_b2: float = 0.999) -> Reading:
    """Largest |m^| / sqrt(v^) over entries: rises to several times 1 where moments and count do not fit each other."""
    leaves, layers = _ratios(seen, adam_b1, adam_b2)
    return Reading(_max(leaves), {name: _max(own) for name, own in layers.items()})
