"""Per-sample plasticity: the share of a sample's loss that one update on that sample removes.

    clip(1 - L(x; theta_{t+1}) / max(L(x; theta_t), floor), 0, 1)

Elsayed & Mahmood 2024 (arXiv:2404.00781).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from plasticity.diagnostics.standalone import standalone
from plasticity.errors import UserError


@standalone(
    name="sample_plasticity",
    unit="share",
    range=(0.0, 1.0),
    cost="one more forward pass, on the sample just trained on",
    reference="Elsayed & Mahmood 2024, arXiv:2404.00781",
)
def sample_plasticity(
    before: Float[Array, " *samples"], after: Float[Array, " *samples"], floor: Any = 1e-8
) -> Float[Array, " *samples"]:
    """Share of each sample's loss that one update removed: 0 for none, 1 for all of it.

    before, after: losses of the same samples under the parameters before and after the update on them, of one shape,
    not negative. floor: the least divisor. The paper averages over the samples of a task.

    An update that makes things worse reads 0, as one that does nothing: the mean hides destruction. Near convergence
    the value says little, for there is no loss left to remove; a loss of 0 that stays 0 reads 1, by the formula. NaN
    where a loss is not finite.

    Name collisions: "plasticity" in that paper's figures. Nothing of it is about fresh targets: compare `trainability`.
    """
    before, after = jnp.asarray(before), jnp.asarray(after)
    if before.shape != after.shape:
        raise UserError(f"losses before and after must be of the same samples, got {before.shape} and {after.shape}")
    dtype = jnp.promote_types(jnp.result_type(before, after), jnp.float32)
    before, after = before.astype(dtype), after.astype(dtype)
    share = jnp.clip(1 - after / jnp.maximum(before, floor), 0.0, 1.0)
    return jnp.where(jnp.isfinite(before) & jnp.isfinite(after), share, jnp.nan)
