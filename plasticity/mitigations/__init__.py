"""Mitigations of plasticity loss, one file each, composed by `plasticity.mitigations.compose`."""

from plasticity.mitigations.base import Context, Learner, Mitigation, Setting, mitigations

__all__ = ["Context", "Learner", "Mitigation", "Setting", "mitigations"]
