"""What the host counts: returns and lengths of episodes, from unclipped rewards."""

from __future__ import annotations

import numpy as np

from rl.envs.base import Row


class Episodes:
    """Returns of the episodes that have ended, by lane. Environments lie lane by lane along the rows' axis."""

    def __init__(self, lanes: int, envs: int) -> None:
        self.lanes, self.envs = lanes, envs
        self.last = np.full(lanes, np.nan)
        self.clear()
        self.abandon()

    def clear(self) -> None:
        """Forget the episodes that have ended: a new iteration begins."""
        self.returns: list[list[float]] = [[] for _ in range(self.lanes)]
        self.lengths: list[list[int]] = [[] for _ in range(self.lanes)]

    def abandon(self) -> None:
        """Forget the episodes that are under way: fresh ones begin everywhere."""
        self._return = np.zeros(self.lanes * self.envs)
        self._length = np.zeros(self.lanes * self.envs, np.int64)

    def add(self, row: Row) -> None:
        """Take in a row. A reset row begins an episode and counts nothing."""
        # Not multiplied by 0: a game that gives an infinite reward must not turn the next episode into NaN.
        self._return = np.where(row.first, 0.0, self._return + row.reward)
        self._length = np.where(row.first, 0, self._length + 1)
        for env in np.flatnonzero(row.over | row.truncated):
            lane = env // self.envs
            self.returns[lane].append(float(self._return[env]))
            self.lengths[lane].append(int(self._length[env]))
            self.last[lane] = self._return[env]

    def summary(self, frames_per_step: int) -> dict[str, np.ndarray]:
        """`return`, `episodes` and `episode_length` (frames) of each lane; NaN where no episode has ended."""

        def mean(values: list[list[float]] | list[list[int]]) -> np.ndarray:
            return np.array([np.mean(v) if v else np.nan for v in values])

        return {
            "return": mean(self.returns),
            "episodes": np.array([float(len(v)) for v in self.returns]),
            "episode_length": mean(self.lengths) * frames_per_step,
        }
