"""The contract that every diagnostic keeps, and `diagnose` itself: choice, errors, jit, vmap, NumPy, lightness."""

import subprocess
import sys
from pathlib import Path

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
    "dead_units",
    "distance_from_init",
    "dormant_units",
    "effective_lr_adam",
    "effective_lr_sgd",
    "effective_rank",
    "feature_rank",
    "gradient_norm",
    "linearized_units",
    "low_variance_units",
    "one_sided_units",
    "relative_distance_from_init",
    "sign_entropy",
    "srank",
    "stable_rank",
    "update_norm",
    "update_ratio",
    "weight_magnitude",
    "weight_norm",
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
        "learning_rate": np.float32(0.1),
    }


def test_the_registered_names():
    assert set(diagnostics()) >= EXPECTED


RUNS = 3  # of which the last has diverged


@pytest.fixture(scope="module")
def measured():
    """All diagnostics of two sound runs and a diverged one: each run alone, each under jit, and all under vmap."""
    runs = [arguments(0), arguments(1), jax.tree.map(lambda x: np.full_like(x, np.nan), arguments(2))]
    jitted = jax.jit(lambda given: diagnose(**given))
    batched = jax.jit(jax.vmap(lambda given: diagnose(**given)))(jax.tree.map(lambda *x: np.stack(x), *runs))
    return {"eager": diagnose(**runs[0]), "jit": [jitted(run) for run in runs], "vmap": batched}


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_contract(name, measured):
    member = get(name)
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
        np.testing.assert_allclose(measured["jit"][0][key], value, rtol=1e-5, err_msg=f"jit: {key}")
        for run in range(RUNS):
            expected, batched = measured["jit"][run][key], measured["vmap"][key][run]
            np.testing.assert_allclose(batched, expected, rtol=1e-4, err_msg=f"vmap: {key}")
            assert np.isnan(batched) == (run == RUNS - 1), key


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_alone_and_in_company_are_the_same(name, measured):
    alone = diagnose(**arguments(0), choose=[name])
    assert alone.keys() == {key for key in measured["eager"] if key.partition("/")[0] == name}
    for key in alone:
        np.testing.assert_allclose(alone[key], measured["eager"][key], rtol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", sorted(diagnostics()))
def test_missing_needs_are_named(name):
    for need in get(name).needs:
        if need in ("preactivations", "singular_values"):
            continue
        given = arguments(0)
        given[need] = None
        with pytest.raises(UserError, match=rf"{name}.*{need}="):
            diagnose(**given, choose=[name])
        assert name not in jax.eval_shape(lambda given: diagnose(**given), given)


@pytest.mark.parametrize("activation", sorted(NONLINEARITIES))
def test_every_nonlinearity_gives_every_unit_metric(activation):
    given = {"activations": arguments(0, activation)["activations"]}
    chosen = [
        name for name in EXPECTED if "activations" in get(name).needs and "singular_values" not in get(name).needs
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
        "diagnose(params={'h': np.ones((2, 2))}, learning_rate=1.0); "
        "print(sorted({'flax', 'optax', 'scipy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
