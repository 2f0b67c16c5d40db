"""Read a PyTorch module for `plasticity.diagnose` and `plasticity.Monitor`, without copies where possible.

    watch = Watch(model)
    ...                                              # forward, loss.backward()
    monitor.record(step, **watch.readings(), loss=loss.item())

Forward hooks keep what the nonlinearities of the model last received and gave, detached from the graph. Tensors are
handed over by DLPack, so on one device they share memory: read them before the next in-place change, as `record` does.
Tensors on a device that JAX does not see are copied to the host. A nonlinearity that is a module used at several
places is a layer each time: `relu`, `relu:2`, `relu:3` in the order of the forward pass.

Layouts become the suite's: `[batch, channels, height, width]` is `[batch, height, width, channels]`, a linear weight
`[out, in]` is a kernel `[in, out]`, a convolution's `[out, in, kh, kw]` is `[kh, kw, in, out]`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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
    submodule that is no nonlinearity the output is taken as post-activations. Functional calls such as `F.relu` leave
    no trace: for those, a mapping from the submodule before the call to the function, `{"fc1": F.relu}`. Raises
    `UserError` if there is nothing to watch.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str] | Mapping[str, Callable[[torch.Tensor], torch.Tensor] | None] | None = None,
    ) -> None:
        modules = dict(model.named_modules())
        functions = dict(layers) if isinstance(layers, Mapping) else {}
        if layers is None:
            names = [name for name, module in modules.items() if isinstance(module, NONLINEARITIES)]
            if not names:
                raise UserError(
                    f"{type(model).__name__} has no nonlinearity modules to watch (functional ones leave no trace); "
                    "give layers= with the submodules before them and the functions, such as {'fc1': F.relu}; "
                    f"submodules: {', '.join(filter(None, modules))}"
                )
        else:
            names = [layers] if isinstance(layers, str) else list(layers)
            if not names:
                raise UserError("layers= is empty: nothing to watch")
            for name in names:
                if name not in modules:
                    raise unknown("submodule", name, filter(None, modules))
        self.model = model
        self._seen: dict[str, _Seen] = {}
        self._calls: dict[str, int] = {}
        self._inside = False
        self._before: dict[str, torch.Tensor] | None = None
        self._hooks: list[Any] = [model.register_forward_pre_hook(self._begin)]
        self._hooks += [modules[name].register_forward_hook(self._keep(name, functions.get(name))) for name in names]
        self._hooks.append(model.register_forward_hook(self._end, always_call=True))

    def activations(self) -> dict[str, Any]:
        """What the watched layers last received and gave: name -> (pre, post), or post alone.

        Raises `UserError` before the first forward pass, and if a value was overwritten in place since.
        """
        if not self._seen:
            raise UserError("no forward pass has been seen yet: call the model before you read it")
        for name, seen in self._seen.items():
            if [_version(tensor) for tensor in seen.tensors] != seen.versions:
                raise UserError(f"the values at {name!r} were overwritten in place after the layer had given them")
        found = {name: tuple(_channels_last(tensor) for tensor in seen.tensors) for name, seen in self._seen.items()}
        return {name: values if len(values) == 2 else values[0] for name, values in found.items()}

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

    def _begin(self, *_: Any) -> None:
        self._inside, self._calls, self._seen = True, {}, {}

    def _end(self, *_: Any) -> None:
        self._inside = False

    def _keep(self, name: str, function: Callable[[torch.Tensor], torch.Tensor] | None) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                raise UserError(f"submodule {name!r} gives a {type(output).__name__}: only tensors can be watched")
            tensors = (output.detach(),)
            if function is not None:
                with torch.no_grad():
                    tensors = (tensors[0].clone(), function(tensors[0].clone()))
            elif isinstance(module, NONLINEARITIES) and inputs:
                pre = inputs[0].detach()
                # An in-place nonlinearity has overwritten its input: what is left is the output alone.
                tensors = tensors if pre.data_ptr() == output.data_ptr() else (pre, *tensors)
            # Outside of the model's own forward nobody says when one begins, so the last call counts.
            count = self._calls[name] = self._calls.get(name, 0) + 1 if self._inside else 1
            key = name if count == 1 else f"{name}:{count}"
            self._seen[key] = _Seen(tensors, [_version(tensor) for tensor in tensors])

        return hook


class _Seen(NamedTuple):
    """versions: how often each tensor had been changed in place when it was seen."""

    tensors: tuple[torch.Tensor, ...]
    versions: list[int]


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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
