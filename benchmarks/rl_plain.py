"""What the agents' learners are compared with: the loops that one writes without this suite.

`Replay` keeps frames in numpy and puts batches together on the host; prioritised draws are by a sum tree, a level of it
at a time. `PlainJax` calls one jitted update a batch, with XLA's convolution; `Torch` is the same agent in PyTorch.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.rl_agent import Agents
from rl import learner
from rl.learner import Batch
from rl.losses import priorities
from rl.replay.sampling import Draw


class Host(NamedTuple):
    """A batch on the host."""

    index: np.ndarray
    obs: np.ndarray
    next_obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    weight: np.ndarray


class Replay:
    """`steps` random frames of one environment without ends of episodes, which only spares the host work."""

    def __init__(self, agents: Agents, prioritized: bool) -> None:
        plan, rng = agents.plan, np.random.default_rng(0)
        self.layout, self.batch, self.rng = plan.layout, plan.agent.batch_size, rng
        self.steps = plan.layout.capacity
        self.frames = rng.integers(0, 256, (self.steps, *plan.layout.frame_shape)).astype(plan.layout.dtype)
        self.action = rng.integers(0, plan.actions, self.steps)
        self.reward = rng.standard_normal(self.steps).astype(np.float32)
        self.tree: list[np.ndarray] = []
        if prioritized:
            level = np.ones(1 << (self.steps - 1).bit_length(), np.float64)
            self.tree = [level]
            while level.size > 1:
                level = level.reshape(-1, 2).sum(1)
                self.tree.append(level)

    def draw(self) -> Host:
        layout, stack, n = self.layout, self.layout.stack, self.layout.n_step
        low, high = stack, self.steps - n - stack
        weight = np.ones(self.batch, np.float32)
        if self.tree:
            index = np.clip(self._descend(), low, high)
            weight = ((self.steps * self.tree[0][index] / self.tree[-1][0]) ** -0.5).astype(np.float32)
            weight /= weight.max()
        else:
            index = self.rng.integers(low, high, self.batch)
        powers = (layout.gamma ** np.arange(n)).astype(np.float32)
        reward = (self.reward[index[:, None] + 1 + np.arange(n)] * powers).sum(1)
        discount = np.full(self.batch, layout.gamma**n, np.float32)
        obs, following = self._stack(index), self._stack(index + n)
        return Host(index, obs, following, self.action[index], reward, discount, weight)

    def write(self, index: np.ndarray, priority: np.ndarray) -> None:
        self.tree[0][index] = priority
        for below, level in zip(self.tree[:-1], self.tree[1:], strict=True):
            index = np.unique(index // 2)
            level[index] = below[2 * index] + below[2 * index + 1]

    def _descend(self) -> np.ndarray:
        index = np.zeros(self.batch, np.int64)
        left = self.rng.random(self.batch) * self.tree[-1][0]
        for level in self.tree[-2::-1]:
            index *= 2
            right = left > level[index]
            left = np.where(right, left - level[index], left)
            index += right
        return index

    def _stack(self, newest: np.ndarray) -> np.ndarray:
        stacks = self.frames[newest[:, None] - self.layout.stack + 1 + np.arange(self.layout.stack)]
        return np.moveaxis(stacks, 1, -2).reshape(len(newest), *stacks.shape[2:-1], -1)


class PlainJax:
    """The same losses and network: sample on the host, call one jitted update, fetch priorities."""

    def __init__(self, agents: Agents, updates: int) -> None:
        self.plan, self.updates, self.done = agents.plan, updates, 0
        self.prioritized = self.plan.agent.priority != "none"
        self.replay = Replay(agents, self.prioritized)
        method = agents.run.method
        plan = self.plan

        def start() -> Any:
            made = learner.parts(plan, method, 0)
            return learner.Learner(made.initial, made.setting.restarted(made.initial)), made.initial

        def update(state: Any, target: Any, host: Host, number: Any) -> Any:
            made = learner.parts(plan, method, 0)
            none = dict.fromkeys(Draw._fields)
            drawn = Draw(**{**none, "action": host.action, "reward": host.reward, "discount": host.discount})
            batch = Batch(drawn, host.obs, host.next_obs, host.weight)
            key = jax.random.fold_in(jax.random.key(0), number)
            found = learner.gradient(plan, made, state.variables, target, batch, batch.obs, key)
            state, _ = learner.step(made, state, found, number)
            new = priorities(plan.agent.priority, found.losses) if self.prioritized else None
            return state, new

        self.state, self.target = jax.jit(start)()
        self.update = jax.jit(update)

    def __call__(self) -> None:
        agent = self.plan.agent
        for _ in range(self.updates):
            host = self.replay.draw()
            self.state, new = self.update(self.state, self.target, host._replace(index=np.zeros(0)), self.done)
            if self.prioritized:
                self.replay.write(host.index, np.asarray(new) ** agent.priority_exponent)
            self.done += 1
            if self.done % agent.target_updates == 0:
                self.target = self.state.variables
        jax.block_until_ready(self.state)


class Torch:
    """The agent in PyTorch on one thread or more: the same architecture, losses and optimiser."""

    def __init__(self, agents: Agents, updates: int, threads: int) -> None:
        import torch

        self.torch, self.plan, self.updates, self.threads = torch, agents.plan, updates, threads
        self.agent, self.done = self.plan.agent, 0
        self.replay = Replay(agents, self.agent.priority != "none")
        torch.set_num_threads(threads)
        self.network, self.target = network(agents), network(agents)
        self.target.load_state_dict(self.network.state_dict())
        parameters = self.network.parameters()
        if "rmsprop" in agents.run.config["optimizer"]:
            self.optimizer: Any = torch.optim.RMSprop(parameters, 2.5e-4, alpha=0.95, eps=3e-3, centered=True)
        else:
            self.optimizer = torch.optim.Adam(parameters, 6.25e-5, eps=1.5e-4)
        self.atoms = torch.linspace(-self.agent.value_max, self.agent.value_max, max(self.agent.atoms, 2))

    def __call__(self) -> None:
        self.torch.set_num_threads(self.threads)
        for _ in range(self.updates):
            self._update()

    def _update(self) -> None:
        torch, agent = self.torch, self.agent
        host = self.replay.draw()
        obs, following, action, reward, discount, weight = (torch.from_numpy(np.ascontiguousarray(a)) for a in host[1:])
        images = self.replay.frames.dtype == np.uint8
        # Channels come last, as frames are stacked; PyTorch computes on that layout without a copy.
        obs, following = ((x.float() / (255 if images else 1)).permute(0, 3, 1, 2) for x in (obs, following))
        rows = torch.arange(len(action))
        if agent.noise:
            self.network.draw(), self.target.draw()
        with torch.no_grad():
            outputs = self.target(following)
            if agent.noise and agent.double:
                self.network.draw()
            best = self._values(self.network(following) if agent.double else outputs).argmax(1)
            chosen = outputs[rows, best]
        if agent.noise:
            self.network.draw()
        online = self.network(obs)[rows, action]
        if agent.atoms:
            loss = self._cross_entropy(online, chosen, reward, discount)
        else:
            y = reward + discount * chosen[:, 0]
            loss = torch.nn.functional.smooth_l1_loss(online[:, 0], y, reduction="none")
        self.optimizer.zero_grad()
        (weight * loss).mean().backward()
        if agent.max_gradient_norm:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), agent.max_gradient_norm)
        self.optimizer.step()
        if self.replay.tree:
            self.replay.write(host.index, loss.detach().clamp(0, 100).numpy() ** agent.priority_exponent)
        self.done += 1
        if self.done % agent.target_updates == 0:
            self.target.load_state_dict(self.network.state_dict())

    def _values(self, outputs: Any) -> Any:
        return (outputs.softmax(-1) * self.atoms).sum(-1) if self.agent.atoms else outputs[..., 0]

    def _cross_entropy(self, online: Any, following: Any, reward: Any, discount: Any) -> Any:
        torch, atoms = self.torch, self.atoms
        with torch.no_grad():
            width = atoms[1] - atoms[0]
            moved = (reward[:, None] + discount[:, None] * atoms).clamp(atoms[0], atoms[-1])
            place = (moved - atoms[0]) / width
            low, mass = place.floor().clamp(0, len(atoms) - 2), following.softmax(-1)
            share = place - low
            code = torch.zeros_like(mass)
            code.scatter_add_(1, low.long(), mass * (1 - share))
            code.scatter_add_(1, low.long() + 1, mass * share)
        return -(code * online.log_softmax(-1)).sum(-1)


def network(agents: Agents) -> Any:
    """The agent's network as a PyTorch module with outputs `[batch, actions, outputs]`."""
    import torch
    from torch import nn

    plan = agents.plan
    agent = plan.agent
    outputs = agent.atoms or 1
    height, _, channels = plan.observation
    if agents.run.config["network"].startswith("minatar"):
        layers, width = [(channels, 16, 3, 1)], 128
    else:
        layers, width = [(channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)], 512
    torso: list[Any] = []
    for into, out, size, stride in layers:
        torso += [nn.Conv2d(into, out, size, stride), nn.ReLU()]
        height = (height - size) // stride + 1
    features = height * height * layers[-1][1]

    class Noisy(nn.Linear):
        """Factorised noise on the weights."""

        def __init__(self, into: int, out: int) -> None:
            super().__init__(into, out)
            self.deviation = nn.Parameter(torch.full((out, into), 0.1 * into**-0.5))
            self.bias_deviation = nn.Parameter(torch.full((out,), 0.1 * into**-0.5))
            self.draw()

        def draw(self) -> None:
            a, b = (torch.randn(n) for n in (self.in_features, self.out_features))
            self.e_in, self.e_out = (e.sign() * e.abs().sqrt() for e in (a, b))

        def forward(self, x: Any) -> Any:
            # Without forming the noise matrix, as the suite does.
            noise = nn.functional.linear(x * self.e_in, self.deviation, self.bias_deviation) * self.e_out
            return super().forward(x) + noise

    linear = Noisy if agent.noise else nn.Linear

    def stream(count: int) -> Any:
        return nn.Sequential(linear(features, width), nn.ReLU(), linear(width, count * outputs))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.torso = nn.Sequential(*torso, nn.Flatten())
            self.advantage = stream(plan.actions)
            self.value = stream(1) if agent.dueling else None

        def forward(self, x: Any) -> Any:
            x = self.torso(x)
            q = self.advantage(x).view(len(x), plan.actions, outputs)
            if self.value is None:
                return q
            return q - q.mean(1, keepdim=True) + self.value(x).view(len(x), 1, outputs)

        def draw(self) -> None:
            for module in self.modules():
                if isinstance(module, Noisy):
                    module.draw()

    return Network()
