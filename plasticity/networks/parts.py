"""What the suite's networks share: normalise, apply the nonlinearity, record; the fully connected end; the unit graph.

Names. A hidden layer called `hidden` has parameters `hidden/kernel` and `hidden/bias`, and its normalisation
`norm_hidden/scale` and `norm_hidden/bias`. The last hidden layer and the output of a single stream are called by
the network; those of two streams are `value_hidden`, `value_output`, `advantage_hidden`, `advantage_output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from plasticity.activations import NONLINEARITIES
from plasticity.errors import UserError
from plasticity.network import Activation, Outgoing, Path, UnitLayer
from plasticity.networks.base import Architecture
from plasticity.networks.conv import conv
from plasticity.networks.kernels import applied
from plasticity.networks.linear import Linear, bias_initializer, kernel_initializer
from plasticity.networks.normalization import normalize
from plasticity.networks.options import PLAIN, Kernels, Normalization, Sparse
from plasticity.networks.rational import Rational
from plasticity.rng import named

STREAMS = ("value", "advantage")


@dataclass(frozen=True)
class Style:
    """The static part of an architecture, with a network's own choices. outputs: of one prediction."""

    normalization: Normalization
    activation: str
    outputs: int
    predictions: int
    dueling: bool
    noise: float
    auxiliary: int = 0
    bias: bool = True
    kernels: Kernels = PLAIN
    init: str | Sparse = "lecun"
    padding: str = "SAME"
    conv: str = "auto"
    dtype: str = "float32"

    @classmethod
    def of(cls, architecture: Architecture, **own: Any) -> Style:
        a = architecture
        if a.block is not None:
            raise UserError(
                f"{a.block.kind} puts blocks in the place of the hidden layers of a multilayer perceptron; "
                "allowed is the network mlp"
            )
        return cls(
            Normalization.of(a.normalization),
            a.activation,
            a.head.outputs,
            a.predictions,
            a.dueling,
            a.noise,
            a.auxiliary,
            a.bias,
            a.kernels,
            **(own if a.init is None else {**own, "init": a.init}),
        )

    @property
    def normalized(self) -> bool:
        return self.normalization.kind != "none"


class Conv(nn.Module):
    """A convolution: parameters `kernel[k, k, in, features]` and, if it has one, `bias[features]`.

    Raises `UserError` where the input is no image, or smaller than a kernel that is not padded.
    """

    features: int
    size: int
    stride: int
    style: Style
    bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.ndim != 4:
            wanted = "[batch, height, width, channels]"
            raise UserError(f"a convolutional network needs images {wanted}, got inputs of shape {list(x.shape)}")
        if self.style.padding == "VALID" and min(x.shape[1:3]) < self.size:
            small = f"{x.shape[1]} x {x.shape[2]}, smaller than the kernel of {self.size} x {self.size}"
            raise UserError(f"the images are too small: layer {self.name} reads {small}, without padding")
        init, shape = self.style.init, (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", kernel_initializer(init), shape)
        fan_in = self.size**2 * x.shape[-1]
        bias = self.param("bias", bias_initializer(init, fan_in), (self.features,)) if self.bias else None
        kernel = applied(self, self.style.kernels.at("hidden"), kernel)
        y = conv(x, kernel.astype(x.dtype), self.stride, self.style.padding, self.style.conv)
        return y if bias is None else y + bias.astype(x.dtype)


class Unused(nn.Module):
    """A parameter `kernel[in, features]` for inputs `x[batch, in]`, and no computation."""

    features: int
    kernel_init: str | Sparse

    @nn.compact
    def __call__(self, x: jax.Array) -> None:
        self.param("kernel", kernel_initializer(self.kernel_init), (x.shape[-1], self.features))


@dataclass
class Forward:
    """One forward pass inside a compact module: makes the layers and keeps what they give."""

    style: Style
    slope: Any
    noise: jax.Array | None = None
    train: bool = False
    activations: dict[str, Activation] = field(default_factory=dict)
    first_dense: bool = True
    #: Where layers work on rows `[batch * positions, units]`, how many of them an example has; 0 where they do not.
    positions: int = 0

    def folded(self, x: jax.Array) -> jax.Array:
        """Rows `[batch * positions, units]` as `[batch, positions, units]`; others as they are."""
        return x.reshape(-1, self.positions, x.shape[-1]) if self.positions else x

    def prepare(self, x: jax.Array) -> jax.Array:
        """Inputs in the compute type; uint8 is taken as grey levels, scaled to 0 .. 1."""
        dtype = jnp.dtype(self.style.dtype)
        return x.astype(dtype) / 255 if x.dtype == jnp.uint8 else x.astype(dtype)

    def activate(self, name: str, z: jax.Array) -> jax.Array:
        """Normalise preactivations `z[batch, (height, width,) units]`, apply the nonlinearity, record both.

        Rows of positions are normalised each for itself, and recorded as `[batch, positions, units]`.
        """
        return self.respond(name, normalize(self.style.normalization, f"norm_{name}", z, self.train))

    def respond(self, name: str, z: jax.Array) -> jax.Array:
        """Apply the nonlinearity to `z` as it is, record both."""
        # A traced slope is float32 and would turn the rest of a bfloat16 network into float32.
        phi, slope = NONLINEARITIES[self.style.activation], jnp.asarray(self.slope, z.dtype)
        if phi.learned:
            x = Rational(name=f"{phi.learned}_{name}")(z)
        elif phi.sample is not None and self.train and self.noise is not None:
            x = phi.sample(named(self.noise, f"activation_{name}"), z, slope)
        else:
            x = phi.apply(z, slope)
        self.keep(name, z, x)
        return x

    def keep(self, name: str, pre: jax.Array, post: jax.Array) -> None:
        """Record what stands before and behind a nonlinearity, or a norm at the end of a residual stream."""
        self.activations[name] = Activation(self.folded(pre), self.folded(post))

    def dense(self, name: str, x: jax.Array, width: int, noisy: bool = False, place: str = "hidden") -> jax.Array:
        """A hidden dense layer. place: of its kernel, see `options.PLACES`."""
        first, self.first_dense = self.first_dense, False
        return self.activate(name, self.linear(name, x, width, noisy, self.style.bias, place, first))

    def end(self, x: jax.Array, hidden: str, width: int) -> jax.Array:
        """Last hidden layer(s) and output(s): `[batch, (positions,) predictions * outputs]` in float32.

        Without a name for the hidden layer there is none in a single stream; two streams have one each.
        """
        style, noisy = self.style, self.style.noise > 0
        if not style.dueling:
            x = self.dense(hidden, x, width, noisy, "last_hidden") if hidden else x
            self.auxiliary("auxiliary", x)
            outputs = self.linear("output", x, style.predictions * style.outputs, noisy, place="output")
            return self.folded(outputs.astype(jnp.float32))

        first = self.first_dense

        def end(stream: str, predictions: int) -> jax.Array:
            self.first_dense = first
            last = self.dense(f"{stream}_hidden", x, width, noisy, "last_hidden")
            self.auxiliary(f"{stream}_auxiliary", last)
            outputs = self.linear(f"{stream}_output", last, predictions * style.outputs, noisy, place="output")
            return outputs.astype(jnp.float32).reshape(-1, predictions, style.outputs)

        value, advantage = end("value", 1), end("advantage", style.predictions)
        q = value + advantage - jnp.mean(advantage, axis=1, keepdims=True)
        return self.folded(q.reshape(q.shape[0], -1))

    def auxiliary(self, name: str, x: jax.Array) -> None:
        """The kernel of linear heads on `x`, if the architecture asks for some. Nothing is computed with it here."""
        if self.style.auxiliary:
            Unused(self.style.auxiliary, self.style.init, name=name)(x)

    def linear(
        self,
        name: str,
        x: jax.Array,
        width: int,
        noisy: bool = False,
        bias: bool = True,
        place: str = "hidden",
        first: bool = False,
    ) -> jax.Array:
        """A dense layer without a nonlinearity. first: of the dense hidden layers."""
        style = self.style
        deviation, kind = style.noise if noisy else 0.0, style.kernels.at(place, first)
        return Linear(width, style.init, deviation, bias, kind, name=name)(x, self.noise)


class Graph:
    """Builds the unit graph: each layer is added with the names of the layers that it reads."""

    def __init__(self, style: Style) -> None:
        self.style = style
        self._layers: dict[str, UnitLayer] = {}
        self._outgoing: dict[str, list[Outgoing]] = {}
        self.outputs: tuple[Path, ...] = ()
        self.norms: list[Path] = []
        self.coefficients: list[Path] = []
        self.features: tuple[str, ...] = ()
        self.auxiliary: tuple[Path, ...] = ()
        #: The activation of the residual stream that the output reads.
        self.stream = ""
        #: One prediction a position, from tokens.
        self.sequence = False
        #: Training passes need a key, whatever the nonlinearity.
        self.stochastic = False

    def hidden(
        self,
        name: str,
        units: int,
        reads: Sequence[str],
        noisy: bool = False,
        place: str = "hidden",
        gain: bool = False,
    ) -> None:
        """A hidden layer whose kernel reads the layers `reads` (one after the other; empty for the input).

        gain: it has one, as a kernel with weight normalisation has.
        """
        self.reads(name, reads, noisy)
        self._coefficients(name)
        self._outgoing[name] = []
        bias = self.style.bias
        noise = ((name, "noise_kernel"), (name, "noise_bias"))[: 1 + bias] if noisy else ()
        gains = ((name, "gain"),) if gain or self.style.kernels.at(place) == "weight_norm" else ()
        self._layers[name] = UnitLayer(
            name=name,
            units=units,
            kernel=(name, "kernel"),
            bias=(name, "bias") if bias else None,
            norm_scale=(f"norm_{name}", "scale") if self.style.normalized else None,
            norm_bias=(f"norm_{name}", "bias") if self.style.normalization.offset else None,
            outgoing=(),
            further=noise + gains,
        )

    def norm(self, name: str) -> None:
        """A normalisation and nonlinearity by `Forward.activate` that belong to no layer of the graph."""
        self.response(name)
        self.affine(name)

    def response(self, name: str) -> None:
        """A nonlinearity on the residual stream, by `Forward.respond`."""
        self.stream = name
        self._coefficients(name)

    def affine(self, name: str) -> None:
        """A normalisation that belongs to no layer of the graph."""
        if self.style.normalized:
            self.norms.append((f"norm_{name}", "scale"))
        if self.style.normalization.offset:
            self.norms.append((f"norm_{name}", "bias"))

    def _coefficients(self, name: str) -> None:
        """Those of a trained nonlinearity in `Forward.activate`."""
        if learned := NONLINEARITIES[self.style.activation].learned:
            self.coefficients += [(f"{learned}_{name}", "numerator"), (f"{learned}_{name}", "denominator")]

    def end(self, hidden: str, width: int, reads: Sequence[str]) -> None:
        """The layers of `Forward.end`."""
        noisy = self.style.noise > 0
        names = [(f"{s}_hidden", f"{s}_output") for s in STREAMS] if self.style.dueling else [(hidden, "output")]
        for last, output in names:
            if last:
                self.hidden(last, width, reads, noisy, "last_hidden")
            self.reads(output, (last,) if last else reads, noisy)
            if self.style.auxiliary:
                heads = output.replace("output", "auxiliary")
                self.reads(heads, (last,) if last else reads)
                self.auxiliary += ((heads, "kernel"),)
        # Where the output reads no layer of the graph, it reads the residual stream: what was normalised last.
        self.features = tuple(last for last, _ in names if last) or tuple(reads) or (self.stream,)
        self.outputs = tuple((output, "kernel") for _, output in names)

    def layers(self) -> tuple[UnitLayer, ...]:
        """The unit graph, in the order in which layers were added."""
        return tuple(replace(layer, outgoing=tuple(self._outgoing[name])) for name, layer in self._layers.items())

    def reads(self, name: str, sources: Sequence[str], noisy: bool = False) -> None:
        """A kernel that is read by no later layer of the graph: note that it reads the layers `sources`."""
        for source in sources:
            self._outgoing[source].append(Outgoing((name, "kernel")))
            if noisy:
                self._outgoing[source].append(Outgoing((name, "noise_kernel")))
