"""Named sets of diagnostics: what a run is measured by unless it says otherwise.

CHEAP costs about a forward pass: units, norms, gradients, updates. RANKS need a decomposition a layer.
"""

from __future__ import annotations

from plasticity.diagnostics.base import get

CHEAP = (
    "dead_units",
    "linearized_units",
    "dormant_units",
    "sign_entropy",
    "weight_norm",
    "distance_from_init",
    "gradient_norm",
    "update_norm",
    "update_ratio",
    "effective_lr_adam",
)
RANKS = ("srank", "effective_rank", "stable_rank", "feature_rank")


def named(text: str) -> tuple[str, ...]:
    """Names of diagnostics from a text that has them between spaces. Raises `UserError` for one that does not exist."""
    return tuple(get(name).name for name in text.replace(",", " ").split())
