"""Weight and spectral normalisation and sparse initialisation: by hand, against torch, over updates, under resets."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from lab import HEADS, batch, method, setting, train

from plasticity.mitigations import compose, mitigations
from plasticity.mitigations.recycling import overwrite
from plasticity.network import get_at, norm_affine_mask, set_at
from plasticity.networks import Architecture, networks
from plasticity.networks.kernels import applied
from plasticity.networks.linear import sparse
from plasticity.networks.options import Kernels, Sparse
from plasticity.spec import build

X = batch("regression")[0]
IMAGES = jnp.asarray(np.random.default_rng(2).normal(size=(3, 10, 10, 2)), jnp.float32)


def draws(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


class Kernel(nn.Module):
    """The kernel that is applied, alone."""

    kind: str
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self):
        return applied(self, self.kind, self.param("kernel", nn.initializers.normal(), self.shape))


def made(kind, kernel):
    """(module, variables) with this kernel; what belongs to it is as at the start."""
    module = Kernel(kind, kernel.shape)
    variables = module.init(jax.random.key(0))
    if kind == "weight_norm":
        gain = jnp.sqrt(jnp.sum(kernel**2, tuple(range(kernel.ndim - 1))))
        return module, {"params": {"kernel": kernel, "gain": gain}}
    return module, {**variables, "params": {"kernel": kernel}}


def update(module, variables):
    """(kernel in training, variables afterwards)."""
    kernel, state = module.apply(variables, mutable=["spectral_stats"])
    return kernel, {**variables, **state}


def network(spec, net="mlp(8, 3)", **options):
    architecture = compose.architecture(
        compose.canonical(build(spec, mitigations)), Architecture(HEADS["classification"], **options)
    )
    x = X if net.startswith("mlp") else IMAGES
    built = build(net, networks)[0].build(architecture)
    return built, built.init(jax.random.key(0), x), x


# Weight normalisation -------------------------------------------------------------------------------------------


def test_weight_norm_by_hand():
    """Columns (3, 4) and (0, 2) with lengths 10 and 1: (6, 8) and (0, 1); a column of zeros stays one."""
    module, variables = made("weight_norm", jnp.array([[3.0, 0.0, 0.0], [4.0, 2.0, 0.0]]))
    assert variables["params"]["gain"].tolist() == [5, 2, 0]
    variables = set_at(variables, ("params", "gain"), jnp.array([10.0, 1.0, 7.0]))
    np.testing.assert_allclose(module.apply(variables), [[6, 0, 0], [8, 1, 0]], rtol=1e-6)
    grads = jax.grad(lambda p: jnp.sum(module.apply({"params": p})))(variables["params"])
    assert all(np.all(np.isfinite(g)) for g in grads.values())
    # By hand for the first column: g's is v . 1 / |v|; v's is orthogonal to v.
    np.testing.assert_allclose(grads["gain"][0], 7 / 5, rtol=1e-6)
    np.testing.assert_allclose(np.sum(grads["kernel"] * variables["params"]["kernel"], 0), 0, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 4), (3, 3, 2, 4)])
def test_weight_norm_is_torchs(shape):
    torch = pytest.importorskip("torch")
    kernel, target = draws(*shape), draws(*shape, seed=1)
    module, _ = made("weight_norm", kernel)
    gain = draws(4, seed=2)
    params = {"kernel": kernel, "gain": gain}

    layer = torch.nn.Linear(5, 4) if len(shape) == 2 else torch.nn.Conv2d(2, 4, 3)
    torch.nn.utils.parametrizations.weight_norm(layer)
    g, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
    to_torch = (1, 0) if len(shape) == 2 else (3, 2, 0, 1)
    back = (1, 0) if len(shape) == 2 else (2, 3, 1, 0)
    with torch.no_grad():
        v.copy_(torch.tensor(np.transpose(kernel, to_torch)))
        g.copy_(torch.tensor(np.asarray(gain)).reshape(g.shape))
    loss = torch.sum(layer.weight * torch.tensor(np.transpose(target, to_torch)))
    loss.backward()

    np.testing.assert_allclose(
        module.apply({"params": params}), np.transpose(layer.weight.detach().numpy(), back), rtol=1e-5, atol=1e-6
    )
    grads = jax.grad(lambda p: jnp.sum(module.apply({"params": p}) * target))(params)
    np.testing.assert_allclose(grads["gain"], g.grad.numpy().ravel(), rtol=1e-5)
    np.testing.assert_allclose(grads["kernel"], np.transpose(v.grad.numpy(), back), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("net", ["mlp(8, 3)", "minatar(8, features=4)"])
def test_weight_norm_starts_as_the_plain_network_and_the_graph_has_its_gains(net):
    plain, theirs, x = network("none", net)
    ours, variables, _ = network("weight_norm", net)
    params = variables["params"]
    for name, leaf in theirs["params"].items():  # the same draws
        jax.tree.map(np.testing.assert_array_equal, leaf, {k: params[name][k] for k in leaf})
        np.testing.assert_allclose(
            params[name]["gain"],
            np.linalg.norm(leaf["kernel"].reshape(-1, leaf["kernel"].shape[-1]), axis=0),
            rtol=1e-5,
        )
    np.testing.assert_allclose(ours.apply(variables, x)[0], plain.apply(theirs, x)[0], rtol=1e-4, atol=1e-5)
    for unit in ours.units:
        assert unit.further == ((unit.name, "gain"),)
    assert not any(jax.tree.leaves(norm_affine_mask(params, ours)))


def test_noisy_layers_have_deviations_and_a_gain():
    net, variables, _ = network("weight_norm", predictions=3, dueling=True, noise=0.5)
    last = {unit.name: unit for unit in net.units}["value_hidden"]
    assert last.further == tuple(("value_hidden", leaf) for leaf in ("noise_kernel", "noise_bias", "gain"))
    assert all(get_at(variables["params"], path).shape[-1] == last.units for path in last.further)


MASKS = {name: jnp.arange(8) == unit for name, unit in {"hidden_0": 2, "hidden_1": 5, "hidden_2": 0}.items()}


def dead(net, params):
    """The parameters with the units of MASKS dead."""
    for unit in net.units:
        params = set_at(params, unit.bias, jnp.where(MASKS[unit.name], -50.0, get_at(params, unit.bias)))
    return params


def test_a_reset_redraws_a_units_direction_and_length_together():
    net, variables, _ = network("weight_norm")
    params = jax.tree.map(lambda p: 3.0 * p, variables["params"])
    fresh = net.init(jax.random.key(1), X)["params"]
    recycled, touched = overwrite(params, fresh, MASKS, net.units)
    for unit in net.units:
        mask, (gain,) = np.asarray(MASKS[unit.name]), unit.further
        np.testing.assert_array_equal(get_at(recycled, gain), np.where(mask, get_at(fresh, gain), get_at(params, gain)))
        np.testing.assert_array_equal(get_at(touched, gain), mask)


def test_recycling_under_weight_norm_scales_the_successors_inputs_by_the_length_that_is_lost():
    """One hidden layer: the output kernel's columns become |v| / |v without the row| times as long elsewhere."""
    net, variables, _ = network("weight_norm", "mlp(8, 1)")
    mask = {"hidden_0": MASKS["hidden_0"]}
    params = dead_one = set_at(variables["params"], ("hidden_0", "bias"), jnp.where(mask["hidden_0"], -50.0, 0.0))
    recycled, _ = overwrite(params, net.init(jax.random.key(1), X)["params"], mask, net.units)
    before, _, _ = net.apply({"params": dead_one}, X)
    after, _, _ = net.apply({"params": recycled}, X)
    v = np.asarray(params["output"]["kernel"])
    factor = np.linalg.norm(v, axis=0) / np.linalg.norm(np.delete(v, 2, 0), axis=0)
    assert np.all(factor > 1)
    np.testing.assert_allclose(after, before * factor, rtol=1e-4, atol=1e-6)


# Spectral normalisation -----------------------------------------------------------------------------------------


def test_spectral_norm_by_hand():
    """W = diag(2, 1): from (1, 1) / sqrt 2 the estimate of the catalogue's oracle O10 after each step; then W / 2."""
    module, variables = made("spectral_norm", jnp.diag(jnp.array([2.0, 1.0])))
    variables = set_at(variables, ("spectral_stats", "u"), jnp.full(2, 0.5**0.5))
    for estimate in (1.843909, 1.988428, 1.999268, 1.999954):
        kernel, variables = update(module, variables)
        np.testing.assert_allclose(kernel, np.diag([2, 1]) / estimate, rtol=1e-5)


def test_spectral_norm_of_nothing_is_nothing_with_a_finite_gradient():
    module, variables = made("spectral_norm", jnp.zeros((3, 2)))
    kernel, after = update(module, variables)
    assert not np.any(kernel)
    grads = jax.grad(lambda p: jnp.sum(module.apply({**after, "params": p})))(variables["params"])
    assert np.all(np.isfinite(grads["kernel"]))


@pytest.mark.parametrize("shape", [(5, 4), (3, 3, 2, 4)])
def test_spectral_norm_is_torchs_from_update_to_update(shape):
    """Values, gradients and the carried vector, with the weights moving in between.

    The function in torch with the source's order; its parametrisation starts from the other vector.
    """
    torch = pytest.importorskip("torch")
    kernel, target = draws(*shape), draws(*shape, seed=1)
    module, variables = made("spectral_norm", kernel)
    layer = torch.nn.Linear(5, 4) if len(shape) == 2 else torch.nn.Conv2d(2, 4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = torch.nn.utils.spectral_norm(layer)
    weight, inputs = layer.weight_orig, torch.zeros((1, 5) if len(shape) == 2 else (1, 2, 3, 3))
    to_torch = (1, 0) if len(shape) == 2 else (3, 2, 0, 1)
    back = (1, 0) if len(shape) == 2 else (2, 3, 1, 0)
    start = np.array([1.0, -2.0, 0.5, 1.0], np.float32) / 2.5
    with torch.no_grad():
        weight.copy_(torch.tensor(np.transpose(kernel, to_torch)))
        layer.weight_u.copy_(torch.tensor(start))
    variables = set_at(variables, ("spectral_stats", "u"), jnp.asarray(start))

    def objective(params, variables):
        found, state = module.apply({**variables, "params": params}, mutable=["spectral_stats"])
        return jnp.sum(found * target), (found, state)

    for _ in range(3):
        layer(inputs)
        loss = torch.sum(layer.weight * torch.tensor(np.transpose(target, to_torch)))
        weight.grad = None
        loss.backward()
        grads, (found, state) = jax.grad(objective, has_aux=True)(variables["params"], variables)
        np.testing.assert_allclose(found, np.transpose(layer.weight.detach().numpy(), back), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(grads["kernel"], np.transpose(weight.grad.numpy(), back), rtol=1e-3, atol=1e-5)
        variables = {**variables, **state}
        np.testing.assert_allclose(variables["spectral_stats"]["u"], layer.weight_u, rtol=1e-4, atol=1e-6)
        with torch.no_grad():
            weight -= 0.05 * weight.grad
        moved = variables["params"]["kernel"] - 0.05 * grads["kernel"]
        variables = set_at(variables, ("params", "kernel"), moved)


def test_after_some_updates_the_largest_singular_value_is_one_and_growth_changes_nothing():
    module, variables = made("spectral_norm", draws(6, 4))
    for _ in range(30):
        kernel, variables = update(module, variables)
    np.testing.assert_allclose(np.linalg.svd(kernel, compute_uv=False)[0], 1, rtol=1e-4)
    evaluated = module.apply(variables)
    np.testing.assert_allclose(evaluated, kernel, rtol=1e-4)
    grown = set_at(variables, ("params", "kernel"), 7.0 * variables["params"]["kernel"])
    np.testing.assert_allclose(module.apply(grown), evaluated, rtol=1e-5)


def test_the_start_is_close_already():
    _, variables, _ = network("spectral_norm")
    exact = np.linalg.svd(variables["params"]["hidden_0"]["kernel"], compute_uv=False)[0]
    u = variables["spectral_stats"]["hidden_0"]["u"]
    np.testing.assert_allclose(np.linalg.norm(variables["params"]["hidden_0"]["kernel"] @ u), exact, rtol=0.05)
    plain = network("none")[1]["params"]
    jax.tree.map(np.testing.assert_array_equal, variables["params"], plain)  # the same draws


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("spectral_norm", {"hidden_0", "hidden_1", "hidden_2", "output"}),
        ("spectral_norm(hidden)", {"hidden_0", "hidden_1", "hidden_2"}),
        ("spectral_norm(last_hidden)", {"hidden_2"}),
        ("spectral_norm(first_dense)", {"hidden_0"}),
    ],
)
def test_the_layers_that_are_asked_for_are_normalised(spec, names):
    net, variables, _ = network(spec)
    assert variables["spectral_stats"].keys() == names
    _, _, state = net.apply(variables, X)
    assert state == {}
    _, _, state = net.apply(variables, X, train=True)
    assert state.keys() == {"spectral_stats"}
    assert state["spectral_stats"].keys() == names


def test_last_hidden_layers_of_streams_and_behind_convolutions():
    for layers in ("last_hidden", "first_dense"):  # the same here
        spec = f"spectral_norm({layers})"
        _, variables, _ = network(spec, "minatar(8, features=4)", predictions=2, dueling=True)
        assert variables["spectral_stats"].keys() == {"value_hidden", "advantage_hidden"}
    _, variables, _ = network("spectral_norm(hidden)", "minatar(8, features=4)")
    assert {name: leaf["u"].shape for name, leaf in variables["spectral_stats"].items()} == {
        "conv_0": (4,),
        "hidden": (8,),
    }


def test_training_carries_the_vector():
    """With weights that stand still five updates are five steps of the iteration, whatever else the state holds."""
    chosen = method("spectral_norm+batch_norm", "sgd(1e-30)")
    learner, _ = train(chosen, 0, "regression")
    _, _, variables = setting(chosen)
    w = np.asarray(variables["params"]["hidden_1"]["kernel"], np.float64)
    u = np.asarray(variables["spectral_stats"]["hidden_1"]["u"], np.float64)
    for _ in range(5):
        v = w @ u / np.linalg.norm(w @ u)
        u = w.T @ v / np.linalg.norm(w.T @ v)
    np.testing.assert_allclose(learner.variables["spectral_stats"]["hidden_1"]["u"], u, rtol=1e-3, atol=1e-5)
    assert learner.variables.keys() >= {"batch_stats", "spectral_stats"}


def test_recycling_under_spectral_norm_scales_the_successors():
    """The output layer's sigma changes with its row: everything it gives is scaled by one factor."""
    net, variables, _ = network("spectral_norm", "mlp(8, 1)")
    mask = {"hidden_0": MASKS["hidden_0"]}
    kernel = variables["params"]["output"]["kernel"].at[2].mul(5.0)
    params = set_at(variables["params"], ("output", "kernel"), kernel)
    params = set_at(params, ("hidden_0", "bias"), jnp.where(mask["hidden_0"], -50.0, 0.0))
    # The hidden layer's own kernel as it was: redrawing a column changes what all its units are divided by.
    recycled, _ = overwrite(params, params, mask, net.units)
    recycled = set_at(recycled, ("hidden_0", "bias"), params["hidden_0"]["bias"])
    before, after = (net.apply({**variables, "params": p}, X)[0] for p in (params, recycled))
    ratio = np.asarray(after / before)
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
    assert ratio[0, 0] > 1.5


# Sparse initialisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sparsity", "fan_in", "zeros"),
    [(0.9, 100, 90), (0.9, 49, 45), (0.07, 100, 7), (0.0, 8, 0), (0.9, 8, 7), (0.9, 1, 0), (1.0, 30, 29)],
)
def test_how_many_are_zero(sparsity, fan_in, zeros):
    """The share rounded up; .07 of 100 is 7 although floats say 7.000000000000001; one is left."""
    assert Sparse(sparsity).zeros(fan_in) == zeros
    kernel = np.asarray(sparse(Sparse(sparsity))(jax.random.key(0), (fan_in, 5)))
    np.testing.assert_array_equal(np.sum(kernel == 0, axis=0), zeros)


def test_the_law_of_sparse_draws():
    kernel = np.asarray(sparse(Sparse(0.9))(jax.random.key(0), (3, 3, 40, 50))).reshape(360, 50)
    drawn, bound = kernel[kernel != 0], 360**-0.5
    assert np.max(np.abs(drawn)) <= bound
    np.testing.assert_allclose(np.mean(drawn), 0, atol=3 * bound / len(drawn) ** 0.5)
    np.testing.assert_allclose(np.var(drawn), bound**2 / 3, rtol=0.06)
    # Places are drawn unit by unit, each as likely as any other.
    used = np.sum(kernel != 0, axis=1)
    np.testing.assert_allclose(np.var(used), 50 * 0.1 * 0.9, rtol=0.3)
    assert len({tuple(column != 0) for column in kernel.T}) == 50


@pytest.mark.parametrize("net", ["mlp(20, 2)", "minatar(20, features=4)"])
def test_sparse_init_replaces_the_networks_own_in_every_layer(net):
    _, variables, _ = network("sparse_init", net)
    for leaf in variables["params"].values():
        fan_in = leaf["kernel"].size // leaf["kernel"].shape[-1]
        kernel = np.asarray(leaf["kernel"]).reshape(fan_in, -1)
        np.testing.assert_array_equal(np.sum(kernel == 0, axis=0), Sparse(0.9).zeros(fan_in))
        assert not np.any(leaf["bias"])


def test_resets_draw_by_the_same_law():
    """Units that were dense are sparse when redo has recycled them."""
    parts, _, variables = setting(method("sparse_init(0.5)+redo(tau=0, every=1)"))
    tx = parts.tx
    assert tx is not None
    params = jax.tree.map(lambda p: p + 1.0, variables["params"])
    params = set_at(params, ("hidden_0", "bias"), jnp.where(jnp.arange(8) < 3, -1e3, 0.0))
    _, activations, _ = parts.network.apply({"params": params}, X)
    grads = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(grads, tx.init(params), params, activations=activations, step=0)
    kernel = optax.apply_updates(params, updates)["hidden_0"]["kernel"]
    np.testing.assert_array_equal(np.sum(np.abs(kernel) < 1e-6, axis=0), [25, 25, 25, 0, 0, 0, 0, 0])


def test_with_weight_norm_and_noise():
    _, variables, _ = network("sparse_init+weight_norm", predictions=2, noise=0.5)
    for leaf in variables["params"].values():
        kernel = np.asarray(leaf["kernel"])
        np.testing.assert_array_equal(np.sum(kernel == 0, axis=0), Sparse(0.9).zeros(len(kernel)))
        np.testing.assert_allclose(leaf["gain"], np.linalg.norm(kernel, axis=0), rtol=1e-5)


def test_members_set_what_they_say():
    def chosen(spec):
        return compose.architecture(build(spec, mitigations), Architecture(HEADS["regression"]))

    assert chosen("weight_norm").kernels == Kernels("weight_norm")
    assert chosen("spectral_norm(hidden)").kernels == Kernels("spectral_norm", "hidden")
    assert chosen("sparse_init(0.5)").init == Sparse(0.5)
    assert [m.name for m in compose.canonical(build("weight_norm+sparse_init+layer_norm", mitigations))] == [
        "layer_norm",
        "sparse_init",
        "weight_norm",
    ]
