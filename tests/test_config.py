"""Configs: strengths are leaves, choices are structure, ranges are checked on numbers and never on tracers."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from plasticity.config import Config, allowed_range, config, static, traced
from plasticity.errors import UserError


@config
class Example(Config):
    """For the tests."""

    name = "example"

    strength: float = traced(0.5, ge=0, le=1)
    rate: float = traced(1.0, gt=0)
    period: int = static(10, ge=1)
    kind: str = static("plain", choices=("plain", "fancy"))
    limit: float | None = static(None, type=float)

    def validate(self):
        if self.kind == "fancy" and self.period > 100:
            raise UserError("example: fancy needs a period of at most 100")


def structure(**fields):
    return jax.tree.structure(Example(**fields))


def test_strengths_are_leaves_and_share_a_structure():
    assert jax.tree.leaves(Example(0.1, 2.0)) == [0.1, 2.0]
    assert structure() == structure(strength=0.1, rate=3.0)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(Example())]
    assert paths == [".strength", ".rate"]


@pytest.mark.parametrize("change", [{"period": 11}, {"kind": "fancy"}, {"limit": 1.0}])
def test_choices_are_structure(change):
    assert structure() != structure(**change)
    assert jax.tree.leaves(Example(**change)) == jax.tree.leaves(Example())  # a static number is no leaf


@config
class Inert(Config):
    """A strength whose zero means that there is nothing."""

    name = "inert"

    strength: float = traced(0.5)
    inertia: float = traced(0.0, ge=0, absent=0.0)


def test_what_is_absent_is_structure_and_no_leaf():
    assert jax.tree.leaves(Inert()) == [0.5]
    assert jax.tree.leaves(Inert(inertia=0.9)) == [0.5, 0.9]
    assert jax.tree.structure(Inert()) == jax.tree.structure(Inert(0.1)) != jax.tree.structure(Inert(inertia=0.9))
    doubled = jax.tree.map(lambda x: 2 * x, Inert())
    assert doubled == Inert(1.0)
    # An array is a leaf whatever it holds, and so is the axis of a vmap.
    assert len(jax.tree.leaves(Inert(inertia=jnp.zeros(3)))) == 2
    axes = Inert(None, 0)
    assert jax.vmap(lambda c: c.inertia + c.strength, in_axes=(axes,))(Inert(1.0, jnp.arange(3.0))).tolist() == [
        1,
        2,
        3,
    ]


def test_a_strength_does_not_recompile_and_a_period_does():
    traces = []

    @jax.jit
    def f(x):
        traces.append(x.period)
        return x.strength * x.rate

    assert [float(f(Example(s))) for s in (0.1, 0.2)] == pytest.approx([0.1, 0.2])
    assert traces == [10]
    f(Example(period=11))
    assert traces == [10, 11]


def test_configs_of_one_class_with_equal_fields_are_equal_and_hashable():
    assert Example() == Example(0.5)
    assert hash(Example()) == hash(Example(0.5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().strength = 1.0  # pyrefly: ignore


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strength": -0.1}, "example: strength must be >= 0 and <= 1, got -0.1"),
        ({"strength": 1.1}, "example: strength must be >= 0 and <= 1, got 1.1"),
        ({"strength": float("nan")}, "example: strength must be a finite number, got nan"),
        ({"rate": float("inf")}, "example: rate must be a finite number, got inf"),
        ({"rate": 0}, "example: rate must be > 0, got 0"),
        ({"period": 0}, "example: period must be >= 1, got 0"),
        ({"kind": "fanci"}, "unknown value of example: kind 'fanci'. Did you mean 'fancy'? Allowed: fancy, plain"),
        ({"kind": "fancy", "period": 101}, "example: fancy needs a period of at most 100"),
    ],
)
def test_what_is_out_of_range_is_an_error(fields, message):
    with pytest.raises(UserError) as caught:
        Example(**fields)
    assert message in str(caught.value)


def test_the_bounds_themselves_are_allowed():
    Example(strength=0), Example(strength=1), Example(period=1)


def test_unflatten_checks_nothing():
    """Leaves may be tracers, batches, gradients or the axes of a vmap, which are no strengths."""
    batched = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[Example(s) for s in (0.1, 0.2)])
    assert batched.strength.shape == (2,)
    assert jax.tree.map(lambda _: -5.0, Example()).strength == -5.0
    assert jax.tree.map(lambda _: None, Example()).rate is None
    doubled = jax.vmap(lambda e: 2 * e.strength, in_axes=(Example(0, None),))(  # pyrefly: ignore
        Example(batched.strength, jnp.float32(1))
    )
    assert doubled.tolist() == pytest.approx([0.2, 0.4])
    gradient = jax.grad(lambda e: -(e.strength**2) * e.rate)(Example(0.5, 2.0))
    assert float(gradient.strength) == -2.0
    assert gradient.period == 10


def test_arrays_pass_unchecked():
    assert Example(jnp.float32(-3)).strength == -3


def test_ranges_in_words():
    metas = {f.name: f.metadata for f in dataclasses.fields(Example)}
    assert [allowed_range(metas[name]) for name in ("strength", "rate", "period", "kind")] == [
        ">= 0 and <= 1",
        "> 0",
        ">= 1",
        "",
    ]
