"""Read a PyTorch module for `plasticity.diagnose` and `plasticity.Monitor`, without copies where possible.

    watch = Watch(model)
    ...                                              # forward, loss.backward()
    monitor.record(step, **watch.readings(), loss=loss.item())

Forward hooks keep what the nonlinearities of the model last received and gave, detached from the graph. Tensors are
handed over by DLPack, so on one device they share memory: read them before the next in-place change, as `record` does.
Tensors on a device that JAX does not see are copied to the host.

Layouts become the suite's: `[batch, channels, height, width]` is `[batch, height, width, channels]`, a linear weight
`[out, in]` is a kernel `[in, out]`, a convolution's `[out, in, kh, kw]` is `[kh, kw, in, out]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from plasticity.errors import UserError, unknown

#: Modules whose input and output are a layer's pre- and post-activations.
NONLINEARITIES = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.GELU,
    nn.Tanh,
    nn.SiLU,
    nn.ELU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Mish,
    nn.Hardswish,
    nn.ReLU6,
    nn.PReLU,
)


class Watch:
    """Watch a module's nonlinearities and parameters.

    layers: names of submodules to watch instead of all nonlinearities (`dict(model.named_modules())` has them); of a
    submodule that is no nonlinearity the output is taken as post-activations. Raises `UserError` if there is nothing to
    watch: functional calls such as `F.relu` leave no trace, so use modules or name the submodule before them.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str] | None = None) -> None:
        modules = dict(model.named_modules())
        if layers is None:
            names = [name for name, module in modules.items() if isinstance(module, NONLINEARITIES)]
            if not names:
                raise UserError(
                    f"{type(model).__name__} has no nonlinearity modules to watch (functional ones leave no trace); "
                    f"give layers= with names among: {', '.join(filter(None, modules))}"
                )
        else:
            names = list(layers)
            for name in names:
                if name not in modules:
                    raise unknown("submodule", name, filter(None, modules))
        self.model = model
        self._seen: dict[str, Any] = {}
        self._before: dict[str, torch.Tensor] | None = None
        self._hooks = [modules[name].register_forward_hook(self._keep(name)) for name in names]

    def activations(self) -> dict[str, Any]:
        """What the watched layers last received and gave: name -> (pre, post), or post alone."""
        if not self._seen:
            raise UserError("no forward pass has been seen yet: call the model before you read it")
        return {name: jax.tree.map(_channels_last, value) for name, value in self._seen.items()}

    def params(self) -> dict[str, dict[str, jax.Array]]:
        """Parameters by submodule: `{"0": {"kernel": ..., "bias": ...}, ...}`."""
        return _tree({name: p.detach() for name, p in self.model.named_parameters()})

    def grads(self) -> dict[str, dict[str, jax.Array]] | None:
        """Gradients as `params`; zeros where a parameter has none. None before the first backward pass."""
        named = dict(self.model.named_parameters())
        if all(p.grad is None for p in named.values()):
            return None
        return _tree({n: torch.zeros_like(p) if p.grad is None else p.grad.detach() for n, p in named.items()})

    @contextlib.contextmanager
    def stepping(self) -> Iterator[None]:
        """Around `optimizer.step()`: remember the parameters before it, so that `updates` knows the change."""
        self._before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        yield

    def updates(self) -> dict[str, dict[str, jax.Array]] | None:
        """The change of the parameters since `stepping` was entered, as `params`; None if it never was."""
        if self._before is None:
            return None
        named = dict(self.model.named_parameters())
        return _tree({name: p.detach() - self._before[name] for name, p in named.items()})

    def readings(self) -> dict[str, Any]:
        """`activations`, `params`, `grads` and `updates`: what `diagnose` and `Monitor.record` take."""
        return {
            "activations": self.activations(),
            "params": self.params(),
            "grads": self.grads(),
            "updates": self.updates(),
        }

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            post = output.detach()
            if isinstance(module, NONLINEARITIES):
                pre = inputs[0].detach()
                # An in-place nonlinearity has overwritten its input: what is left is the output alone.
                shared = pre.data_ptr() == post.data_ptr()
                self._seen[name] = post if shared else (pre, post)
            else:
                self._seen[name] = post

        return hook


def to_jax(tensor: torch.Tensor) -> jax.Array:
    """A tensor as a JAX array: by DLPack where both see the device, else through the host."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bool:
        tensor = tensor.to(torch.uint8)
    try:
        return jnp.from_dlpack(tensor.contiguous())
    except (RuntimeError, BufferError, ValueError, TypeError):
        return jnp.asarray(np.asarray(tensor.float().cpu()))


def _channels_last(tensor: torch.Tensor) -> jax.Array:
    """Feature maps `[batch, channels, ...]` with the channels moved to the end."""
    return jnp.moveaxis(to_jax(tensor), 1, -1) if tensor.ndim > 3 else to_jax(tensor)


def _tree(named: dict[str, torch.Tensor]) -> dict[str, dict[str, jax.Array]]:
    tree: dict[str, dict[str, jax.Array]] = {}
    for path, tensor in named.items():
        layer, _, name = path.rpartition(".")
        array = to_jax(tensor)
        if name == "weight" and array.ndim >= 2:
            # [out, in, ...] to [..., in, out].
            name, array = "kernel", jnp.moveaxis(array, (0, 1), (-1, -2))
        elif name == "weight":
            name = "scale"  # of a normalisation
        tree.setdefault(layer or "model", {})[name] = array
    return tree
