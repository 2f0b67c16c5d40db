"""The contract that every diagnostic keeps, and `diagnose` itself: choice, errors, jit, vmap, NumPy, lightness."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.activations import NONLINEARITIES
from plasticity.diagnostics import base, diagnose, diagnostic, diagnostics, get, thresholds_of, unit_of
from plasticity.errors import UserError
from plasticity.network import Activation

EXPECTED = {
    "affine_fit_units",
    "always_zero_units",
    "cloned_units",
    "cloned_units_centred",
    "condition_number",
    "dead_units",
    "distance_from_init",
    "dormant_overlap",
    "dormant_units",
    "effective_lr_adam",
    "effective_lr_sgd",
    "effective_rank",
    "feature_norm",
    "feature_rank",
    "first_moment_norm",
    "gradient_agreement",
    "gradient_inactive_units",
    "gradient_l1_norm",
    "gradient_noise",
    "gradient_norm",
    "gradient_signal",
    "gradient_snr",
    "gradient_zero_share",
    "isometry_deviation",
    "linearized_units",
    "low_variance_units",
    "moment_ratio_max",
    "moment_ratio_mean",
    "nearly_dead_units",
    "numerical_rank",
    "one_sided_units",
    "optimization_readiness",
    "participation_ratio",
    "pca_rank",
    "preactivation_excess_kurtosis",
    "preactivation_log_std_ratio",
    "preactivation_mean",
    "preactivation_shift",
    "preactivation_skewness",
    "preactivation_std",
    "rank_cap",
    "rarely_active_units",
    "relative_distance_from_init",
    "saturated_activation_share",
    "second_moment_norm",
    "sign_entropy",
    "sorted_distance_from_init",
    "srank",
    "stable_rank",
    "top_singular_mean_alignment",
    "top_singular_share_of_energy",
    "top_singular_share_of_sum",
    "top_singular_value",
    "update_gradient_cosine",
    "update_l1_norm",
    "update_norm",
    "update_previous_cosine",
    "update_ratio",
    "update_zero_share",
    "weight_effective_rank",
    "weight_excess_kurtosis",
    "weight_l1_norm",
    "weight_magnitude",
    "weight_mean",
    "weight_norm",
    "weight_numerical_rank",
    "weight_skewness",
    "weight_spectral_norm",
    "weight_srank",
    "weight_stable_rank",
    "weight_std",
    "weight_zero_share",
    "zero_activation_share",
}


def arguments(seed, activation="relu"):
    """Everything that a diagnostic may need, of a net with a convolution and a dense layer."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def tree():
        return {"conv": {"kernel": normal(3, 3, 2, 4)}, "dense": {"kernel": normal(6, 5), "bias": normal(5)}}

    pres = {
        "conv": normal(6, 2, 3, 4) + np.float32([0, 5, -5, 1]),
        "dense": normal(6, 5) * np.float32([1, 2, 9, 0.1, 1]),
    }
    post = NONLINEARITIES[activation].apply
    return {
        "activations": {name: Activation(pre, np.asarray(post(pre, 0.1))) for name, pre in pres.items()},
        "params": tree(),
        "initial_params": tree(),
        "grads": tree(),
        "updates": tree(),
        "reference_activations": {
            name: Activation(pre + 1, np.asarray(post(pre + 1, 0.1))) for name, pre in pres.items()
        },
        "grads_2": tree(),
        "previous_updates": tree(),
        "opt_state": (Moments(np.float32(3), tree(), jax.tree.map(np.square, tree())), ()),
        "learning_rate": np.float32(0.1),
    }


class Moments(NamedTuple):
    """As optax's `ScaleByAdamState`, with a count of floats, so that a diverged run can be all NaN."""

    count: Any
    mu: Any
    nu: Any


#: Diagnostics that are defined for some nonlinearities only.
NONLINEARITY = {"saturated_activation_share": "tanh"}


def given_to(name, seed=0):
    activation = NONLINEARITY.get(name, "relu")
    return {**arguments(seed, activation), "activation": activation}


def test_the_registered_names():
    assert set(diagnostics()) >= EXPECTED


def test_integers_and_booleans_are_computed_in_float32():
    rng = np.random.default_rng(0)
    pre = rng.integers(-3, 4, (12, 5))
    tree = {"dense": {"kernel": rng.integers(-3, 4, (5, 4)), "bias": rng.integers(0, 2, 4).astype(bool)}}

    def given(convert):
        trees = ("params", "grads", "updates", "grads_2", "previous_updates")
        layer = {"h": (convert(pre), convert(np.maximum(pre, 0)))}
        other = {"h": (convert(pre[:6] + 1), convert(np.maximum(pre[:6] + 1, 0)))}
        return {"activations": layer, "reference_activations": other, **{n: jax.tree.map(convert, tree) for n in trees}}

    measure = jax.jit(lambda given: diagnose(**given))
    whole, real = measure(given(np.asarray)), measure(given(np.float32))
    assert whole.keys() == real.keys()
    for key, value in whole.items():
        assert value.dtype == jnp.float32, key
        np.testing.assert_array_equal(value, real[key], err_msg=key)


@pytest.mark.parametrize("name", sorted(n for n in diagnostics() if n not in NONLINEARITY))
def test_nothing_at_all_has_a_value(name):
    given = {need: {} for need in get(name).needs if need.endswith("activations") or need in TREES}
    if "preactivations" in get(name).needs or "singular_values" in " ".join(get(name).needs):
        given["activations"] = {}
    given |= {"learning_rate": 0.1, "opt_state": Moments(3, {}, {})}
    given.pop("preactivations", None)
    value = diagnose(**given, choose=[name])
    assert value.keys() == {name}
    # No entries have norm 0 and no mean; a learning rate over the norm of nothing is infinite.
    assert np.isnan(value[name]) or float(value[name]) == (np.inf if name.startswith("effective_lr") else 0)


TREES = ("params", "initial_params", "grads", "updates", "grads_2", "previous_updates")
RUNS = 3  # of which the last has diverged


@pytest.fixture(scope="module")
def measured():
    """All diagnostics of two sound runs and a diverged one: each run alone, each under jit, and all under vmap."""
    runs = [arguments(0), arguments(1), jax.tree.map(lambda x: np.full_like(x, np.nan), arguments(2))]
    jitted = jax.jit(lambda given: diagnose(**given))
    batched = jax.jit(jax.vmap(lambda given: diagnose(**given)))(jax.tree.map(lambda *x: np.stack(x), *runs))
    return {"eager": diagnose(**runs[0]), "jit": [jitted(run) for run in runs], "vmap": batched}


@pytest.fixture(scope="module")
def measured_bounded():
    """The same with a nonlinearity that is bounded, for what is defined for those only."""
    chosen = sorted(NONLINEARITY)
    runs = [arguments(seed, "tanh") for seed in range(RUNS)]
    runs[-1] = jax.tree.map(lambda x: np.full_like(x, np.nan), runs[-1])
    jitted = jax.jit(lambda given: diagnose(**given, activation="tanh", choose=chosen))
    batched = jax.jit(jax.vmap(jitted))(jax.tree.map(lambda *x: np.stack(x), *runs))
    eager = diagnose(**runs[0], activation="tanh", choose=chosen)
    return {"eager": eager, "jit": [jitted(run) for run in runs], "vmap": batched}


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_contract(name, measured, measured_bounded):
    member = get(name)
    measured = measured_bounded if name in NONLINEARITY else measured
    assert member.name == name
    assert member.unit
    assert member.cost
    assert member.reference
    assert len(member.summary) > 20
    assert set(member.needs) <= set(base.NEEDS)
    low, high = member.range
    keys = [key for key in measured["eager"] if key.partition("/")[0] == name]
    assert name in keys
    assert len(keys) > 1
    for key in keys:
        assert unit_of(key) == member.unit
        value = measured["eager"][key]
        assert isinstance(value, jax.Array)
        assert value.shape == ()
        assert jnp.issubdtype(value.dtype, jnp.floating)
        assert low <= float(value) <= high
        # Some are differences of nearly equal numbers, which come out near zero.
        np.testing.assert_allclose(measured["jit"][0][key], value, rtol=2e-5, atol=1e-6, err_msg=f"jit: {key}")
        for run in range(RUNS):
            expected, batched = measured["jit"][run][key], measured["vmap"][key][run]
            np.testing.assert_allclose(batched, expected, rtol=1e-4, atol=1e-6, err_msg=f"vmap: {key}")
            assert np.isnan(batched) == (run == RUNS - 1), key


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_alone_and_in_company_are_the_same(name, measured, measured_bounded):
    measured = measured_bounded if name in NONLINEARITY else measured
    alone = diagnose(**given_to(name), choose=[name])
    assert alone.keys() == {key for key in measured["eager"] if key.partition("/")[0] == name}
    for key in alone:
        np.testing.assert_allclose(alone[key], measured["eager"][key], rtol=1e-4, atol=1e-6, err_msg=key)


@functools.cache
def left_without(need, activation):
    given = {**arguments(0, activation), need: None}
    return jax.eval_shape(functools.partial(diagnose, activation=activation), **given).keys()


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_missing_needs_are_named(name):
    for need in get(name).needs:
        if need == "preactivations" or need.endswith("singular_values"):
            continue
        given = {**given_to(name), need: None}
        with pytest.raises(UserError, match=rf"{name}.*{need}="):
            diagnose(**given, choose=[name])
        assert name not in left_without(need, given["activation"])


@pytest.mark.parametrize("activation", sorted(NONLINEARITIES))
def test_every_nonlinearity_gives_every_unit_metric(activation):
    given = {"activations": arguments(0, activation)["activations"]}
    chosen = [
        name
        for name in EXPECTED - NONLINEARITY.keys()
        if "activations" in get(name).needs
        and not any(n.endswith("singular_values") or n == "reference_activations" for n in get(name).needs)
    ]
    chosen.append("affine_fit_units")
    values = jax.jit(lambda given: diagnose(**given, activation=activation, choose=chosen))(given)
    assert {key.partition("/")[0] for key in values} == set(chosen)
    assert all(np.isfinite(value) for value in values.values())


def test_choice():
    given = arguments(0)
    assert diagnose(**given, choose=[]) == {}
    assert diagnose(choose=None) == {}
    assert diagnose(**given, choose="srank").keys() == {"srank", "srank/conv", "srank/dense"}
    assert diagnose(**given, choose=iter(["srank", "srank"])).keys() == {"srank", "srank/conv", "srank/dense"}


def test_mixed_layers_with_and_without_preactivations():
    given = arguments(0)["activations"]
    given["dense"] = given["dense"].post
    values = diagnose(activations=given)
    assert "dead_units/dense" in values
    assert "affine_fit_units" not in values
    with pytest.raises(UserError, match=r"affine_fit_units.*pre, post"):
        diagnose(activations=given, choose=["affine_fit_units"])


def test_pairs_and_records_are_the_same():
    given = arguments(0)["activations"]
    pairs = {name: tuple(value) for name, value in given.items()}
    assert {k: float(v) for k, v in diagnose(activations=given).items()} == {
        k: float(v) for k, v in diagnose(activations=pairs).items()
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"choose": ["dead_unit"]}, r"unknown diagnostic 'dead_unit'\. Did you mean 'dead_units'"),
        ({"choose": [], "taus": 1.0}, r"unknown threshold 'taus'\. Did you mean 'tau'"),
        ({"activations": {"h": np.ones((2, 2))}, "activation": "rellu"}, r"unknown activation 'rellu'\. Did you mean"),
        ({"activations": {"h": np.ones(3)}}, r"activations\['h'\].*\(3,\)"),
        ({"activations": {"h": np.ones((0, 3))}}, r"activations\['h'\].*\(0, 3\)"),
        ({"activations": {"h": (np.ones((2, 3)), np.ones((2, 4)))}}, r"activations\['h'\] does not fit"),
        ({"activations": {"h": (np.ones((2, 3)), np.ones((3, 3)))}}, r"activations\['h'\] does not fit"),
        ({"activations": np.ones((2, 3))}, r"activations must map layer names to arrays, got ndarray"),
        ({"activations": {"h": [["a", "b"]]}}, r"activations\['h'\] must be an array of numbers, got list"),
        ({"activations": {"h": np.ones((2, 2), complex)}}, r"activations\['h'\] must be real numbers, got complex"),
        ({"reference_activations": {"h": np.ones(3)}}, r"reference_activations\['h'\].*\(3,\)"),
        (
            {"activations": {"h": np.ones((2, 3))}, "reference_activations": {"g": np.ones((2, 3))}},
            r"activations have the layers h, but reference_activations g",
        ),
        (
            {"activations": {"h": np.ones((2, 3))}, "reference_activations": {"h": np.ones((2, 4))}},
            r"layer 'h' has 3 units in activations, 4 in reference_activations",
        ),
        ({"params": {"h": {"kernel": "wide"}}}, r"params\['h'\]\['kernel'\] must be an array of numbers, got str"),
        ({"grads": {"h": np.array(["a"])}}, r"grads\['h'\] must be an array of numbers"),
        (
            {"updates": {"h": np.ones(2, complex)}},
            r"updates\['h'\] must be an array of numbers, real ones, got complex",
        ),
        ({"grads_2": {"h": jax.random.key(0)}}, r"grads_2\['h'\] must be an array of numbers, real ones, got key"),
        ({"params": {"h": np.zeros(2, [("a", "f4")])}}, r"params\['h'\] must be an array of numbers, real ones"),
        ({"params": {"h": [1, object()]}}, r"params\['h'\]\[1\] must be an array of numbers, got object"),
        ({"params": {"h": np.ones(2)}, "learning_rate": [1, 2]}, r"learning_rate= must be one real number.*\(2,\)"),
        (
            {"params": {"h": np.ones(2)}, "learning_rate": "fast"},
            r"learning_rate= must be an array of numbers, got str",
        ),
        ({"choose": [], "tau": "low"}, r"threshold tau= must be an array of numbers, got str"),
        ({"choose": [], "tau": [0.1, 0.2]}, r"threshold tau= must be one real number, got float32 of shape \(2,\)"),
        ({"choose": [], "tau": 1j}, r"threshold tau= must be one real number, got complex64"),
        ({"activations": {"h": np.ones((2, 0))}}, r"activations\['h'\].*not be empty, got \(2, 0\)"),
        ({"activations": {"h": [[1, 2], [3]]}}, r"activations\['h'\] must be an array of numbers, got list"),
        ({"choose": [], "spectrum": "grams"}, r"unknown spectrum 'grams'\. Did you mean 'gram'"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(UserError, match=message):
        diagnose(**arguments)


def test_unit_and_thresholds_of_a_key():
    assert unit_of("dead_units") == unit_of("dead_units/hidden_0") == "share of units"
    assert thresholds_of("dormant_units/h") == {"tau": 0.025}
    assert thresholds_of("dormant_units", tau=0.1, delta=0.2) == {"tau": 0.1}
    assert thresholds_of("weight_norm") == {}
    with pytest.raises(UserError, match="unknown diagnostic"):
        unit_of("online_loss")


def test_thresholds_may_be_traced():
    h = np.array([[0.0, 1, 3]])
    count = jax.jit(lambda tau: diagnose(activations={"h": h}, choose=["dormant_units"], tau=tau)["dormant_units"])
    assert float(count(0.5)) == pytest.approx(1 / 3)
    assert float(count(0.8)) == pytest.approx(2 / 3)


def test_registration_refuses_what_would_confuse(monkeypatch):
    monkeypatch.setattr(base, "_members", dict(diagnostics()))
    stated = {"unit": "u", "range": (0, 1), "cost": "none", "reference": "none"}

    def documented(seen, *, tau=0.025):
        """A diagnostic that reads nothing."""
        return base.Reading(jnp.zeros(()), {})

    def other_default(seen, *, tau=0.5):
        """A diagnostic whose threshold has another default."""

    def undocumented(seen): ...

    for name, needs, compute, message in [
        ("dead_units", (), documented, "registered twice"),
        ("new", ("gradients",), documented, "gradients"),
        ("new/layer", (), documented, "no '/'"),
        ("new", (), undocumented, "docstring"),
        ("new", (), other_default, "different defaults"),
    ]:
        with pytest.raises(TypeError, match=message):
            diagnostic(name=name, needs=needs, **stated)(compute)
    diagnostic(name="new", needs=(), **stated)(documented)
    assert float(diagnose(choose=["new"])["new"]) == 0


def test_importing_diagnostics_is_light():
    # Nothing is decomposed here, because jaxlib itself imports SciPy for that.
    code = (
        "import sys, numpy as np; from plasticity.diagnostics import diagnose; "
        "diagnose(params={'h': np.ones((2, 2))}, learning_rate=1.0, choose=['weight_norm', 'effective_lr_sgd']); "
        "print(sorted({'flax', 'optax', 'scipy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).strip() == "[]"
