"""Plasticity itself: what a network still learns, measured on copies of it.

    trainability              loss on fresh high-frequency targets after K updates, and that of a fresh network
    target_fitting_capacity   the same for the outputs of random networks, in expectation over them
    random_labels             loss and accuracy on random labels after K updates, and those of a fresh network
    warm_start, warm_start_gap      test score of continued minus that of fresh training, run here or given
    sample_plasticity         share of a sample's loss that one update on it removes
    steps_to_threshold, restricted_mean_steps     steps until a score is reached, with runs that never reach it
    policy_churn, value_churn, output_churn, policy_divergence     what one update changes elsewhere

Signs in activations and norms (`plasticity.diagnose`) are not losses of plasticity; these are. All are pure, with
static shapes: they work under `jit`, under `vmap` over runs, and on NumPy arrays; parameters, optimiser state and keys
of the run stay as they are. A probe's loop is compiled anew at each call unless the call is under `jax.jit`.

A model is a `Network` record with its variables, or any function `forward(params, x) -> outputs` with its parameters.
"""

from plasticity.probes.capacity import Capacity, target_fitting_capacity
from plasticity.probes.churn import output_churn, policy_churn, policy_divergence, value_churn
from plasticity.probes.fresh_targets import Trainability, trainability
from plasticity.probes.labels import RandomLabels, random_labels
from plasticity.probes.samples import sample_plasticity
from plasticity.probes.steps import RestrictedMean, StepsTo, restricted_mean_steps, steps_to_threshold
from plasticity.probes.warm import WarmStart, WarmStartGap, warm_start, warm_start_gap

__all__ = [
    "Capacity",
    "RandomLabels",
    "RestrictedMean",
    "StepsTo",
    "Trainability",
    "WarmStart",
    "WarmStartGap",
    "output_churn",
    "policy_churn",
    "policy_divergence",
    "random_labels",
    "restricted_mean_steps",
    "sample_plasticity",
    "steps_to_threshold",
    "target_fitting_capacity",
    "trainability",
    "value_churn",
    "warm_start",
    "warm_start_gap",
]
