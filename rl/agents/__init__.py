"""Agents: one agent with its parts as options, and the presets of the literature."""

from rl.agents.base import AgentConfig, agents

__all__ = ["AgentConfig", "agents"]
