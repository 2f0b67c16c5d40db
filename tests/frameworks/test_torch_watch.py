"""Watching PyTorch modules: the numbers of `diagnose` on NumPy copies, layouts, shared memory, in-place operations."""

import jax
import numpy as np
import pytest

import plasticity
from plasticity.diagnostics.sets import CHEAP, RANKS
from plasticity.errors import UserError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from plasticity.adapters.torch import Watch, to_jax  # noqa: E402

CHEAP_AND_RANKS = (*(set(CHEAP + RANKS) - {"distance_from_init", "effective_lr_adam"}),)
CHOSEN = ("dead_units", "dormant_units", "linearized_units", "srank", "effective_rank")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def mlp(**options):
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(**options), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1))


def convnet():
    return nn.Sequential(nn.Conv2d(3, 5, (2, 3)), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 4 * 3, 2))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 8), nn.Linear(8, 6), nn.ReLU()

    def forward(self, x):
        return self.act(self.second(self.act(self.first(x))))


def stepped(model, watch, x, rate=0.1):
    optimizer = torch.optim.SGD(model.parameters(), rate)
    model(x).square().mean().backward()
    with watch.stepping():
        optimizer.step()


def test_numbers_are_those_of_diagnose_on_numpy_copies():
    model, x = mlp(), torch.randn(32, 4)
    watch = Watch(model)
    before = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    stepped(model, watch, x)
    diagnose = jax.jit(lambda given: plasticity.diagnose(**given, choose=CHEAP_AND_RANKS))
    found = diagnose(watch.readings())

    h = x.numpy() @ before["0.weight"].T + before["0.bias"]
    g = np.maximum(h, 0) @ before["2.weight"].T + before["2.bias"]
    trees = {"params": {}, "grads": {}, "updates": {}}
    for name, p in model.named_parameters():
        layer, kind = name.split(".")
        values = {"params": p.detach(), "grads": p.grad, "updates": p.detach() - torch.tensor(before[name])}
        for tree, value in values.items():
            kind = {"weight": "kernel"}.get(kind, kind)
            trees[tree].setdefault(layer, {})[kind] = value.numpy().T.copy()
    activations = {"1": (h, np.maximum(h, 0)), "3": (g, np.tanh(g))}
    expected = diagnose({"activations": activations, **trees})
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-3, atol=1e-5, err_msg=name)


def test_a_linear_kernel_is_in_by_out():
    model = mlp()
    params = Watch(model).params()
    assert params.keys() == {"0", "2", "4"}
    np.testing.assert_array_equal(params["0"]["kernel"], model[0].weight.detach().numpy().T)
    np.testing.assert_array_equal(params["0"]["bias"], model[0].bias.detach().numpy())


def test_a_convolution_has_its_channels_last():
    model, x = convnet(), torch.randn(2, 3, 5, 5)
    watch = Watch(model)
    model(x)
    ((name, (pre, post)),) = watch.activations().items()
    assert (name, pre.shape, post.shape) == ("2", (2, 4, 3, 5), (2, 4, 3, 5))
    expected = F.relu(model[1](model[0](x))).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(post, expected.numpy(), rtol=1e-5, atol=1e-6)
    params = watch.params()
    np.testing.assert_array_equal(params["0"]["kernel"], model[0].weight.detach().permute(2, 3, 1, 0).numpy())
    assert params["0"]["kernel"].shape == (2, 3, 3, 5)
    assert params["1"].keys() == {"scale", "bias"}


def test_a_dead_channel_is_found():
    model, x = convnet(), torch.randn(4, 3, 5, 5)
    with torch.no_grad():
        model[1].bias[2] = -100.0
    watch = Watch(model)
    model(x)
    assert float(
        plasticity.diagnose(activations=watch.activations(), choose="dead_units")["dead_units"]
    ) == pytest.approx(0.2)


def test_memory_is_shared_where_it_can_be():
    # JAX takes memory over that is aligned to 64 bytes, as PyTorch allocates it.
    tensor = torch.arange(4096, dtype=torch.float32).reshape(64, 64)
    assert tensor.data_ptr() % 64 == 0
    assert to_jax(tensor).unsafe_buffer_pointer() == tensor.data_ptr()
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU())
    watch = Watch(model)
    out = model(torch.randn(64, 16))
    assert watch.activations()["1"][1].unsafe_buffer_pointer() == out.data_ptr()


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int64", "bool"])
def test_other_types_arrive_with_their_values(dtype):
    tensor = torch.tensor([[0, 1], [1, 3]]).to(getattr(torch, dtype))
    for given in (tensor, tensor.T):  # also what is not contiguous
        np.testing.assert_array_equal(np.asarray(to_jax(given), np.float32), given.float().numpy())


def test_an_in_place_nonlinearity_leaves_its_output_alone():
    model, x = mlp(inplace=True), torch.randn(32, 4)
    watch, plain = Watch(model), Watch(other := mlp())
    other.load_state_dict(model.state_dict())
    model(x), other(x)
    found, expected = watch.activations(), plain.activations()
    assert not isinstance(found["1"], tuple)
    np.testing.assert_array_equal(found["1"], expected["1"][1])
    values = [plasticity.diagnose(activations={"h": a}, choose=CHOSEN) for a in (found["1"], expected["1"])]
    assert [float(v) for v in values[0].values()] == pytest.approx([float(v) for v in values[1].values()])


def test_outputs_that_are_overwritten_later_are_told():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5, inplace=True))
    watch = Watch(model)
    with torch.no_grad():
        model(torch.randn(2, 4))
    with pytest.raises(UserError, match="'1' were overwritten in place"):
        watch.activations()


def test_functional_nonlinearities_are_told_and_can_be_named():
    model, x = Functional(), torch.randn(16, 4)
    with pytest.raises(UserError, match=r"Functional has no nonlinearity modules.*'fc1': F\.relu.*first, second"):
        Watch(model)
    watch = Watch(model, {"first": F.relu})
    model(x)
    pre, post = watch.activations()["first"]
    np.testing.assert_allclose(pre, model.first(x).detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(post, np.maximum(pre, 0))


def test_layers_by_name():
    model, x = mlp(), torch.randn(16, 4)
    for layers in (["3"], "3", ("3",)):
        watch = Watch(model, layers)
        model(x)
        assert list(watch.activations()) == ["3"]
    watch = Watch(model, ["0", "1"])
    model(x)
    found = watch.activations()
    assert found["0"].shape == (16, 8)  # no nonlinearity: its output
    np.testing.assert_array_equal(found["0"], found["1"][0])
    with pytest.raises(UserError, match=r"unknown submodule 'frist'\. Did you mean 'first'"):
        Watch(Functional(), ["frist"])
    with pytest.raises(UserError, match="empty"):
        Watch(model, [])


def test_a_submodule_that_gives_no_tensor_is_told():
    model = nn.Sequential(nn.LSTM(4, 8))
    Watch(model, ["0"])
    with pytest.raises(UserError, match="'0' gives a tuple"):
        model(torch.randn(2, 3, 4))


def test_a_nonlinearity_that_is_used_twice_is_two_layers():
    model, x = Reused(), torch.randn(16, 4)
    watch = Watch(model)
    for _ in range(3):  # each forward pass begins anew
        model(x)
        found = watch.activations()
        assert {name: post.shape for name, (_, post) in found.items()} == {"act": (16, 8), "act:2": (16, 6)}
    np.testing.assert_allclose(found["act:2"][1], model(x).detach().numpy())
    model.act(x)  # not in a forward pass of the model
    assert watch.activations()["act"][1].shape == (16, 4)
    with pytest.raises(RuntimeError):
        model(torch.randn(2, 3))
    model(x)
    assert list(watch.activations()) == ["act", "act:2"]


def test_before_the_first_pass_there_is_nothing():
    watch = Watch(mlp())
    with pytest.raises(UserError, match="no forward pass"):
        watch.activations()
    assert watch.grads() is None
    assert watch.updates() is None


def test_gradients_of_some_parameters_only():
    model = mlp()
    model[0].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    watch = Watch(model)
    model(torch.randn(8, 4)).sum().backward()
    grads = watch.grads()
    assert not np.any(grads["0"]["kernel"])
    np.testing.assert_array_equal(grads["2"]["kernel"], model[2].weight.grad.numpy().T)
    model.zero_grad(set_to_none=True)
    assert watch.readings()["grads"] is None


def test_updates_are_the_change_of_the_parameters():
    model = mlp()
    watch = Watch(model)
    stepped(model, watch, torch.randn(8, 4), rate=0.5)
    np.testing.assert_allclose(
        watch.updates()["2"]["kernel"], -0.5 * model[2].weight.grad.numpy().T, rtol=1e-3, atol=1e-6
    )


def test_closing_removes_the_hooks():
    model, x = mlp(), torch.randn(8, 4)
    watch = Watch(model)
    model(x)
    before = np.array(watch.activations()["1"][1])
    watch.close()
    watch.close()
    model(x * 3)
    np.testing.assert_array_equal(watch.activations()["1"][1], before)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert not any(module._forward_hooks for module in model.modules())


def test_training_is_the_same_with_and_without_it():
    def losses(watched):
        torch.manual_seed(1)
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        watch = Watch(model) if watched else None
        monitor = plasticity.Monitor(every=3, choose=("dead_units", "weight_norm", "distance_from_init"))
        found = []
        for step in range(8):
            x = torch.randn(16, 4)
            loss = (model(x) - x[:, :1]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            if watch is None:
                optimizer.step()
            else:
                with watch.stepping():
                    optimizer.step()
                if monitor.due(step):
                    monitor.record(step, **watch.readings(), loss=loss)
            found.append(loss.item())
        if watch is not None:
            norm = np.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))
            last = monitor.record(9, **watch.readings())
            assert last["weight_norm"] == pytest.approx(norm, rel=1e-5)
            assert last["distance_from_init"] > 0  # although the parameters changed in place, in shared memory
        return found

    assert losses(True) == losses(False)
