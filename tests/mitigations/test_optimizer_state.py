"""The optimiser's state when single entries are reset: through optax's wrappers, entry by entry, or a clear refusal."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity.errors import UserError
from plasticity.mitigations.recycling import Kept, initial_state, reset_state
from plasticity.optimizers import optimizers
from plasticity.spec import build_one

RNG = np.random.default_rng(0)
SHAPES = {"dense": {"kernel": (3, 4), "bias": (4,)}, "out": {"kernel": (4, 2), "bias": (2,)}}


def tree(draw):
    return jax.tree.map(draw, SHAPES, is_leaf=lambda node: isinstance(node, tuple))


def floats():
    return tree(lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32))


PARAMS, GRADS, NEW = floats(), [floats() for _ in range(5)], floats()
TOUCHED = tree(lambda shape: jnp.asarray(RNG.random(shape) < 0.4))


def labels_by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim == 2 else "vector", params)


def labels_by_name(params):
    """A function that indexes the tree: it fails on a tree of placeholders, as `optax.tree_map_params` would give."""
    return {name: {"kernel": "matrix", "bias": "vector"} for name in (params["dense"] and params)}


def split(labels):
    # Masked leaves, and for `labels` of whole subtrees masked subtrees.
    return optax.multi_transform({"matrix": optax.adam(0.1), "vector": optax.sgd(0.1, momentum=0.9)}, labels)


MATRICES = jax.tree.map(lambda p: p.ndim == 2, PARAMS)
# Name -> (optimiser, how many values its state has for single entries). 20 of the 26 parameters are in matrices.
RESETTABLE = {
    "adam": (optax.adam(0.1), 2 * 26),
    "adamw": (optax.adamw(0.1), 2 * 26),
    "amsgrad": (optax.amsgrad(0.1), 3 * 26),
    "chain(clip, adamw)": (optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1)), 2 * 26),
    "rmsprop": (optax.rmsprop(0.1), 1 * 26),
    "rmsprop centred, momentum": (optax.rmsprop(0.1, centered=True, momentum=0.9), 3 * 26),
    "sgd": (optax.sgd(0.1, momentum=0.9), 1 * 26),
    "adagrad": (optax.adagrad(0.1), 1 * 26),  # which starts at 0.1, not at 0
    "masked by a tree": (optax.masked(optax.adam(0.1), MATRICES), 2 * 20),
    "masked by a function": (optax.masked(optax.adam(0.1), lambda p: jax.tree.map(lambda x: x.ndim == 2, p)), 2 * 20),
    "masked subtree": (optax.masked(optax.adam(0.1), {"dense": True, "out": False}), 2 * 16),
    "multi_transform": (split(labels_by_rank), 2 * 20 + 6),
    "multi_transform by name": (split(labels_by_name), 2 * 20 + 6),
    "multi_transform by a tree": (split({"dense": "matrix", "out": "vector"}), 2 * 16 + 10),
    "inject_hyperparams": (optax.inject_hyperparams(optax.adamw)(optax.linear_schedule(0.1, 0.0, 10)), 2 * 26),
    "muon": (optax.contrib.muon(0.1), 20 + 2 * 6),
    "MultiSteps": (optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation(), 3 * 26),
    "apply_if_finite": (optax.apply_if_finite(optax.adam(0.1), 3), 2 * 26),
    "bfloat16 moments": (optax.adam(0.1, mu_dtype=jnp.bfloat16), 2 * 26),
    "schedule_free": (optax.contrib.schedule_free_sgd(0.1), 1 * 26),  # z copies the parameters
    **{
        f"suite {spec}": (build_one(spec, optimizers).build(per_entry=True), trees * 26)
        for spec, trees in {"adam": 4, "sgd(momentum=0.9)": 1, "rmsprop": 1, "rmsprop(centered=true)": 2}.items()
    },
}


def after_training(tx):
    state, params = tx.init(PARAMS), PARAMS
    for grads in GRADS:
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return state


def named_leaves(state):
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


MASKS = named_leaves(TOUCHED)


def parameter_of(name):
    """The parameter of which a leaf of a state keeps something, by the end of its path; None for counts."""
    return next((suffix for suffix in MASKS if name.endswith(suffix)), None)


@pytest.mark.parametrize("name", RESETTABLE)
def test_exactly_the_touched_entries_restart_and_all_else_stays_to_the_bit(name):
    tx, entries = RESETTABLE[name]
    state = after_training(tx)
    before, fresh = named_leaves(state), named_leaves(tx.init(NEW))
    after = named_leaves(jax.jit(partial(reset_state, tx))(state, TOUCHED, NEW))
    assert before.keys() == after.keys()
    seen = 0
    for leaf, value in after.items():
        owner = parameter_of(leaf)
        if owner is None:
            np.testing.assert_array_equal(value, before[leaf])
            continue
        seen += value.size
        mask = MASKS[owner]
        np.testing.assert_array_equal(value[~mask], before[leaf][~mask])
        np.testing.assert_array_equal(value[mask], fresh[leaf][mask])
        # There was something to reset, and something else to leave alone.
        assert np.all(before[leaf][mask] != fresh[leaf][mask])
    assert seen == entries


def test_moments_become_zero_and_copies_the_new_value():
    adam = reset_state(optax.adam(0.1), after_training(optax.adam(0.1)), TOUCHED, NEW)[0]
    assert not any(
        np.any(np.asarray(m)[mask]) for m, mask in zip(*map(jax.tree.leaves, (adam.mu, TOUCHED)), strict=True)
    )
    free = optax.contrib.schedule_free_sgd(0.1)
    z = reset_state(free, after_training(free), TOUCHED, NEW).z
    for leaf, new, mask in zip(*map(jax.tree.leaves, (z, NEW, TOUCHED)), strict=True):
        np.testing.assert_array_equal(leaf[mask], new[mask])


def test_nothing_touched_changes_nothing():
    nothing = jax.tree.map(jnp.zeros_like, TOUCHED)
    for tx, _ in RESETTABLE.values():
        state = after_training(tx)
        jax.tree.map(np.testing.assert_array_equal, reset_state(tx, state, nothing, NEW), state)


def test_mapped_over_runs_equals_one_by_one():
    tx = RESETTABLE["chain(clip, adamw)"][0]
    state = after_training(tx)
    masks = [TOUCHED, jax.tree.map(jnp.logical_not, TOUCHED)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *masks)
    together = jax.vmap(lambda mask: reset_state(tx, state, mask, NEW))(stacked)
    for i, mask in enumerate(masks):
        alone = reset_state(tx, state, mask, NEW)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


# What cannot be reset -----------------------------------------------------------------------------------------


class KroneckerState(NamedTuple):
    factors: object


def kronecker(layout):
    """As Shampoo and SOAP keep it: two square factors a matrix, in a list in the place of the parameter or apart."""

    def init(params):
        pairs = jax.tree.map(lambda p: [jnp.eye(n) for n in p.shape], params)
        return KroneckerState(pairs if layout == "in place" else jax.tree.leaves(pairs))

    return optax.GradientTransformation(init, lambda u, s, p=None: (u, s))


REFUSED = {
    "adafactor": (optax.adafactor(0.1, min_dim_size_to_factor=2), r"v_row\['dense'\]\['bias'\] has shape \(1,\)"),
    "chain(clip, adafactor)": (optax.chain(optax.clip(1.0), optax.adafactor(0.1, min_dim_size_to_factor=2)), "v_row"),
    "novograd": (optax.novograd(0.1), r"nu\['dense'\]\['bias'\] has shape \(\)"),
    "factors in place": (kronecker("in place"), r"factors\['dense'\]\['bias'\]\[0\] has shape \(4, 4\)"),
    "factors apart": (kronecker("apart"), r"factors\[0\] has shape \(4, 4\), which is not laid out"),
    "flattened": (optax.flatten(optax.adam(0.1)), r"mu has shape \(26,\), which is not laid out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_states_without_entries_are_refused_before_training(name):
    tx, message = REFUSED[name]
    with pytest.raises(UserError, match=f"units cannot be reset under this optimiser: its state.*{message}"):
        jax.eval_shape(partial(initial_state, tx), PARAMS)
    with pytest.raises(UserError, match="adam, adamw, rmsprop, sgd, muon"):
        reset_state(tx, tx.init(PARAMS), TOUCHED, NEW)


def test_a_wrapper_refuses_when_its_state_is_made():
    from lab import method, setting

    from plasticity.mitigations.redo import Redo

    parts, _, variables = setting(method())
    tx = Redo().optimizer(optax.with_extra_args_support(optax.adafactor(0.1, min_dim_size_to_factor=2)), parts)
    with pytest.raises(UserError, match="units cannot be reset"):
        tx.init(variables["params"])


def test_what_a_wrapper_marks_as_kept_stays():
    def init(params):
        return Kept((jax.tree.map(jnp.linalg.norm, params), params, jnp.ones((3, 3)))), jnp.ones(7)

    tx = optax.GradientTransformation(init, lambda u, s, p=None: (u, s))
    state = initial_state(tx, PARAMS)
    jax.tree.map(np.testing.assert_array_equal, reset_state(tx, state, TOUCHED, NEW), state)
