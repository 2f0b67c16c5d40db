"""Loss terms: each on hand-worked numbers, against a rewrite in numpy, and its gradient by finite differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import batch, method, setting, train

from plasticity.errors import UserError
from plasticity.heads import Regression
from plasticity.mitigations import Context, Learner, compose, mitigations
from plasticity.mitigations.effective_rank import effective_rank
from plasticity.mitigations.penalties import last_features, roles, rows
from plasticity.mitigations.spectral_reg import iterate
from plasticity.network import Activation, Network, UnitLayer
from plasticity.networks import Architecture, networks
from plasticity.spec import build, build_one

X, Y = batch("regression")
NAMES = ("c_chain", "dr3", "effective_rank", "feature_norm", "gradient_norm", "infer", "parseval", "spectral_reg")
NAMES += ("wasserstein_init",)


def one(spec):
    (member,) = build(spec, mitigations)
    return member


def bare(kernel, **more):
    """A network of one hidden layer `h` on these kernels, for rules that look at parameters only."""
    layer = UnitLayer("h", kernel.shape[-1], ("h", "kernel"), ("h", "bias"), ("n", "scale"), ("n", "bias"), ())
    return Network(init=None, apply=None, units=(layer,), **more)  # pyrefly: ignore


def hand(spec, kernel, bias=(), scale=(), offset=(), initial=None):
    """(penalty, its gradient by parameter) of a member at these numbers."""
    kernel = jnp.asarray(kernel, jnp.float32)
    params = {
        "h": {"kernel": kernel, "bias": jnp.asarray(bias, jnp.float32)},
        "n": {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(offset, jnp.float32)},
    }
    member, network = one(spec), bare(kernel)
    memory = member.memory({"params": params}, network)
    for _ in range(60 if memory else 0):  # past the start of the power iteration
        memory = member.after_update(
            Learner({"params": params, "memory": {member.name: memory}}, None), Context(network, {}, {}, memory=memory)
        ).variables["memory"][member.name]
    context = Context(network, {"params": initial or params}, {}, memory=memory)
    value, gradient = jax.value_and_grad(member.penalty)(params, context)
    return float(value), gradient


def test_parseval_by_hand():
    """Catalogue, oracle O10: W = diag(1, 2), s = 1: loss 9, gradient 4 (W W^T - I) W = diag(0, 24)."""
    value, gradient = hand("parseval(1, scale=1)", [[1, 0], [0, 2]], bias=[3, 3], scale=[5, 5])
    assert value == pytest.approx(9)
    np.testing.assert_allclose(gradient["h"]["kernel"], [[0, 0], [0, 24]], atol=1e-5)
    assert not np.any(gradient["h"]["bias"])
    assert not np.any(gradient["n"]["scale"])


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 3, 2, 4)])
def test_parseval_is_zero_for_scaled_orthogonal_weights_of_any_shape(shape):
    flat = np.random.default_rng(0).normal(size=(np.prod(shape[:-1], dtype=int), shape[-1]))
    u, _, vt = np.linalg.svd(flat, full_matrices=False)
    value, gradient = hand("parseval(1, scale=2)", (2**0.5 * u @ vt).reshape(shape))
    assert value == pytest.approx(0, abs=1e-9)
    # The source's |W W^T - s I|, with the rows of W as units, has the same gradient at any weights.
    w = jnp.asarray(flat, jnp.float32)
    theirs = jax.grad(lambda w: jnp.sum((w.T @ w - 2 * jnp.eye(w.shape[1])) ** 2))(w)
    _, gradient = hand("parseval(1, scale=2)", flat.reshape(shape))
    np.testing.assert_allclose(gradient["h"]["kernel"].reshape(flat.shape), theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("k", "loss", "slope"), [(1, 1, 2), (2, 9, 24)])
def test_spectral_regularisation_by_hand(k, loss, slope):
    """Catalogue, oracle O10: W = diag(2, 1). The gradient is not zero: only u and v are constants."""
    value, gradient = hand(f"spectral_reg(1, k={k})", [[2, 0], [0, 1]])
    assert value == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(gradient["h"]["kernel"], [[slope, 0], [0, 0]], atol=1e-4)


def test_spectral_regularisation_of_biases_and_norms_by_hand():
    """|b|^4 = 25^2 with gradient 4 |b|^2 b; (gamma^2 - 1)^2 = 9 with gradient 4 gamma (gamma^2 - 1) = 24."""
    value, gradient = hand("spectral_reg(1)", [[1, 0], [0, 1]], bias=[3, 4], scale=[2, 1], offset=[0, 1])
    assert value == pytest.approx(625 + 9 + 1, rel=1e-5)
    np.testing.assert_allclose(gradient["h"]["bias"], [300, 400], rtol=1e-5)
    np.testing.assert_allclose(gradient["n"]["scale"], [24, 0], atol=1e-4)
    np.testing.assert_allclose(gradient["n"]["bias"], [0, 4], atol=1e-4)


def test_power_iteration_by_hand():
    """Catalogue, oracle O10: estimates from (1, 1) / sqrt 2 on diag(2, 1). A zero matrix leaves the vectors alone."""
    w, u, v, found = jnp.diag(jnp.array([2.0, 1.0])), jnp.ones(2) / 2**0.5, jnp.zeros(2), []
    for _ in range(4):
        u, v = iterate(w, u, v)
        found.append(float(u @ w @ v))
    np.testing.assert_allclose(found, [1.843909, 1.988428, 1.999268, 1.999954], rtol=1e-6)
    assert all(np.array_equal(a, b) for a, b in zip(iterate(0 * w, u, v), (u, v), strict=True))


def test_power_iteration_follows_a_convolution_as_out_by_the_rest():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 5)), jnp.float32)
    u, v = jnp.ones(5) / 5**0.5, jnp.zeros(12)
    for _ in range(100):
        u, v = iterate(w, u, v)
    expected = np.linalg.svd(np.asarray(w).reshape(12, 5), compute_uv=False)[0]
    assert float(v @ w.reshape(12, 5) @ u) == pytest.approx(expected, rel=1e-5)


def test_wasserstein_by_hand():
    """Catalogue, oracle O11: (3, 1) and (1, 3) hold the same values; moved by one, each entry pulls to its rank's."""
    initial = {
        "h": {"kernel": jnp.array([[1.0, 3.0]]), "bias": jnp.zeros(0)},
        "n": {"scale": jnp.ones(2), "bias": jnp.zeros(0)},
    }
    assert hand("wasserstein_init(1)", [[3, 1]], scale=[7, 7], initial=initial)[0] == 0
    value, gradient = hand("wasserstein_init(1)", [[5, 2]], scale=[7, 7], initial=initial)
    assert value == (2 - 1) ** 2 + (5 - 3) ** 2
    np.testing.assert_allclose(gradient["h"]["kernel"], [[4, 2]])
    assert not np.any(gradient["n"]["scale"])


def test_wasserstein_is_the_cost_of_the_best_assignment():
    optimize = pytest.importorskip("scipy.optimize")
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 6, 4)).astype(np.float32)
    initial = {
        "h": {"kernel": jnp.asarray(b), "bias": jnp.zeros(0)},
        "n": {"scale": jnp.zeros(0), "bias": jnp.zeros(0)},
    }
    # Among all assignments of one set of values to the other, keeping the order is the cheapest.
    cost = (a.ravel()[:, None] - b.ravel()) ** 2
    expected = cost[optimize.linear_sum_assignment(cost)].sum()
    assert hand("wasserstein_init(1)", a, initial=initial)[0] == pytest.approx(expected, rel=1e-5)


def test_effective_rank_and_its_gradient():
    """(2, 1, 1): p = 1/2, 1/4, 1/4, entropy 1.5 log 2. d/ds_i = -rank (log p_i + entropy) / 4."""
    phi = jnp.zeros((4, 3)).at[jnp.arange(3), jnp.arange(3)].set(jnp.array([2.0, 1.0, 1.0]))
    value, gradient = jax.value_and_grad(effective_rank)(phi)
    assert float(value) == pytest.approx(2**1.5, rel=1e-6)
    slopes = -(2**1.5) * (np.log([0.5, 0.25, 0.25]) + 1.5 * np.log(2)) / 4
    np.testing.assert_allclose(gradient[:3], np.diag(slopes), atol=1e-6)


@pytest.mark.parametrize("kind", ["zero", "rank one", "equal", "a dead feature"])
def test_effective_rank_of_degenerate_features_has_a_finite_gradient(kind):
    rng = np.random.default_rng(0)
    phi, rank = {
        "zero": (np.zeros((5, 3)), 0),
        "rank one": (np.outer(rng.normal(size=5), rng.normal(size=3)), 1),
        "equal": (np.linalg.qr(rng.normal(size=(5, 3)))[0], 3),
        "a dead feature": (np.linalg.qr(rng.normal(size=(5, 3)))[0] * [1, 1, 0], 2),
    }[kind]
    value, gradient = jax.value_and_grad(effective_rank)(jnp.asarray(phi, jnp.float32))
    assert float(value) == pytest.approx(rank, rel=1e-4)
    # No direction but those that are there, and at their maximum equal values have no slope.
    np.testing.assert_allclose(gradient, 0, atol=1e-4)


def world(spec, normalization="layer_norm+", kind="regression"):
    """(member, parameters away from their initial values, context as a function of parameters)."""
    parts, head, initial = setting(method(normalization + spec), kind)
    network, rng = parts.network, np.random.default_rng(0)
    x, y = batch(kind)
    params = jax.tree.map(lambda p: p + jnp.asarray(0.3 * rng.normal(size=p.shape), jnp.float32), initial["params"])
    member = build(spec, mitigations)[0]

    def context(params):
        outputs, activations, _ = network.apply({**initial, "params": params}, x)
        return Context(
            network,
            initial,
            activations,
            outputs,
            {**initial, "params": params},
            inputs=x,
            targets=y,
            loss=lambda p: jnp.mean(head.loss(network.apply({"params": p}, x)[0], y)),
            reference=lambda: 0.5 * x[::-1],
            following=lambda: network.apply({"params": params}, 0.7 * x)[1],
            memory=initial.get("memory", {}).get(member.name),
        )

    return member, params, context, initial


def numpy_forward(params, x):
    """(outputs, last features) of the lab's network with layer norm."""
    h = np.asarray(x, np.float64).reshape(len(x), -1)
    for i in (0, 1):
        z = h @ params[f"hidden_{i}"]["kernel"] + params[f"hidden_{i}"]["bias"]
        z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)
        h = np.maximum(z * params[f"norm_hidden_{i}"]["scale"] + params[f"norm_hidden_{i}"]["bias"], 0)
    return h @ params["output"]["kernel"] + params["output"]["bias"], h


def rewritten(name, params, initial):
    """The penalty at strength 1 in numpy."""
    x = np.asarray(X, np.float64)
    tree = lambda t: jax.tree.map(lambda p: np.asarray(p, np.float64), t)  # noqa: E731
    params, initial = tree(params), tree(initial)
    (_, phi), (reference, _) = numpy_forward(params, x), numpy_forward(params, 0.5 * x[::-1])
    if name == "feature_norm":
        return np.mean(phi**2)
    if name == "dr3":
        return np.mean(np.sum(phi * numpy_forward(params, 0.7 * x)[1], axis=1))
    if name == "effective_rank":
        s = np.linalg.svd(phi, compute_uv=False)
        p = s[s > 1e-9] / s.sum()
        return -np.exp(-np.sum(p * np.log(p)))
    if name == "infer":
        now, then = phi @ params["auxiliary"]["kernel"], numpy_forward(initial, x)[1] @ initial["auxiliary"]["kernel"]
        return np.mean(np.sum((now - 3 * then) ** 2, axis=1))
    if name == "c_chain":
        return np.mean((reference - numpy_forward(initial, 0.5 * x[::-1])[0]) ** 2)
    raise AssertionError(name)


SPECS = {
    "feature_norm": "feature_norm(1)",
    "dr3": "dr3(1)",
    "effective_rank": "effective_rank(1)",
    "infer": "infer(1, beta=3, heads=4)",
    "c_chain": "c_chain(1, mode=fixed)",
}


@pytest.mark.parametrize("name", SPECS)
def test_terms_and_gradients_are_those_of_a_rewrite(name):
    """Gradients along three random directions, by differences of the rewrite in double precision."""
    member, params, context, initial = world(SPECS[name])
    value, gradient = jax.jit(jax.value_and_grad(lambda p: member.penalty(p, context(p))))(params)
    assert float(value) == pytest.approx(rewritten(name, params, initial["params"]), rel=1e-4)
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
        ends = [
            rewritten(name, jax.tree.map(lambda p, d, h=h: np.float64(p) + h * d, params, direction), initial["params"])
            for h in (-1e-6, 1e-6)
        ]
        slope = sum(np.sum(g * d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction)), strict=True))
        assert slope == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=2e-3, abs=1e-4)


def test_gradient_norm_is_that_of_torch_twice_differentiated():
    torch = pytest.importorskip("torch")
    member, params, context, _ = world("gradient_norm(1)", "tanh+")
    value, gradient = jax.jit(jax.value_and_grad(lambda p: member.penalty(p, context(p))))(params)
    leaves, structure = jax.tree.flatten(params)
    theirs = [torch.tensor(np.asarray(leaf), requires_grad=True) for leaf in leaves]
    p = jax.tree.unflatten(structure, theirs)
    h = torch.tensor(np.asarray(X).reshape(len(X), -1))
    for i in (0, 1):
        h = torch.tanh(h @ p[f"hidden_{i}"]["kernel"] + p[f"hidden_{i}"]["bias"])
    error = (h @ p["output"]["kernel"] + p["output"]["bias"])[:, 0] - torch.tensor(np.asarray(Y))
    first = torch.autograd.grad((0.5 * error**2).mean(), theirs, create_graph=True)
    penalty = sum((g**2).sum() for g in first)
    assert float(value) == pytest.approx(penalty.item(), rel=1e-4)
    second = torch.autograd.grad(penalty, theirs)
    for mine, peer in zip(jax.tree.leaves(gradient), second, strict=True):
        np.testing.assert_allclose(mine, peer.numpy(), rtol=1e-3, atol=1e-5)


def test_infer_is_zero_at_initialisation_for_beta_one():
    """Otherwise (1 - beta)^2 mean sum g^2 (catalogue, oracle O17)."""
    for beta in (1.0, 3.0):
        member, _, context, initial = world(f"infer(1, beta={beta})")
        made = context(initial["params"])
        g = rows(last_features(made.network, made.activations, "infer")) @ initial["params"]["auxiliary"]["kernel"]
        expected = (1 - beta) ** 2 * np.mean(np.sum(np.square(g), axis=1))
        assert float(member.penalty(initial["params"], made)) == pytest.approx(expected, rel=1e-5)


def test_infer_trains_its_heads_and_the_network_does_not_use_them():
    member, params, context, _ = world("infer")
    gradient = jax.grad(lambda p: member.penalty(p, context(p)))(params)
    assert np.any(gradient["auxiliary"]["kernel"])
    other = {**params, "auxiliary": {"kernel": params["auxiliary"]["kernel"] + 1}}
    np.testing.assert_array_equal(context(params).outputs, context(other).outputs)


def test_after_an_update_the_context_holds_the_parameters_of_before_and_the_memories_of_now():
    _, _, context, initial = world("c_chain(lag=1)+spectral_reg")
    members = build("c_chain(lag=1)+spectral_reg", mitigations)
    new = jax.tree.map(lambda p: p + 1, initial["params"])
    learner = Learner({**initial, "params": new}, None)
    memory = compose.after_update(members, learner, context(initial["params"])).variables["memory"]
    jax.tree.map(np.testing.assert_array_equal, memory["c_chain"].lagged, (initial["params"],))
    old = initial["memory"]["spectral_reg"]["output/kernel"]
    expected = iterate(new["output"]["kernel"], *old)
    jax.tree.map(np.testing.assert_array_equal, memory["spectral_reg"]["output/kernel"], expected)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("parseval", "spectral_reg")])
def test_a_dead_network_has_finite_gradients(name):
    """Features that are all zero: no NaN, and nothing that could revive them."""
    member, params, context, _ = world(mitigations.get(name)().name, "")
    dead = {**params, "hidden_1": {"kernel": params["hidden_1"]["kernel"], "bias": jnp.full(8, -100.0)}}
    gradient = jax.grad(lambda p: member.penalty(p, context(p)))(dead)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


MISSING = {
    "c_chain": {
        "memory": "c_chain needs the member's memory",
        "reference": "another batch of inputs of the same stream",
    },
    "dr3": {"following": "dr3 needs the activations on the next observations, which only an agent has"},
    "gradient_norm": {"loss": r"gradient_norm needs the loss .*: pass Context\(loss=...\)"},
    "infer": {"inputs": r"infer needs the inputs of the batch: pass Context\(inputs=...\)"},
    "spectral_reg": {"memory": "spectral_reg needs the member's memory"},
    "feature_norm": {"activations": r"pass Context\(activations=...\) with them; got \(none\)"},
}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in MISSING.items() for field in fields])
def test_what_a_loop_does_not_give_is_asked_for(name, field):
    member, params, context, _ = world(name)
    lacking = replace(context(params), **{field: {} if field == "activations" else None})
    with pytest.raises(UserError, match=MISSING[name][field]):
        member.penalty(params, lacking)


def test_dr3_is_refused_by_a_stream_of_tasks_before_anything_is_computed():
    with pytest.raises(
        UserError, match="dr3 cannot be used in a stream of tasks: it needs the activations on the next"
    ):
        compose.check_needs([one("dr3")], "a stream of tasks", missing=["following"])
    zero, without = (train(method(spec), 0, "regression")[0].variables["params"] for spec in ("dr3(0)", ()))
    jax.tree.map(np.testing.assert_array_equal, zero, without)


def test_roles_of_parameters():
    network = build_one("minatar(8)", networks).build(
        Architecture(Regression(0, 1), "layer", predictions=2, dueling=True, noise=0.5, auxiliary=3)
    )
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 10, 10, 4)))["params"]
    found = roles(params, network)
    layers = ("advantage_hidden", "advantage_output", "conv_0", "value_hidden", "value_output")
    heads = ("advantage_auxiliary", "value_auxiliary")
    assert sorted(found.weights) == sorted((name, "kernel") for name in (*layers, *heads))
    assert sorted(found.biases) == [(name, "bias") for name in layers]
    hidden = ("norm_advantage_hidden", "norm_conv_0", "norm_value_hidden")
    assert sorted(found.gains) == [(name, "scale") for name in hidden]
    assert sorted(found.offsets) == [(name, "bias") for name in hidden]


def test_the_last_features_of_a_network_of_ones_own():
    network = bare(jnp.ones((2, 3)), output_kernel=("out", "kernel"))
    activations = {"h": Activation(jnp.ones((4, 3)), jnp.ones((4, 3)))}
    with pytest.raises(UserError, match=r"give Network\(features=...\)"):
        last_features(network, activations, "feature_norm")
    assert last_features(replace(network, features=("h",)), activations, "feature_norm")[0].shape == (4, 3)
