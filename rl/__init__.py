"""Atari DQN and Rainbow with the suite's mitigations and diagnostics. Not built yet."""
