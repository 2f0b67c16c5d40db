"""Evaluation protocols: how a game is presented and what its signals mean to the agent."""

from rl.protocols.base import ProtocolConfig, protocols

__all__ = ["ProtocolConfig", "protocols"]
