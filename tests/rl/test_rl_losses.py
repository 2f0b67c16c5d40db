"""Every head's loss against a loop in numpy, written from the formulas; where gradients flow; priorities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from plasticity.heads import Categorical, HLGauss, Regression, TwoHot
from rl.losses import Losses, losses, of_action, priorities

BATCH, ACTIONS, LOW, HIGH, BINS = 7, 3, -2.0, 3.0, 11
HEADS = {
    "huber": Regression(LOW, HIGH),
    "mse": Regression(LOW, HIGH),
    "categorical": Categorical(BINS, LOW, HIGH),
    "two_hot": TwoHot(BINS, LOW, HIGH),
    "hl_gauss": HLGauss(BINS, LOW, HIGH, 0.6),
}
CENTRES = np.linspace(LOW, HIGH, BINS)
WIDTH = (HIGH - LOW) / (BINS - 1)


def inputs(head, seed=0):
    draw = np.random.default_rng(seed)
    online, target, selector = (draw.normal(0, 2, (BATCH, ACTIONS, head.outputs)) for _ in range(3))
    action = draw.integers(0, ACTIONS, BATCH)
    # Some targets are far off the support, some transitions end.
    reward = np.array([0.3, -0.7, 9.0, -9.0, 0.0, 1.0, 0.25])
    discount = np.array([0.97, 0.0, 0.97, 0.5, 0.9, 1.0, 0.0])
    return online, target, selector, action, reward, discount


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def value(name, outputs):
    return (
        outputs[0] if name in ("huber", "mse") else sum(p * c for p, c in zip(softmax(outputs), CENTRES, strict=True))
    )


def by_loop(name, online, target, selector, action, reward, discount):
    """(loss, |TD error|, q) of each example."""
    found = []
    for i in range(BATCH):
        best = int(np.argmax([value(name, selector[i, a]) for a in range(ACTIONS)]))
        q, following = value(name, online[i, action[i]]), target[i, best]
        y = reward[i] + discount[i] * value(name, following)
        error = abs(q - y)
        if name == "mse":
            loss = error**2
        elif name == "huber":
            loss = 0.5 * error**2 if error <= 1 else error - 0.5
        else:
            code = np.zeros(BINS)
            if name == "categorical":
                for p, atom in zip(softmax(following), CENTRES, strict=True):
                    place = (np.clip(reward[i] + discount[i] * atom, LOW, HIGH) - LOW) / WIDTH
                    lower = min(int(np.floor(place)), BINS - 2)
                    code[lower] += p * (lower + 1 - place)
                    code[lower + 1] += p * (place - lower)
            elif name == "two_hot":
                place = (np.clip(y, LOW, HIGH) - LOW) / WIDTH
                lower = min(int(np.floor(place)), BINS - 2)
                code[lower], code[lower + 1] = lower + 1 - place, place - lower
            else:
                normal = stats.norm(np.clip(y, LOW, HIGH), 0.6 * WIDTH)
                code = np.array([normal.cdf(c + WIDTH / 2) - normal.cdf(c - WIDTH / 2) for c in CENTRES])
                code /= code.sum()
            loss = -sum(code * np.log(softmax(online[i, action[i]])))
            if name != "categorical":  # these heads subtract the entropy of their code
                loss += sum(c * np.log(c) for c in code if c > 0)
        found.append((loss, error, q))
    return np.array(found).T


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", HEADS)
def test_losses_are_those_of_a_loop(name, double):
    head = HEADS[name]
    online, target, selector, *rest = inputs(head)
    selector = selector if double else target
    found = losses(head, "mse" if name == "mse" else "huber", *map(jnp.array, (online, target, selector, *rest)))
    loss, error, q = by_loop(name, online, target, selector, *rest)
    np.testing.assert_allclose(found.loss, loss, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(found.td_error, error, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.q, q, rtol=1e-4, atol=1e-5)


def test_double_selects_by_one_network_and_evaluates_by_the_other():
    head = HEADS["huber"]
    online = jnp.zeros((1, 2, 1))
    target, selector = jnp.array([[[1.0], [5.0]]]), jnp.array([[[3.0], [2.0]]])
    one, zero = jnp.ones(1), jnp.zeros(1)
    double = losses(head, "mse", online, target, selector, jnp.array([0]), zero, one)
    plain = losses(head, "mse", online, target, target, jnp.array([0]), zero, one)
    assert (double.td_error[0], plain.td_error[0]) == (1.0, 5.0)


def test_the_huber_gradient_is_the_clipped_td_error():
    head = HEADS["huber"]
    online, target, selector, action, reward, discount = map(jnp.array, inputs(head))

    def total(online):
        return losses(head, "huber", online, target, selector, action, reward, discount).loss.sum()

    found = np.asarray(jax.grad(total)(online))
    best = np.argmax(selector[..., 0], axis=1)
    y = reward + discount * np.asarray(target)[np.arange(BATCH), best, 0]
    error = np.asarray(online)[np.arange(BATCH), action, 0] - y
    expected = np.zeros((BATCH, ACTIONS, 1))
    expected[np.arange(BATCH), action, 0] = np.clip(error, -1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert (np.abs(error) > 1).any()
    assert (np.abs(error) < 1).any()


@pytest.mark.parametrize("name", HEADS)
def test_gradients_reach_the_taken_action_only_and_never_target_or_selector(name):
    head = HEADS[name]
    online, target, selector, action, reward, discount = map(jnp.array, inputs(head))

    def total(online, target, selector):
        return losses(head, "huber", online, target, selector, action, reward, discount).loss.sum()

    by_online, *others = jax.grad(total, (0, 1, 2))(online, target, selector)
    for other in others:
        np.testing.assert_array_equal(other, 0)
    taken = np.arange(ACTIONS) == np.asarray(action)[:, None]
    np.testing.assert_array_equal(np.asarray(by_online)[~taken], 0)
    assert (np.abs(np.asarray(by_online)[taken]).sum(axis=-1) > 0).all()


@pytest.mark.parametrize("name", ["categorical", "two_hot", "hl_gauss"])
def test_the_gradient_of_a_binned_loss_is_prediction_less_code(name):
    """d cross-entropy / d logits = softmax - code, whose mean must be the target where nothing is clipped."""
    head = HEADS[name]
    online, target = jnp.zeros((1, 1, BINS)), jnp.zeros((1, 1, BINS)).at[0, 0, 6].set(30.0)  # all mass on centre 6

    def total(online):
        given = jnp.array([0]), jnp.array([0.2]), jnp.array([0.5])
        return losses(head, "huber", online, target, target, *given).loss.sum()

    code = 1 / BINS - np.asarray(jax.grad(total)(online))[0, 0]
    np.testing.assert_allclose(code.sum(), 1, rtol=1e-5)
    tolerance = 0.02 if name == "hl_gauss" else 1e-5
    np.testing.assert_allclose(code @ CENTRES, 0.2 + 0.5 * CENTRES[6], atol=tolerance)


def test_outputs_of_an_action():
    outputs = jnp.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(of_action(outputs, jnp.array([2, 0])), [[4, 5], [6, 7]])


def test_priorities_by_hand():
    found = Losses(jnp.array([4.0, 2500.0, -1e-9, 0.25]), jnp.array([3.0, 200.0, 0.0, 0.5]), jnp.zeros(4))
    np.testing.assert_allclose(priorities("td", found), [3, 200, 0, 0.5])
    np.testing.assert_allclose(priorities("loss", found), [4, 100, 0, 0.25])
    np.testing.assert_allclose(priorities("sqrt_loss", found), [2, 10, 1e-5, 0.5], rtol=1e-5)
