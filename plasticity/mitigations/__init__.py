"""Mitigations of plasticity loss, one file each, composed by `plasticity.mitigations.compose`."""

from plasticity.mitigations.base import Context, Event, Learner, Mitigation, Setting, mitigations

__all__ = ["Context", "Event", "Learner", "Mitigation", "Setting", "mitigations"]
