"""Normalisations by hand, against torch, over updates and under resets of units."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from lab import HEADS, batch, method, setting, train

from plasticity.errors import UserError
from plasticity.mitigations import compose, mitigations
from plasticity.mitigations.recycling import overwrite
from plasticity.network import get_at, norm_affine_mask, set_at
from plasticity.networks import Architecture, networks
from plasticity.networks.normalization import normalize
from plasticity.networks.options import EPSILON, Normalization
from plasticity.spec import build

X = batch("regression")[0]
OVER_BATCH = ("batch", "batch_renorm", "hybrid")
MITIGATIONS = {
    "rms": "rms_norm",
    "group": "group_norm",
    "batch": "batch_norm",
    "batch_renorm": "batch_renorm",
    "hybrid": "hybrid_norm",
}


class Layer(nn.Module):
    options: Normalization

    @nn.compact
    def __call__(self, z, train=False):
        return normalize(self.options, "norm", z, train)


def draws(*shape, seed=0, loc=0.0):
    return jnp.asarray(np.random.default_rng(seed).normal(loc, 1.5, shape), jnp.float32)


def layer(kind, z, **options):
    """(module, variables with scale and offset away from where they start)."""
    module = Layer(Normalization(kind, **options))
    variables = module.init(jax.random.key(0), z)
    affine = {name: draws(z.shape[-1], seed=i + 7) for i, name in enumerate(variables["params"]["norm"])}
    return module, {**variables, "params": {"norm": affine}}


def training(module, variables, z):
    """(output in training, variables with new running averages)."""
    out, state = module.apply(variables, z, True, mutable=["batch_stats"])
    return out, {**variables, **state}


def averages(variables):
    return {name: np.asarray(value) for name, value in variables["batch_stats"]["norm"].items()}


# Values ---------------------------------------------------------------------------------------------------------


def test_rms_norm_by_hand():
    """(3, 4) has mean square 12.5."""
    module = Layer(Normalization("rms"))
    z = jnp.array([[3.0, 4.0]])
    variables = module.init(jax.random.key(0), z)
    assert list(variables["params"]["norm"]) == ["scale"]
    np.testing.assert_allclose(module.apply(variables, z), z / 12.5**0.5, rtol=1e-6)


def test_hybrid_norm_by_hand():
    """Columns lose their mean over the batch, (2, 4); rows are divided by their own deviation over units, 1 and 2."""
    module = Layer(Normalization("hybrid"))
    z = jnp.array([[1.0, 3.0], [3.0, 7.0]])
    variables = module.init(jax.random.key(0), z)
    out, after = training(module, variables, z)
    np.testing.assert_allclose(out, [[-1.0, -2.0], [0.5, 1.0]], rtol=1e-5)
    assert averages(after).keys() == {"mean"}
    np.testing.assert_allclose(averages(after)["mean"], [0.02, 0.05], rtol=1e-5)
    np.testing.assert_allclose(module.apply(after, z)[1], [(3 - 0.02) / 2, (7 - 0.05) / 2], rtol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (6, 3, 2, 8)])
@pytest.mark.parametrize("kind", ["layer", "rms", "group", "batch"])
def test_torch_has_the_same_numbers(kind, shape):
    torch = pytest.importorskip("torch")
    z = draws(*shape, loc=2.0)
    module, variables = layer(kind, z)
    affine = variables["params"]["norm"]
    inner = tuple(torch.tensor(np.asarray(z)).movedim(-1, 1).shape[1:])
    if kind == "layer":
        # torch has an affine parameter for each position, so only its statistics are compared.
        peer = torch.nn.LayerNorm(inner, eps=1e-6, elementwise_affine=False)
    elif kind == "rms":
        peer = torch.nn.RMSNorm(inner, eps=1e-6, elementwise_affine=False)
    elif kind == "group":
        peer = torch.nn.GroupNorm(4, shape[-1], affine=False)
    else:
        peer = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(
            shape[-1], momentum=0.01, affine=False
        )

    def theirs(z):
        out = peer(torch.tensor(np.asarray(z)).movedim(-1, 1)).movedim(1, -1).numpy()
        return out * affine["scale"] + affine.get("bias", 0.0)

    if kind != "batch":
        np.testing.assert_allclose(module.apply(variables, z), theirs(z), rtol=1e-4, atol=1e-5)
        return
    for seed in range(3):
        z = draws(*shape, seed=seed, loc=2.0)
        expected = theirs(z)
        out, variables = training(module, variables, z)
        np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    rows = z.size // z.shape[-1]
    np.testing.assert_allclose(averages(variables)["mean"], peer.running_mean, rtol=1e-5)
    # Torch's running variance has divisor rows - 1. What is left of the start, .99^3, is the same in both.
    start = 0.99**3
    np.testing.assert_allclose(
        averages(variables)["var"] - start, (peer.running_var.numpy() - start) * (rows - 1) / rows, rtol=1e-4
    )
    peer.eval()
    peer.running_var = torch.tensor(averages(variables)["var"])
    np.testing.assert_allclose(module.apply(variables, z), theirs(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 8), (6, 3, 2, 8)])
def test_one_group_is_layer_norm_but_for_eps(shape):
    z = draws(*shape)
    grouped, variables = layer("group", z, groups=1)
    np.testing.assert_allclose(
        grouped.apply(variables, z), Layer(Normalization("layer")).apply(variables, z), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", EPSILON)
def test_a_large_mean_does_not_cost_the_variance(kind):
    """E z^2 - (E z)^2 in float32 would be off by all of the variance here."""
    if kind == "rms":
        pytest.skip("does not centre")
    z = draws(64, 8)
    module, variables = layer(kind, z)
    near, _ = training(module, variables, z)
    far, _ = training(module, variables, z + 4096.0)
    np.testing.assert_allclose(near, far, atol=0.02)


@pytest.mark.parametrize("kind", EPSILON)
def test_bfloat16_stays_and_averages_are_float32(kind):
    z = draws(6, 8).astype(jnp.bfloat16)
    module, variables = layer(kind, z)
    out, after = training(module, variables, z)
    assert out.dtype == jnp.bfloat16
    assert all(v.dtype in (jnp.float32, jnp.int32) for v in jax.tree.leaves(after.get("batch_stats", {})))


def test_a_batch_of_one_gives_the_offset():
    z = draws(1, 8)
    module, variables = layer("batch", z)
    np.testing.assert_array_equal(training(module, variables, z)[0][0], variables["params"]["norm"]["bias"])


# Batch renorm -------------------------------------------------------------------------------------------------


def renorm_rewrite(z, mean, var, r_max, d_max):
    """(r, d, normalised) in float64 from the source's formulas, without scale and offset."""
    z = np.asarray(z, np.float64)
    m, s, running_s = z.mean(0), np.sqrt(z.var(0) + 1e-3), np.sqrt(var + 1e-3)
    r, d = np.clip(s / running_s, 1 / r_max, r_max), np.clip((m - mean) / running_s, -d_max, d_max)
    return r, d, (z - m) / s * r + d


def test_batch_renorm_is_batch_norm_until_it_is_warm_and_then_the_sources_formula():
    module, variables = layer("batch_renorm", draws(6, 8), warm_up=2, r_max=1.2, d_max=0.5)
    affine = variables["params"]["norm"]
    for update in range(4):
        z = draws(6, 8, seed=update, loc=1.0)
        mean, var = averages(variables)["mean"], averages(variables)["var"]
        r, d, expected = renorm_rewrite(z, mean, var, *((1.0, 0.0) if update < 2 else (1.2, 0.5)))
        if update >= 2:  # clipped above and below, and not at all
            assert r.max() == 1.2
            assert r.min() < 1.2
            assert d.max() == 0.5
            assert d.min() < 0.5
        out, variables = training(module, variables, z)
        np.testing.assert_allclose(out, expected * affine["scale"] + affine["bias"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(averages(variables)["mean"], 0.99 * mean + 0.01 * z.mean(0), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(averages(variables)["var"], 0.99 * var + 0.01 * z.var(0), rtol=1e-5)
        assert averages(variables)["count"] == update + 1


def test_batch_renorm_unclipped_has_the_values_of_evaluation_and_no_gradient_through_r_and_d():
    z = draws(6, 8)
    module, variables = layer("batch_renorm", z, warm_up=0, r_max=1e6, d_max=1e6)
    out, _ = training(module, variables, z)
    np.testing.assert_allclose(out, module.apply(variables, z), rtol=1e-4, atol=1e-5)
    # Through the batch's statistics, so a common shift of a unit has no gradient although its value moves.
    weights = draws(6, 8, seed=3)
    shift = jax.grad(lambda b: jnp.sum(weights * module.apply(variables, z + b, True)))(jnp.zeros(8))
    np.testing.assert_allclose(shift, 0, atol=1e-4)


# In a network ---------------------------------------------------------------------------------------------------


def network(kind, activation="relu", width=8, depth=3):
    net = networks.get("mlp")(width, depth).build(Architecture(HEADS["classification"], kind, activation))
    return net, net.init(jax.random.key(0), X)


@pytest.mark.parametrize(("kind", "name"), MITIGATIONS.items())
def test_members_set_the_kind_with_their_values(kind, name):
    (member,) = build(name, mitigations)
    chosen = member.network(Architecture(HEADS["regression"])).normalization
    assert chosen == Normalization(kind)


def test_members_pass_their_options_on():
    def chosen(spec):
        return compose.architecture(build(spec, mitigations), Architecture(HEADS["regression"])).normalization

    assert chosen("batch_renorm(momentum=0.5, warm_up=7, r_max=2, d_max=1)") == Normalization(
        "batch_renorm", 0.5, warm_up=7, r_max=2.0, d_max=1.0
    )
    assert chosen("batch_norm(momentum=0.5)") == Normalization("batch", 0.5)
    assert chosen("hybrid_norm(momentum=0.5)") == Normalization("hybrid", 0.5)
    assert chosen("group_norm(2)") == Normalization("group", groups=2)


@pytest.mark.parametrize("kind", EPSILON)
def test_the_unit_graph_has_the_affine_parameters_and_penalties_leave_them_alone(kind):
    net, variables = network(kind)
    params = variables["params"]
    for unit in net.units:
        norm = params[f"norm_{unit.name}"]
        assert unit.norm_scale is not None
        assert get_at(params, unit.norm_scale).tolist() == [1.0] * 8
        assert (unit.norm_bias is None) == (kind == "rms") == ("bias" not in norm)
    mask = norm_affine_mask(params, net)
    for name, leaf in mask.items():
        assert all(value == name.startswith("norm_") for value in jax.tree.leaves(leaf))


@pytest.mark.parametrize("kind", OVER_BATCH)
def test_averages_change_in_training_only_and_are_used_outside(kind):
    net, variables = network(kind)
    out, _, state = net.apply(variables, X)
    assert state == {}
    _, _, state = net.apply(variables, X, train=True)
    assert state.keys() == {"batch_stats"}
    assert all(
        np.any(a != b)
        for a, b in zip(*map(jax.tree.leaves, (state, {"batch_stats": variables["batch_stats"]})), strict=True)
    )
    # An example alone is evaluated as in company.
    alone, _, _ = net.apply(variables, X[:1])
    np.testing.assert_allclose(alone[0], out[0], rtol=1e-5, atol=1e-6)


def test_training_carries_the_averages_from_update_to_update():
    """Five updates on one batch from a network whose first layer stands still: 1 - .99^5 of the way."""
    chosen = method("batch_norm", "sgd(1e-30)")
    learner, _ = train(chosen, 0, "regression")
    _, _, variables = setting(chosen)
    z = X.reshape(X.shape[0], -1) @ variables["params"]["hidden_0"]["kernel"]
    found = learner.variables["batch_stats"]["norm_hidden_0"]
    np.testing.assert_allclose(found["mean"], (1 - 0.99**5) * z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["var"], 0.99**5 + (1 - 0.99**5) * z.var(0), rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "moves"), [("batch", False), ("batch_renorm", False), ("hybrid", True), ("rms", True)]
)
def test_the_bias_before_a_norm_over_the_batch_gets_no_gradient(kind, moves):
    net, variables = network(kind)
    weights = draws(X.shape[0], 10, seed=5)

    def objective(params):
        return jnp.sum(weights * net.apply({**variables, "params": params}, X, train=True)[0])

    grads = jax.grad(objective)(variables["params"])
    assert (np.max(np.abs(grads["hidden_1"]["bias"])) > 1e-3) == moves
    assert np.max(np.abs(grads["hidden_1"]["kernel"])) > 1e-2


def test_group_norm_says_which_width_cannot_be_split():
    with pytest.raises(UserError, match="norm_hidden_0: 6 units cannot be split into 4 groups"):
        network("group", width=6)
    with pytest.raises(UserError, match="4 units in 4 groups: a group of one value is always zero"):
        network("group", width=4)


def test_an_unknown_kind_is_named():
    with pytest.raises(UserError, match=r"batch_renrom.*batch_renorm"):
        Normalization("batch_renrom")


# Resets -----------------------------------------------------------------------------------------------------------

DEAD = {"hidden_0": [0, 2], "hidden_1": [1, 5], "hidden_2": [3]}
MASKS = {name: jnp.isin(jnp.arange(8), jnp.array(units)) for name, units in DEAD.items()}
#: Normalisation -> whether recycling dead units leaves the function alone.
KEPT = {
    "none": True,
    "batch": True,
    "batch_renorm": True,
    "layer": False,
    "rms": False,
    "hybrid": False,
    "group": False,
}


@pytest.mark.parametrize(("kind", "kept"), KEPT.items())
def test_recycling_dead_units_leaves_the_function_alone_where_a_units_statistics_are_its_own(kind, kept):
    """To the bit, in training and in evaluation; and the units are back then, with scale 1 and offset 0."""
    net, variables = network(kind)
    params = variables["params"]
    for i, unit in enumerate(net.units):
        mask = MASKS[unit.name]
        for path in (unit.bias, unit.norm_scale, unit.norm_bias):
            if path is not None:
                params = set_at(params, path, get_at(params, path) + draws(8, seed=i) / 4)
        # Far on the negative side: by the offset after the normalisation, or, where there is none, by the bias.
        path = unit.norm_bias or unit.bias
        assert path is not None
        params = set_at(params, path, jnp.where(mask, -50.0, get_at(params, path)))
    fresh = net.init(jax.random.key(1), X)["params"]
    recycled, _ = overwrite(params, fresh, MASKS, net.units)
    for train_now in (True, False):
        before, seen, _ = net.apply({**variables, "params": params}, X, train=train_now)
        after, activations, _ = net.apply({**variables, "params": recycled}, X, train=train_now)
        assert np.array_equal(before, after) == kept
        for name, units in DEAD.items():
            assert not np.any(np.asarray(seen[name].post)[:, units])
            assert np.all(np.asarray(activations[name].pre)[:, units] > -10)
    for unit in net.units:
        if unit.norm_scale is not None:
            assert np.all(get_at(recycled, unit.norm_scale)[MASKS[unit.name]] == 1)
        if unit.norm_bias is not None:
            assert np.all(get_at(recycled, unit.norm_bias)[MASKS[unit.name]] == 0)


def test_group_norm_ties_a_unit_to_its_group_only():
    """Recycling unit 0 of a layer moves units 1 of its group of two and no other."""
    net, variables = network("group", depth=1)
    params = variables["params"]
    path = ("norm_hidden_0", "bias")
    params = set_at(params, path, jnp.where(jnp.arange(8) == 0, -50.0, get_at(params, path)))
    recycled, _ = overwrite(
        params, net.init(jax.random.key(1), X)["params"], {"hidden_0": jnp.arange(8) == 0}, net.units
    )
    before, after = (net.apply({"params": p}, X)[1]["hidden_0"].pre for p in (params, recycled))
    np.testing.assert_array_equal(np.any(before != after, axis=0), np.arange(8) < 2)


def test_redo_under_batch_norm_changes_neither_this_batchs_output_nor_the_averages():
    chosen = method("batch_norm+redo(tau=0, every=1)", "sgd(1e-30)")
    parts, _, variables = setting(chosen)
    tx = parts.tx
    assert tx is not None
    path = ("norm_hidden_0", "bias")
    params = set_at(variables["params"], path, jnp.where(jnp.arange(8) < 3, -50.0, 0.0))
    before, activations, _ = parts.network.apply({**variables, "params": params}, X, train=True)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(grads, tx.init(params), params, activations=activations, step=0)
    moved = optax.apply_updates(params, updates)
    after, activations, _ = parts.network.apply({**variables, "params": moved}, X, train=True)
    np.testing.assert_array_equal(after, before)
    assert np.all(np.any(np.asarray(activations["hidden_0"].post)[:, :3] > 0, axis=0))
