"""GraMa, signal and noise of two batches, and directions of steps: by hand, by NumPy, on constructed gradients."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from plasticity.diagnostics import diagnose, gradients
from plasticity.errors import UserError

TWO = ("gradient_signal", "gradient_noise", "gradient_snr", "gradient_agreement", "optimization_readiness")
STEPS = ("update_gradient_cosine", "update_previous_cosine")
ALL = (*TWO, *STEPS, "gradient_inactive_units")


@jax.jit
def compiled(trees):
    return diagnose(**trees, choose=ALL, grama_tau=0.5)


def readings(a, b):
    """The five readings of two gradients, given as vectors of one layer."""
    found = diagnose(grads={"h": np.asarray(a)}, grads_2={"h": np.asarray(b)}, choose=TWO)
    for name in TWO:
        np.testing.assert_array_equal(found[name], found[f"{name}/h"])
    return [float(found[name]) for name in TWO]


def tree(rng):
    """A gradient with a convolution, a dense layer, a normalisation and a leaf without entries."""
    return {
        "conv": {"kernel": rng.normal(size=(2, 2, 3, 4)).astype(np.float32)},
        "dense": {"kernel": rng.normal(size=(5, 6)).astype(np.float32), "bias": rng.normal(size=6).astype(np.float32)},
        "norm": {"scale": rng.normal(size=3).astype(np.float32), "none": np.zeros((0, 2), np.float32)},
    }


# --- GraMa ----------------------------------------------------------------------------------------------------------


def test_grama_scores_by_hand():
    gradient = np.array([[1.0, -3, 0], [1, -1, 0]])  # mean magnitudes 1, 2, 0; their mean 1
    np.testing.assert_allclose(gradients.grama_scores(gradient), [1, 2, 0], rtol=1e-6)
    assert gradients.grama_mask(gradient).tolist() == [False, False, True]
    assert gradients.grama_mask(gradient, 1.0).tolist() == [True, False, True]  # at most, not below


def test_grama_of_a_convolution_is_over_places_and_inputs():
    gradient = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    np.testing.assert_allclose(
        gradients.grama_scores(gradient), gradients.grama_scores(gradient.reshape(18, 4)), rtol=1e-6
    )
    mean = np.abs(gradient).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(gradients.grama_scores(gradient), mean / mean.mean(), rtol=1e-5)


def test_a_kernel_without_any_gradient_is_wholly_inactive():
    assert not gradients.grama_scores(np.zeros((3, 2))).any()
    assert gradients.grama_mask(np.zeros((3, 2))).all()


@pytest.mark.parametrize("scale", [1e-35, 1e-20, 1e20, 1e36])
def test_grama_does_not_depend_on_the_scale_of_the_loss(scale):
    gradient = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_allclose(
        gradients.grama_scores(gradient * np.float32(scale)), gradients.grama_scores(gradient), rtol=1e-5
    )


def test_units_killed_by_a_bias_and_units_cut_off_are_inactive():
    rng = np.random.default_rng(0)
    params = {
        "hidden": {"kernel": rng.normal(size=(3, 5)), "bias": np.array([0.0, -100, 0, 0, 0])},  # the second never fires
        "output": {"kernel": rng.normal(size=(5, 2)) * np.array([1.0, 1, 1, 0, 1])[:, None]},  # the fourth is not read
    }

    def loss(params, x):
        h = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
        return jnp.mean((h @ params["output"]["kernel"] - 1) ** 2)

    grads = jax.jit(jax.grad(loss))(params, rng.normal(size=(64, 3)))
    assert gradients.grama_mask(grads["hidden"]["kernel"]).tolist() == [False, True, False, True, False]
    found = diagnose(grads=grads, choose=["gradient_inactive_units"])
    assert float(found["gradient_inactive_units/hidden"]) == pytest.approx(2 / 5)
    assert float(found["gradient_inactive_units/output"]) == 0
    assert float(found["gradient_inactive_units"]) == pytest.approx(2 / 7)  # units over units, not the mean of shares


def test_layers_without_kernels_have_no_inactive_units():
    found = diagnose(grads={"norm": {"scale": np.zeros(3)}}, choose=["gradient_inactive_units"])
    assert list(found) == ["gradient_inactive_units"]
    assert np.isnan(found["gradient_inactive_units"])


@pytest.mark.parametrize("gradient", [np.ones(3), np.ones((0, 3)), np.ones((3, 0))])
def test_what_is_no_kernel_is_told(gradient):
    with pytest.raises(UserError, match=r"shaped \[\.\.\., inputs, units\] and not be empty"):
        gradients.grama_scores(gradient)


# --- two batches ----------------------------------------------------------------------------------------------------


def test_two_batches_by_hand():
    assert readings([3.0, 4], [4.0, 3]) == pytest.approx([24, 1, 24, 24 / 25, 24**2 / 25], rel=1e-6)
    assert readings([3.0, 4], [-3.0, -4]) == pytest.approx([-25, 50, -0.5, -1, 0], rel=1e-6)
    assert readings([3.0, 4], [3.0, 4]) == pytest.approx([25, 0, np.inf, 1, 25], rel=1e-6)
    assert readings([3.0, 0], [0.0, 4]) == pytest.approx([0, 12.5, 0, 0, 0])
    assert readings([0.0, 0], [0.0, 0]) == [0, 0, 0, 0, 0]
    assert readings([0.0, 0], [3.0, 4]) == pytest.approx([0, 12.5, 0, 0, 0])


def test_layers_and_network_are_vectors_of_their_own():
    a = {"x": np.array([3.0, 4]), "y": np.array([1.0])}
    b = {"x": np.array([4.0, 3]), "y": np.array([-1.0])}
    found = diagnose(grads=a, grads_2=b, choose=["gradient_signal", "gradient_noise", "gradient_snr"])
    assert float(found["gradient_signal"]) == pytest.approx(23)
    assert float(found["gradient_signal/y"]) == pytest.approx(-1)
    assert float(found["gradient_noise"]) == pytest.approx(1 + 2)
    assert float(found["gradient_snr"]) == pytest.approx(23 / 3)


def test_signal_and_noise_are_unbiased():
    rng = np.random.default_rng(0)
    mean, spread, pairs = np.array([1.0, -2, 0.5]), np.array([1.0, 3, 0.1]), 20_000
    a, b = (mean + spread * rng.normal(size=(pairs, 3)) for _ in range(2))
    signal, noise = (np.asarray(jax.jit(jax.vmap(f))(a, b)) for f in (gradients.signal, gradients.noise))
    for values, truth in (signal, np.sum(mean**2)), (noise, np.sum(spread**2)):
        assert abs(values.mean() - truth) < 4 * values.std() / np.sqrt(pairs)
    assert signal.min() < 0  # unbiased, so not bounded by what it estimates


def test_readiness_bounds_the_gain_of_one_step_on_a_quadratic():
    # L(theta) = theta^2 / 2, whose curvature is 1, with noisy gradients: no step along one of them is expected to gain
    # more than ||E g||^4 / (2 E ||g||^2), half of what is reported.
    rng = np.random.default_rng(0)
    theta, pairs = 2.0, 40_000
    a, b = (theta + 3 * rng.normal(size=(pairs, 1)) for _ in range(2))
    rates = np.linspace(0, 1, 101)
    gain = max(theta**2 / 2 - np.mean((theta - rate * a) ** 2) / 2 for rate in rates)
    strength = float(np.mean(jax.vmap(gradients.signal)(a, b)))
    reliability = strength / np.mean(a**2)
    assert gain == pytest.approx(strength * reliability / 2, rel=0.03)
    assert float(gradients.readiness([np.array([2.0])], [np.array([2.0])])) == pytest.approx(4)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15])
def test_ratios_do_not_depend_on_the_scale_of_the_loss(scale):
    a, b = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32)
    small = np.float32(scale)
    assert float(gradients.cosine(a * small, b)) == pytest.approx(float(gradients.cosine(a, b)), rel=1e-5)
    assert float(gradients.signal_to_noise(a * small, b * small)) == pytest.approx(
        float(gradients.signal_to_noise(a, b)), rel=1e-5
    )


def test_trees_that_do_not_match_are_told():
    a, b = {"h": np.ones((2, 2))}, {"h": np.ones((2, 3))}
    for given_ in ({"grads": a, "grads_2": b}, {"grads": a, "updates": b}, {"updates": a, "previous_updates": b}):
        name = {"grads_2": TWO[0], "updates": STEPS[0], "previous_updates": STEPS[1]}[list(given_)[1]]
        with pytest.raises(UserError, match="structure or shapes"):
            diagnose(**given_, choose=[name])


def test_cosines_and_norms_against_torch():
    torch = pytest.importorskip("torch")
    a, b = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    cosine = torch.nn.functional.cosine_similarity(torch.from_numpy(a), torch.from_numpy(b), dim=0)
    assert float(gradients.cosine(a, b)) == pytest.approx(float(cosine), abs=1e-6)
    difference = torch.linalg.vector_norm(torch.from_numpy(a) - torch.from_numpy(b))
    assert float(gradients.noise(a, b)) == pytest.approx(float(difference) ** 2 / 2, rel=1e-5)


# --- steps ----------------------------------------------------------------------------------------------------------


def test_steps_by_hand():
    grads = {"a": np.array([3.0, 4]), "b": np.array([1.0]), "c": np.array([2.0])}
    updates = {"a": np.array([-0.3, -0.4]), "b": np.array([1.0]), "c": np.array([0.0])}
    found = diagnose(updates=updates, grads=grads, previous_updates=grads, choose=STEPS)
    assert float(found["update_gradient_cosine/a"]) == pytest.approx(1)  # plain descent
    assert float(found["update_gradient_cosine/b"]) == -1
    assert float(found["update_gradient_cosine/c"]) == 0
    assert float(found["update_previous_cosine/a"]) == pytest.approx(-1)
    assert float(found["update_gradient_cosine"]) == pytest.approx(1.5 / np.sqrt(30 * 1.25), rel=1e-5)


# --- an independent rewrite, and invariances ------------------------------------------------------------------------


def rewrite(trees):
    """Every reading of the network and its layers, in float64 on flat vectors."""

    def flat(tree):
        return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])

    def cosine(a, b):
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    found = {}
    for suffix, part in [("", lambda t: t), *((f"/{name}", lambda t, name=name: t[name]) for name in trees["grads"])]:
        g, g2, d, before = (flat(part(trees[name])) for name in ("grads", "grads_2", "updates", "previous_updates"))
        squares = (g @ g + g2 @ g2) / 2
        values = (g @ g2, np.var([g, g2], axis=0, ddof=1).sum(), None, cosine(g, g2), max(g @ g2, 0) ** 2 / squares)
        values = (*values[:2], values[0] / values[1], *values[3:], cosine(d, -g), cosine(d, before))
        found |= {f"{name}{suffix}": value for name, value in zip((*TWO, *STEPS), values, strict=True)}
    inactive = {}
    for name, leaves in trees["grads"].items():
        for kernel in (leaf for leaf in leaves.values() if leaf.ndim > 1 and leaf.size):
            mean = [np.mean(np.abs(kernel[..., j].astype(np.float64))) for j in range(kernel.shape[-1])]
            inactive[name] = [m <= 0.5 * np.mean(mean) for m in mean]
            found[f"gradient_inactive_units/{name}"] = np.mean(inactive[name])
    found["gradient_inactive_units"] = np.mean([unit for own in inactive.values() for unit in own])
    return found


def some(seed):
    rng = np.random.default_rng(seed)
    trees = {name: tree(rng) for name in ("grads", "grads_2", "updates", "previous_updates")}
    trees["grads"]["dense"]["kernel"][:, rng.integers(6)] *= 0.1
    return trees


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_against_an_independent_rewrite(seed):
    trees = some(seed)
    found, expected = compiled(trees), rewrite(trees)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4, abs=2e-5), name


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_order_of_units_does_not_matter_nor_which_batch_is_first(seed):
    trees, rng = some(seed), np.random.default_rng(seed)
    inputs, units = rng.permutation(5), rng.permutation(6)

    def moved(tree):
        dense = {"kernel": tree["dense"]["kernel"][inputs][:, units], "bias": tree["dense"]["bias"][units]}
        return {**tree, "dense": dense}

    before, after = compiled(trees), compiled({name: moved(t) for name, t in trees.items()})
    swapped = compiled({**trees, "grads": trees["grads_2"], "grads_2": trees["grads"]})
    for name, value in before.items():
        assert float(after[name]) == pytest.approx(float(value), rel=1e-4, abs=2e-5), name
        if name.partition("/")[0] in TWO:
            assert float(swapped[name]) == pytest.approx(float(value), rel=1e-4, abs=2e-5), name


def test_nan_in_a_layer_stays_there():
    trees = some(0)
    trees["grads"]["dense"]["kernel"][0, 0] = np.nan
    for name, value in compiled(trees).items():
        if name.partition("/")[0] != "update_previous_cosine":
            assert np.isnan(value) == (name.partition("/")[2] in ("", "dense")), name
