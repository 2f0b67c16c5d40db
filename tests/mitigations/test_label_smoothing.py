"""Label smoothing by hand, against torch, and on the heads that have no classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import HEADS

from plasticity.errors import UserError
from plasticity.heads import Categorical, HLGauss, Regression, Softmax, TwoHot
from plasticity.mitigations import compose, mitigations
from plasticity.networks import Architecture
from plasticity.spec import build

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 5)), jnp.float32)
BINNED = {"two_hot": TwoHot(5, -2.0, 2.0), "hl_gauss": HLGauss(5, -2.0, 2.0)}
Y = jnp.array([-2.0, -0.3, 0.0, 0.5, 1.7, 9.0])


def head(spec, base="classification"):
    return compose.architecture(compose.canonical(build(spec, mitigations)), Architecture(HEADS[base])).head


def test_by_hand():
    """Three classes, probabilities 1/2, 1/4, 1/4, strength .3: the target is .8, .1, .1."""
    outputs = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    found = Softmax(3, 0.3).loss(outputs, jnp.array([0]))
    np.testing.assert_allclose(found, 0.8 * np.log(2) + 0.2 * np.log(4), rtol=1e-6)
    assert Softmax(3, 0.3).predict(outputs).tolist() == [0]


@pytest.mark.parametrize("strength", [0.0, 0.1, 1.0])
def test_torch_has_the_same_loss_and_gradient(strength):
    torch = pytest.importorskip("torch")
    labels = np.array([0, 1, 2, 3, 4, 0])
    theirs = torch.tensor(np.asarray(LOGITS), requires_grad=True)
    expected = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), label_smoothing=strength)
    expected.backward()

    def mean(outputs, strength):
        return jnp.mean(Softmax(5, strength).loss(outputs, labels))

    found, grad = jax.jit(jax.value_and_grad(mean))(LOGITS, strength)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(grad, theirs.grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("plain", [Softmax(5), *BINNED.values()])
def test_traced_zero_is_the_plain_head_to_the_bit(plain):
    y = jnp.arange(6) % 5 if isinstance(plain, Softmax) else Y

    def loss(outputs, strength):
        return type(plain)(**{**vars(plain), "smoothing": strength}).loss(outputs, y)

    np.testing.assert_array_equal(jax.jit(loss)(LOGITS, 0.0), jax.jit(plain.loss)(LOGITS, y))


@pytest.mark.parametrize("name", BINNED)
def test_bins_are_smoothed_and_a_perfect_fit_has_loss_zero(name):
    plain = BINNED[name]
    smooth = type(plain)(**{**vars(plain), "smoothing": 0.2})
    code = np.asarray(plain.encode(Y)) * 0.8 + 0.04
    np.testing.assert_allclose(smooth.smoothed(smooth.encode(Y)), code, rtol=1e-6)
    np.testing.assert_allclose(code.sum(-1), 1, rtol=1e-6)
    fit = jnp.log(code)
    np.testing.assert_allclose(smooth.loss(fit, Y), 0, atol=1e-6)
    np.testing.assert_allclose(jax.grad(lambda o: smooth.loss(o, Y).sum())(fit), 0, atol=1e-6)
    cross = -np.sum(code * np.asarray(jax.nn.log_softmax(LOGITS[:, :5])), -1) + np.sum(code * np.log(code), -1)
    np.testing.assert_allclose(smooth.loss(LOGITS, Y), cross, rtol=1e-5)
    # Towards the middle of the support, which is 0.
    np.testing.assert_allclose(smooth.predict(fit), 0.8 * plain.predict(jnp.log(plain.encode(Y))), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "base", "kind"),
    [
        ("label_smoothing", "classification", Softmax),
        ("label_smoothing+two_hot(11)", "regression", TwoHot),
        ("hl_gauss(11, spread=2)+label_smoothing(0.1)", "regression", HLGauss),
    ],
)
def test_the_head_that_is_there_is_smoothed_whatever_the_order(spec, base, kind):
    found = head(spec, base)
    assert isinstance(found, kind)
    assert found.smoothing == 0.1
    if isinstance(found, HLGauss):
        assert (found.outputs, found.low, found.high, found.spread) == (11, -1.0, 1.0, 2.0)


def test_nothing_to_smooth_is_said():
    with pytest.raises(UserError, match=r"label_smoothing needs classes, or a regression.*the head is Regression"):
        head("label_smoothing", "regression")
    with pytest.raises(UserError, match="the head is Categorical"):
        compose.architecture(build("label_smoothing", mitigations), Architecture(Categorical(51, -1.0, 1.0)))
    assert isinstance(head("two_hot", "regression"), TwoHot)
    assert isinstance(HEADS["regression"], Regression)
