"""Mitigations on sequence models: each is a training step that can be traced, or a clear error; some of them trained.

The contract is tested on a multilayer perceptron. Here is what positions may break: architectures, features, outputs,
units, events.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import finite, member, train

from plasticity.errors import UserError
from plasticity.method import Method
from plasticity.mitigations import Mitigation, compose, mitigations
from plasticity.networks import networks
from plasticity.optimizers import optimizers
from plasticity.spec import build_one

NETWORKS = ("transformer(4, 1, heads=2, expansion=2)", "linear_recurrence(4, 1, expansion=2)")
#: Those that need targets that are numbers, or the blocks of a multilayer perceptron.
REFUSED = {"hl_gauss", "two_hot", "popart", "simba", "residual", "hyperspherical"}
ARCHITECTURES = [name for name, cls in mitigations.members().items() if cls.network is not Mitigation.network]
#: What reads features, outputs, units or kernels, of each kind one or two.
OTHERS = (
    "c_chain",
    "continual_backprop",
    "dash",
    "distillation",
    "effective_rank",
    "fire",
    "layer_reset",
    "muon",
    "redo",
    "selective_weight_reinit",
    "self_normalised_resets",
    "spectral_reg",
    "weight_clipping",
)


def method(spec, name):
    members = compose.canonical([member(name)])
    return Method(build_one(spec, networks), optimizers.get("adam")(0.01), members)


@pytest.mark.parametrize("name", [*ARCHITECTURES, *OTHERS])
def test_a_step_can_be_traced_or_is_a_clear_error(name):
    """The two networks in turns: they differ in nothing that a mitigation sees but in what mixes positions."""
    spec = NETWORKS[[*ARCHITECTURES, *OTHERS].index(name) % 2]
    step = partial(train, method(spec, name), kind="tokens")
    if name in REFUSED:
        with pytest.raises(UserError, match=rf"^{name} (needs a regression task|puts blocks)"):
            jax.eval_shape(step, jnp.int32(0))
    else:
        learner, losses = jax.eval_shape(step, jnp.int32(0))
        assert losses.shape == (5,)
        assert learner.variables["params"]["tokens"]["table"].shape == (7, 4)


def test_training_stays_finite():
    learner, losses = jax.jit(lambda seed: train(method(NETWORKS[1], "redo"), seed, "tokens"))(jnp.int32(0))
    assert finite(learner)
    assert np.all(np.isfinite(losses))
