"""FIRE, Frobenius-isometry reinitialisation at a task switch (Han et al. 2026, arXiv:2602.08040)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from plasticity.config import static
from plasticity.mitigations.base import Event, Learner, Mitigation, Setting, mitigations
from plasticity.mitigations.penalties import roles
from plasticity.network import get_at, set_at


def newton_schulz(w: jax.Array, iterations: int) -> jax.Array:
    """X <- 1.5 X - .5 X X^T X from w / ||w||_F, for matrices `[..., rows, columns]`; zero for a zero matrix.

    Each singular value s goes its own way, s <- 1.5 s - .5 s^3: to 1, but small ones only grow by 1.5 an iteration.
    """
    wide = jnp.swapaxes(w, -1, -2) if w.shape[-2] > w.shape[-1] else w
    size = jnp.max(jnp.abs(wide), axis=(-2, -1), keepdims=True)
    x = wide / jnp.where(size > 0, size, 1.0)
    norm = jnp.sqrt(jnp.sum(jnp.square(x), axis=(-2, -1), keepdims=True))
    x = x / jnp.where(norm > 0, norm, 1.0)
    x = jax.lax.fori_loop(0, iterations, lambda _, x: 1.5 * x - 0.5 * (x @ jnp.swapaxes(x, -1, -2)) @ x, x)
    return jnp.swapaxes(x, -1, -2) if w.shape[-2] > w.shape[-1] else x


def polar(w: jax.Array) -> jax.Array:
    """U V^T of the singular value decomposition of matrices `[..., rows, columns]`; zero for a zero matrix."""
    u, _, vt = jnp.linalg.svd(w, full_matrices=False)
    return jnp.where(jnp.any(w != 0, axis=(-2, -1), keepdims=True), u @ vt, 0.0)


@mitigations.register("fire")
class Fire(Mitigation):
    """At each switch replace every kernel by the nearest matrix with equal singular values, scaled to its layer.

        W <- P sqrt(out / in) / (kh kw),   P = W (W^T W)^(-1/2), the polar factor of W `[in, out]`

    In convolutions each of the kh x kw taps is a matrix of its own. All kernels take part, the output layer's too;
    biases, norm scales and offsets and deviations of noisy layers stay. The optimiser's state is renewed, as in the
    source; `reset_optimizer=false` keeps it.

    `newton_schulz` is the source's iteration from W / ||W||_F with its 10 iterations, and does not get there: a
    singular value that is .01 of the Frobenius norm becomes .53, one of .001 becomes .058, so a matrix whose rank has
    collapsed stays so. 20 iterations bring .001 to .998. `svd` is the exact polar factor; directions in which W is 0
    then get a singular value of 1 as well, in a direction that W does not determine. A zero matrix stays zero.
    """

    reference = "Han et al. 2026, arXiv:2602.08040"
    cost = "at a switch a few matrix products, or a decomposition, of each kernel"
    stage = "event"

    iterations: int = static(10, ge=1, positional=True, unit="iterations", help="of newton_schulz")
    method: str = static("newton_schulz", choices=("newton_schulz", "svd"), help="how the polar factor is found")
    reset_optimizer: bool = static(True, help="also restart the optimiser's state")

    def on_event(self, key: jax.Array, learner: Learner, setting: Setting, event: Event) -> Learner:
        params = learner.variables["params"]
        for path in roles(params, setting.network).weights:
            w = get_at(params, path)
            *taps, fan_in, fan_out = w.shape
            factor = polar(w) if self.method == "svd" else newton_schulz(w, self.iterations)
            scale = (fan_out / fan_in) ** 0.5
            for tap in taps:
                scale /= tap
            params = set_at(params, path, factor * scale)
        variables = {**learner.variables, "params": params}
        return Learner(variables, setting.restarted(variables) if self.reset_optimizer else learner.opt_state)
