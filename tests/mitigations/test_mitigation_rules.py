"""The rule of each mitigation on hand-worked numbers, and against optax and torch where they have it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lab import HEADS, batch, method, setting

from plasticity.activations import NONLINEARITIES
from plasticity.heads import TwoHot
from plasticity.mitigations import Context, Event, Learner, Setting, compose, mitigations
from plasticity.networks import Architecture
from plasticity.optimizers import optimizers
from plasticity.rng import named
from plasticity.spec import build

X = batch("regression")[0]
NORMS = ("norm_hidden_0", "norm_hidden_1")


def normalized():
    """A network with layer norms, parameters away from their initial values, and these."""
    parts, _, variables = setting(method("layer_norm"))
    initial = variables["params"]
    rng = np.random.default_rng(0)
    moved = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(size=p.shape), jnp.float32), initial)
    return parts.network, moved, initial


def gradient(spec):
    """Gradient of a penalty at moved parameters; the parameters and the initial ones."""
    network, params, initial = normalized()
    members = build(spec, mitigations)
    context = Context(network, {"params": initial}, {})
    return jax.grad(lambda p: compose.penalty(members, p, context))(params), params, initial


def assert_trees(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **({"rtol": 1e-6} | tolerance)), a, b)


def without_norms(tree):
    return {name: jax.tree.map(jnp.zeros_like, leaf) if name in NORMS else leaf for name, leaf in tree.items()}


def test_l2_gradient_is_strength_times_theta_biases_included_norms_not():
    found, params, _ = gradient("l2(0.3)")
    assert_trees(found, without_norms(jax.tree.map(lambda p: 0.3 * p, params)))


def test_l2_init_gradient_is_strength_times_the_distance():
    found, params, initial = gradient("l2_init(0.3)")
    assert_trees(found, without_norms(jax.tree.map(lambda p, p0: 0.3 * (p - p0), params, initial)), atol=1e-7)


def test_l2_init_is_zero_at_initialisation():
    network, _, initial = normalized()
    members = build("l2_init(0.3)", mitigations)
    assert float(compose.penalty(members, initial, Context(network, {"params": initial}, {}))) == 0


def test_penalties_by_hand():
    """Catalogue, oracle O11: theta (3, 1), theta_0 (1, 3): half the squares is 5, half the squared distance 4."""
    network, _, _ = normalized()
    params, initial = {"w": jnp.array([3.0, 1.0])}, {"w": jnp.array([1.0, 3.0])}
    context = Context(replace(network, units=()), {"params": initial}, {})
    for spec, expected in {"l2(1)": 5.0, "l2_init(1)": 4.0, "l2_init(1)+l2(0.5)": 6.5}.items():
        assert float(compose.penalty(build(spec, mitigations), params, context)) == pytest.approx(expected)
    assert compose.penalty((), params, context) == 0


def steps(tx, params, n=20):
    """Parameters after n updates with fixed gradients."""
    rng = np.random.default_rng(1)
    state = tx.init(params)
    for _ in range(n):
        grads = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        updates, state = tx.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def decayed(params, spec="weight_decay(0.5)"):
    composed, _, _ = setting(method(spec, "adam(0.01)"))
    return steps(composed.tx, params)


def test_weight_decay_is_adamw_without_the_norms():
    parts, _, variables = setting(method("layer_norm"))
    params = jax.tree.map(lambda p: p + 1.0, variables["params"])
    mask = {name: jax.tree.map(lambda _, name=name: name not in NORMS, leaf) for name, leaf in params.items()}
    found = decayed(params, "layer_norm+weight_decay(0.5)")
    assert_trees(found, steps(optax.adamw(0.01, weight_decay=0.5, mask=mask), params), rtol=1e-5, atol=1e-6)
    without = steps(optax.adam(0.01), params)
    assert_trees(found["norm_hidden_0"], without["norm_hidden_0"], rtol=1e-5)
    assert np.all(np.abs(found["hidden_0"]["bias"] - without["hidden_0"]["bias"]) > 0.01)
    assert parts.network.units[0].norm_scale is not None


def test_weight_decay_is_torch_adamw():
    torch = pytest.importorskip("torch")
    params = setting(method())[2]["params"]
    found = decayed(params)
    leaves, structure = jax.tree.flatten(params)
    theirs = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in leaves]
    peer = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.5)
    rng = np.random.default_rng(1)
    for _ in range(20):
        for p in theirs:
            p.grad = torch.tensor(rng.normal(size=p.shape).astype(np.float32))
        peer.step()
    expected = jax.tree.unflatten(structure, [p.detach().numpy() for p in theirs])
    assert_trees(found, expected, rtol=1e-4, atol=1e-5)


def event(spec, learner, fresh=10.0, tx=None):
    """The learner after a switch, with all fresh draws equal to `fresh`."""
    network, _, _ = normalized()

    def initializer(key):
        return {"params": jax.tree.map(lambda p: jnp.full_like(p, fresh), learner.variables["params"])}

    surroundings = Setting(network, initializer, 0.1, jax.random.key(0), tx)
    members = compose.canonical(build(spec, mitigations))
    happening = Event(jnp.int32(1), None, None)
    return compose.on_switch(members, jax.random.key(1), learner, surroundings, happening)


TX = optimizers.get("adam")().build()
PARAMS = {"w": jnp.array([1.0, -2.0])}
LEARNER = Learner({"params": PARAMS, "batch_stats": {"mean": jnp.ones(2)}}, TX.update(PARAMS, TX.init(PARAMS))[1])


def test_shrink_perturb_arithmetic():
    after = event("shrink_perturb(shrink=0.5, perturb=0.25)", LEARNER, fresh=8.0, tx=TX)
    assert after.variables["params"]["w"].tolist() == [2.5, 1.0]
    assert after.variables["batch_stats"] is LEARNER.variables["batch_stats"]
    assert_trees(after.opt_state, LEARNER.opt_state, rtol=0)


def test_shrink_perturb_resets_the_optimiser_if_asked():
    after = event("shrink_perturb(reset_optimizer=true)", LEARNER, tx=TX)
    assert_trees(after.opt_state, TX.init(PARAMS), rtol=0)
    assert after.variables["params"]["w"].tolist() == pytest.approx([0.4 + 1.0, -0.8 + 1.0])


def test_full_reset_is_a_fresh_run_from_the_same_key():
    chosen = method("full_reset+redo+weight_decay+layer_norm")
    parts, _, variables = setting(chosen)
    key = jax.random.key(3)
    moved = jax.tree.map(lambda p: p + 1, variables)
    state = parts.tx.init(moved["params"])
    state = state._replace(count=state.count + 7)
    after = compose.on_switch(chosen.mitigations, key, Learner(moved, state), parts, Event(jnp.int32(1), None, None))
    assert_trees(after.variables, parts.initializer(named(key, "full_reset")), rtol=0)
    assert_trees(key_data(after.opt_state), key_data(parts.tx.init(after.variables["params"])), rtol=0)


def key_data(tree):
    """The tree with keys as numbers."""

    def data(leaf):
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    return jax.tree.map(data, tree)


def test_the_order_of_events_is_that_of_the_names():
    """full_reset before shrink_perturb: fresh, then shrunk and perturbed, whatever the order in the spec."""
    for spec in ("shrink_perturb+full_reset", "full_reset+shrink_perturb"):
        after = event(spec, LEARNER, fresh=10.0, tx=TX)
        assert after.variables["params"]["w"].tolist() == pytest.approx([5.0, 5.0])


def test_layer_norm_standardises_each_example_before_the_nonlinearity():
    parts, _, variables = setting(method("layer_norm"))
    scaled = jax.tree.map(lambda p: 7.0 * p, variables["params"]) | {n: variables["params"][n] for n in NORMS}
    _, activations, _ = parts.network.apply({"params": scaled}, X)
    for activation in activations.values():
        np.testing.assert_allclose(activation.pre.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(activation.pre.std(-1), 1, rtol=1e-3)
        np.testing.assert_array_equal(activation.post, np.maximum(activation.pre, 0))


@pytest.mark.parametrize("name", NONLINEARITIES)
def test_activations_by_hand(name):
    (member,) = build({"leaky_relu": "leaky_relu(0.25)", "aid": "aid(0.25)"}.get(name, name), mitigations)
    architecture = member.network(Architecture(HEADS["regression"]))
    assert architecture.activation == name
    found = NONLINEARITIES[name].apply(jnp.array([-2.0, 0.0, 3.0]), architecture.slope)
    expected = {
        "relu": [0, 0, 3],
        "leaky_relu": [-0.5, 0, 3],
        "gelu": [-0.0454023, 0, 2.9963627],
        "swish": [-0.2384058, 0, 2.8577224],
        "elu": [-0.8646647, 0, 3],
        "tanh": [-0.9640276, 0, 0.9950548],
        "fourier": [-0.9092974, 0, 0.14112, -0.4161468, 1, -0.9899925],
        "aid": [-0.5, 0, 2.25],
        "rational": [-0.0125421, 0.0130428, 2.9871482],
        "crelu": [0, 0, 3, 2, 0, 0],
    }[name]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "support"),
    [("two_hot", (101, -1.0, 1.0)), ("two_hot(11, low=-3)", (11, -3.0, 1.0)), ("two_hot(high=2)", (101, -1.0, 2.0))],
)
def test_two_hot_takes_the_tasks_range_where_none_is_given(spec, support):
    architecture = compose.architecture(build(spec, mitigations), Architecture(HEADS["regression"]))
    assert architecture.head == TwoHot(*support)


def test_decay_comes_before_resets():
    """So that a recycled weight is exactly its new value and not decayed: resets are the outermost wrapper."""
    names = [
        m.name for m in compose.canonical(build("redo+weight_decay+l2+layer_norm+full_reset+two_hot", mitigations))
    ]
    assert names == ["layer_norm", "two_hot", "l2", "weight_decay", "redo", "full_reset"]
