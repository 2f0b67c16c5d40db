"""C-CHAIN: a penalty on churn, the change of outputs on inputs that were not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from plasticity.config import static, traced
from plasticity.errors import UserError
from plasticity.mitigations.base import Context, Learner, Mitigation, mitigations
from plasticity.mitigations.compose import remembering
from plasticity.network import Network, Params


class Past(NamedTuple):
    """lagged: parameters before the last updates, oldest first. loss, churn: running means; count: int32 updates."""

    lagged: tuple[Params, ...]
    loss: jax.Array
    churn: jax.Array
    count: jax.Array


@mitigations.register("c_chain")
class CChain(Mitigation):
    """c times the churn: how far outputs on a reference batch have moved within the last `lag` updates.

    For values the mean squared difference over batch and outputs, for distributions KL(lagged || current) averaged
    over the batch (the source's cross-entropy less a constant). The lagged outputs are constants, the reference batch
    is another one of the same stream, both passes use running statistics. Zero, with a zero gradient, while the
    parameters are those of `lag` updates ago, and so before the first update.

    mode=ratio: c = strength mean |loss| / mean churn, so that the term is `strength` of the loss; means are
    exponential, of length `window` (the source's are flat), and c is `start` in the first `warmup` updates
    (the source's numbers; in a shorter run `start` would be all there is).
    mode=fixed: c = strength. In the source's code history index 2 counts the current parameters: it is one update ago,
    lag=1 here. All parameters take part, as far as outputs depend on them.
    """

    reference = (
        "Tang et al. 2025, ICML, openreview EkoFXfSauv (ratio .01 for DQN, start 100, window 50,000, warmup 10,000)"
    )
    cost = "two forward passes and a backward one on the reference batch, and `lag` copies of the parameters"
    stage = "penalty"
    needs = ("reference",)

    strength: float = traced(0.01, ge=0, positional=True, help="ratio of the term to the loss; mode=fixed: coefficient")
    mode: str = static("ratio", choices=("ratio", "fixed"), help="how the coefficient is set")
    lag: int = static(1, ge=1, help="updates between the two networks that are compared")
    start: float = traced(100.0, ge=0, help="coefficient during the warmup of mode=ratio")
    window: int = static(50_000, ge=1, unit="updates", help="length of the running means of mode=ratio")
    warmup: int = static(10_000, ge=0, unit="updates", help="before the means are used")

    def neutral(self) -> Self:
        return type(self)(0.0, self.mode, self.lag, 0.0, self.window, self.warmup)

    def memory(self, variables: Mapping[str, Any], network: Network) -> Past:
        # Copies: what is trained and what is kept must not share a buffer.
        lagged = tuple(jax.tree.map(jnp.copy, variables["params"]) for _ in range(self.lag))
        return Past(lagged, jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32))

    def penalty(self, params: Params, context: Context) -> jax.Array:
        past = context.need("memory", self.name)
        return jax.lax.stop_gradient(self.coefficient(past)) * self.churn(params, past.lagged[0], context)

    def coefficient(self, past: Past) -> Any:
        """c of the next update."""
        if self.mode == "fixed":
            return self.strength
        # Both means start at zero and have the same length: their ratio needs no correction for the start.
        return jnp.where(past.count < self.warmup, self.start, self.strength * past.loss / (past.churn + 1e-8))

    def churn(self, params: Params, lagged: Params, context: Context) -> jax.Array:
        """Difference of the outputs of two parameters on the reference batch."""
        x = context.need("reference", self.name)()

        def outputs(params: Params) -> jax.Array:
            return context.network.apply({**context.variables, "params": params}, x)[0]

        now, before = outputs(params), jax.lax.stop_gradient(outputs(lagged))
        if not context.network.logits:
            return jnp.mean(jnp.square(now - before))
        p, q = (jax.nn.log_softmax(o.reshape(-1, context.network.logits)) for o in (before, now))
        return jnp.mean(jnp.sum(jnp.exp(p) * (p - q), axis=-1))

    def after_update(self, learner: Learner, context: Context) -> Learner:
        past = context.need("memory", self.name)
        if "params" not in context.variables:
            raise UserError(f"{self.name} needs the variables of before the update: pass Context(variables=...)")
        params = context.variables["params"]
        loss, churn = past.loss, past.churn
        if self.mode == "ratio":
            # The same passes as in the penalty, so a compiled update computes them once.
            loss += (jnp.abs(context.need("loss", self.name)(params)) - loss) / self.window
            churn += (self.churn(params, past.lagged[0], context) - churn) / self.window
        new = Past((*past.lagged[1:], params), loss, churn, past.count + 1)
        return remembering(learner, self.name, new)
