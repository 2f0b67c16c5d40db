"""Auxiliary heads, and the names of the last features: in every network, with one stream and with two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import SCALAR, build

from plasticity.heads import Softmax
from plasticity.network import get_at
from plasticity.networks import networks

IMAGES = {
    "nature": (2, 84, 84, 4),
    "impala": (2, 8, 8, 1),
    "l2_init_cnn": (2, 16, 16, 1),
    "continual_imagenet_cnn": (2, 24, 24, 1),
}
TOKENS = jnp.zeros((2, 5), jnp.int32)
SEQUENCES = ("transformer", "linear_recurrence")


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("name", networks.members())
def test_auxiliary_heads_read_what_the_output_reads(name, dueling):
    x = TOKENS if name in SEQUENCES else jnp.zeros(IMAGES.get(name, (2, 10, 10, 3)))
    head = Softmax(7) if name in SEQUENCES else SCALAR
    plain, network = (build(name, head, dueling=dueling, auxiliary=k) for k in (0, 3))
    variables, activations = jax.eval_shape(
        lambda: (v := network.init(jax.random.key(0), x), network.apply(v, x, None)[1])
    )
    outputs = (network.output_kernel, *network.other_outputs)
    params = variables["params"]
    assert len(network.auxiliary) == len(network.features) == len(outputs) == 1 + dueling
    read = sorted(get_at(params, path).shape[0] for path in outputs)
    assert sorted(get_at(params, path).shape[0] for path in network.auxiliary) == read
    assert all(get_at(params, path).shape[1] == 3 for path in network.auxiliary)
    for feature, path in zip(network.features, network.auxiliary, strict=True):
        post = activations[feature].post
        assert get_at(params, path).shape[0] in (post.size // 2, post.shape[-1])
    # Where a hidden layer feeds the output it feeds the heads as well; without heads there is nothing more.
    for layer in network.units:
        kernels = {o.kernel for o in layer.outgoing}
        assert bool(kernels & set(network.auxiliary)) == bool(kernels & set(outputs))
    without = jax.eval_shape(plain.init, jax.random.key(0), x)["params"]
    assert set(params) - set(without) == {path[0] for path in network.auxiliary}


def test_auxiliary_heads_change_no_draw_and_no_output():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    plain, network = (build("mlp(5)", SCALAR, dueling=True, auxiliary=k) for k in (0, 3))
    variables = network.init(jax.random.key(0), x)
    expected = plain.init(jax.random.key(0), x)
    jax.tree.map(
        np.testing.assert_array_equal, {k: variables["params"][k] for k in expected["params"]}, expected["params"]
    )
    np.testing.assert_array_equal(network.apply(variables, x)[0], plain.apply(expected, x)[0])
