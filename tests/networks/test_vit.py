"""The vision transformer: sizes by hand, patches, the forward pass against numpy and torch, dropout, its norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import build, group_equals_singles, randomised, shapes

from plasticity.diagnostics import diagnose
from plasticity.errors import UserError
from plasticity.heads import Softmax
from plasticity.mitigations.layers import fan_ins
from plasticity.mitigations.penalties import roles
from plasticity.network import get_at, norm_affine_mask
from plasticity.networks import Architecture
from plasticity.networks.base import Block
from plasticity.networks.parts import Conv, Style
from plasticity.optimizers import optimizers

HEAD = Softmax(10)
RNG = np.random.default_rng(0)
SPEC = "vit(8, 2, heads=2, expansion=3)"
X = RNG.normal(size=(3, 8, 7, 2)).astype(np.float32)

# Sizes --------------------------------------------------------------------------------------------------------------

SIZES = [
    # embedding 27 x 256 + 256, places 121 x 256; attention 4 (256 x 256 + 256), MLP 256 x 1,024 + 1,024 and back;
    # three norms of 512; output
    ("vit", (1, 32, 32, 3), 7_168 + 30_976 + 263_168 + 263_168 + 262_400 + 3 * 512 + 2_570),
    # ViT-Ti on 8 x 8 patches of 4 x 4: 48 x 192 + 192, 64 x 192; 12 blocks; norm; output
    (
        "vit(192, 12, heads=3, patch=4)",
        (1, 32, 32, 3),
        9_408 + 12_288 + 12 * (4 * 37_056 + 148_224 + 147_648 + 768) + 384 + 1_930,
    ),
]


@pytest.mark.parametrize(("spec", "input_shape", "expected"), SIZES)
def test_number_of_parameters_by_hand(spec, input_shape, expected):
    found = shapes(build(spec, HEAD, predictions=1), input_shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(found)) == expected


@pytest.mark.parametrize(("size", "patch", "side"), [(28, 3, 10), (14, 3, 5), (7, 3, 3), (32, 3, 11), (32, 4, 8)])
def test_places_of_images_that_the_patch_divides_or_not(size, patch, side):
    params = shapes(build(f"vit(8, heads=2, patch={patch})", HEAD), (1, size, size, 1))
    assert params["places"]["table"].shape == (side**2, 8)
    assert params["embedding"]["kernel"].shape == (patch, patch, 1, 8)


@pytest.mark.parametrize("options", [{}, {"dueling": True, "activation": "crelu"}])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_outputs_and_activations(dtype, options):
    network = build(f"vit(8, 2, heads=2, expansion=3, dtype={dtype})", HEAD, **options)
    output, activations, state = jax.eval_shape(
        lambda x: network.apply(network.init(jax.random.key(0), x), x), jax.ShapeDtypeStruct(X.shape, jnp.uint8)
    )
    assert (output.shape, output.dtype, state) == ((3, 40), jnp.float32, {})
    end = {"value_hidden", "advantage_hidden"} if options else set()
    assert set(activations) == {"block_0", "block_1", "features"} | end
    assert {a.dtype for pair in activations.values() for a in pair} == {jnp.dtype(dtype)}
    assert activations["block_1"].pre.shape == (3, 9, 24)
    assert activations["block_1"].post.shape == (3, 9, 24 * (1 + bool(options)))
    assert activations["features"].post.shape == (3, 9, 8)
    assert all(activations[name].post.shape == (3, 16) for name in end)
    assert set(network.features) == (end or {"features"})


def test_sizes_and_inputs_that_do_not_fit_are_clear_errors():
    with pytest.raises(UserError, match="heads must divide width, got heads=3, width=8"):
        build("vit(8, heads=3)", HEAD)
    with pytest.raises(UserError, match="needs images"):
        shapes(build("vit(8, heads=2)", HEAD), (1, 784))
    with pytest.raises(UserError, match=r"simba puts blocks .* allowed is the network mlp"):
        build("vit(8, heads=2)", HEAD, block=Block("simba", 4))


# The forward pass ---------------------------------------------------------------------------------------------------


def patches_of(x, patch):
    """`[batch, places, patch * patch * channels]`, padded with zeros to whole patches, the odd pixel behind."""
    margins = [(-n % patch) for n in x.shape[1:3]]
    x = np.pad(x, [(0, 0), *((m // 2, m - m // 2) for m in margins), (0, 0)])
    rows, columns = (n // patch for n in x.shape[1:3])
    cut = [
        x[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].reshape(len(x), -1)
        for i in range(rows)
        for j in range(columns)
    ]
    return np.stack(cut, 1)


def rewrite(params, x, heads, patch, options, depth=2):
    """In float64 numpy, one head after the other."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def norm(name, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * params[f"norm_{name}"]["scale"] + params[f"norm_{name}"]["bias"]

    def dense(name, x):
        return x @ params[name]["kernel"].reshape(x.shape[-1], -1) + params[name]["bias"]

    def activate(name, z):
        z = norm(name, z) if "normalization" in options else z
        if options.get("activation") == "crelu":
            return np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)
        return np.maximum(z, 0)

    x = dense("embedding", patches_of(x.astype(np.float64), patch)) + params["places"]["table"]
    for i in range(depth):
        y = norm(f"block_{i}_mix", x)
        q, k, v = (dense(f"block_{i}_{name}", y) for name in ("query", "key", "value"))
        size, found = x.shape[-1] // heads, []
        for h in range(heads):
            mine = np.s_[..., h * size : (h + 1) * size]
            weights = np.exp(np.einsum("bqd,bkd->bqk", q[mine], k[mine]) / size**0.5)
            found.append(np.einsum("bqk,bkd->bqd", weights / weights.sum(-1, keepdims=True), v[mine]))
        x = x + dense(f"block_{i}_projection", np.concatenate(found, -1))
        x = x + dense(f"block_{i}_out", activate(f"block_{i}", dense(f"block_{i}", norm(f"block_{i}_stream", x))))
    pooled = norm("features", x).mean(1)
    if "dueling" not in options:
        return dense("output", pooled)
    value, advantage = (
        dense(f"{s}_output", activate(f"{s}_hidden", dense(f"{s}_hidden", pooled))) for s in ("value", "advantage")
    )
    advantage = advantage.reshape(len(x), 4, HEAD.outputs)
    return (value[:, None] + advantage - advantage.mean(1, keepdims=True)).reshape(len(x), -1)


PASSES = [
    (SPEC, 3, {}),
    ("vit(8, 2, heads=4, patch=2)", 2, {"normalization": "layer", "activation": "crelu"}),
    (SPEC, 3, {"dueling": True, "normalization": "layer"}),
]


@pytest.mark.parametrize(("spec", "patch", "options"), PASSES)
def test_forward_pass_against_a_rewrite(spec, patch, options):
    network = build(spec, HEAD, **options)
    variables = randomised(network, X)
    found = jax.jit(network.apply)(variables, X)[0]
    expected = rewrite(variables["params"], X, 4 if "heads=4" in spec else 2, patch, options)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_forward_pass_is_torchs():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    network = build(SPEC, HEAD, predictions=1)
    variables = randomised(network, X)
    p = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), variables["params"])

    def dense(name, x):
        return functional.linear(x, p[name]["kernel"].T, p[name]["bias"])

    def norm(name, x):
        return functional.layer_norm(x, x.shape[-1:], p[f"norm_{name}"]["scale"], p[f"norm_{name}"]["bias"], eps=1e-6)

    # 8 x 7 in patches of 3 is 9 x 9: one row behind, a column on each side.
    images = functional.pad(torch.tensor(X).permute(0, 3, 1, 2), (1, 1, 0, 1))
    x = functional.conv2d(images, p["embedding"]["kernel"].permute(3, 2, 0, 1), p["embedding"]["bias"], 3)
    x = x.flatten(2).transpose(1, 2) + p["places"]["table"]
    for i in range(2):
        y = norm(f"block_{i}_mix", x)
        q, k, v = (
            dense(f"block_{i}_{name}", y).unflatten(-1, (2, 4)).transpose(1, 2) for name in ("query", "key", "value")
        )
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + dense(f"block_{i}_projection", y)
        y = functional.relu(dense(f"block_{i}", norm(f"block_{i}_stream", x)))
        x = x + dense(f"block_{i}_out", y)
    expected = dense("output", norm("features", x).mean(1))
    np.testing.assert_allclose(jax.jit(network.apply)(variables, X)[0], expected.numpy(), rtol=1e-3, atol=1e-3)


def test_the_embedding_is_a_product_of_patches_whatever_the_backend(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    network = build(SPEC, HEAD)
    variables = randomised(network, X)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(lambda v: network.apply(v, X)[0])(variables))
    style = Style.of(Architecture(HEAD), conv="lax")
    embedding = variables["params"]["embedding"]
    theirs = Conv(8, 3, 3, style).apply({"params": embedding}, X)
    mine = patches_of(X, 3) @ np.asarray(embedding["kernel"]).reshape(-1, 8) + np.asarray(embedding["bias"])
    np.testing.assert_allclose(mine.reshape(theirs.shape), theirs, rtol=1e-4, atol=1e-5)


def test_without_offsets_of_places_the_order_of_patches_does_not_matter():
    network = build(SPEC, HEAD)
    x = RNG.normal(size=(2, 6, 9, 1)).astype(np.float32)
    variables = randomised(network, x)
    blocks = x.reshape(2, 2, 3, 3, 3, 1).swapaxes(2, 3).reshape(2, 6, 3, 3, 1)[:, [3, 0, 5, 1, 4, 2]]
    moved = blocks.reshape(2, 2, 3, 3, 3, 1).swapaxes(2, 3).reshape(x.shape)
    apply = jax.jit(lambda v, x: network.apply(v, x)[0])
    assert np.any(np.abs(apply(variables, x) - apply(variables, moved)) > 1e-2)
    nowhere = {"params": {**variables["params"], "places": {"table": jnp.zeros((6, 8))}}}
    np.testing.assert_allclose(apply(nowhere, x), apply(nowhere, moved), rtol=1e-4, atol=1e-5)


def test_a_group_of_runs_equals_single_runs():
    """A few SGD steps, in scan and under vmap."""
    group_equals_singles(build("vit(8, heads=2)", HEAD, predictions=1), X, HEAD, np.arange(3))


# Dropout ------------------------------------------------------------------------------------------------------------


def test_dropout_acts_in_training_and_by_the_key_alone():
    plain, network = build(SPEC, HEAD), build(SPEC.replace(")", ", dropout=.25)"), HEAD)
    variables, key = randomised(plain, X), jax.random.key(3)
    assert (plain.stochastic, network.stochastic) == (False, True)
    apply = jax.jit(lambda key, train: network.apply(variables, X, key, train)[0], static_argnums=1)
    expected = plain.apply(variables, X)[0]
    for without in (apply(key, False), network.apply(variables, X, None, True)[0]):
        np.testing.assert_allclose(without, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(apply(key, True), apply(key, True))
    assert np.any(np.abs(apply(key, True) - expected) > 0.05)
    assert np.any(np.abs(apply(key, True) - apply(jax.random.key(4), True)) > 0.05)


def test_dropout_keeps_the_mean():
    """Of entries that are kept: three quarters, each 4/3 as large; with kernels of zero only the embedding is seen."""
    network = build("vit(400, heads=2, dropout=.25)", HEAD)
    variables = jax.tree.map(jnp.zeros_like, randomised(network, X))
    variables["params"]["embedding"]["bias"] = jnp.full(400, 3.0)
    features = np.asarray(network.apply(variables, X, jax.random.key(0), True)[1]["features"].pre)
    assert set(np.unique(features)) == {0.0, 4.0}
    assert abs(np.mean(features == 4) - 0.75) < 6 * (0.75 * 0.25 / features.size) ** 0.5


# What others ask of the parameters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["none", "layer"])
def test_roles_of_parameters(normalization):
    """All norms are left alone by penalties, their scales are held to 1; tables are no matrices."""
    network = build(SPEC, HEAD, normalization=normalization)
    params = randomised(network, X)["params"]
    norms = {name for name in params if name.startswith("norm_")}
    assert len(norms) == (5 if normalization == "none" else 7)
    mask = norm_affine_mask(params, network)
    assert {path[0].key for path, m in jax.tree_util.tree_leaves_with_path(mask) if m} == norms
    found = roles(params, network)
    assert set(found.gains) == {(name, "scale") for name in norms}
    assert set(found.offsets) == {(name, "bias") for name in norms}
    layers = set(params) - norms - {"places"}
    assert set(found.weights) == {(name, "kernel") for name in layers}
    assert set(found.biases) == {(name, "bias") for name in layers}
    fans = fan_ins(params, network)
    assert get_at(fans, ("places", "table")) == 0
    assert (fans["embedding"]["kernel"], fans["embedding"]["bias"]) == (18, 18)
    assert fans["block_0_out"]["bias"] == 24


def test_diagnostics_take_positions_as_rows():
    network = build(SPEC, HEAD)
    variables = randomised(network, X)
    _, activations, _ = network.apply(variables, X)
    found = diagnose(activations=activations, params=variables["params"], choose=("dead_units", "stable_rank"))
    post = np.asarray(activations["block_0"].post).reshape(-1, 24)
    np.testing.assert_allclose(found["dead_units/block_0"], np.mean(np.all(post == 0, axis=0)), atol=1e-6)
    singular = np.linalg.svd(post, compute_uv=False)
    np.testing.assert_allclose(found["stable_rank/block_0"], np.sum(singular**2) / singular[0] ** 2, rtol=1e-3)
    assert np.all(np.isfinite(list(found.values())))


def test_muon_takes_the_table_of_places_as_adam_does_and_kernels_as_matrices():
    """Adam's first step is the learning rate in every entry, whatever the size of the gradient."""
    params = randomised(build(SPEC, HEAD), X)["params"]
    tx = optimizers.get("muon")(lr=0.1, ratio=0.5).build()
    grads = randomised(build(SPEC, HEAD), X, seed=2)["params"]
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(jnp.abs(updates["places"]["table"]), 0.05, rtol=1e-3)
    assert jnp.std(jnp.abs(updates["block_0_query"]["kernel"])) > 1e-3
