"""One agent as pure functions: `start`, `act`, `learn`, `event`. The unit that is mapped over lanes.

Counters (rows so far, updates so far) are arguments, not state, so that they stay unmapped and what depends on them
stays a branch under `vmap`. Whether and how much to learn is decided outside: no learning step becomes a select.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from plasticity.heads import Categorical, Head, Regression
from plasticity.method import Method
from plasticity.mitigations import compose
from plasticity.mitigations.base import Context, Event, Learner, Mitigation, Setting
from plasticity.networks.base import Architecture
from plasticity.optimizers import stepping
from plasticity.rng import named, stream
from rl import signals
from rl.agents.base import AgentConfig
from rl.envs.base import Row
from rl.losses import Losses, losses, priorities
from rl.protocols.base import ProtocolConfig
from rl.replay import ring as ring_module
from rl.replay.ring import Layout, Ring
from rl.replay.sampling import Draw, Prioritized, Uniform, draw, importance_weights, update_priorities


@dataclass(frozen=True)
class Plan:
    """All that programs are compiled for, beside the structure of the method.

    actions: of the game, or the most of a sequence. reference: examples that diagnostics are taken on.
    frames_on_device: False where the host keeps the frames of the replay.
    """

    agent: AgentConfig
    protocol: ProtocolConfig
    layout: Layout
    actions: int
    reference: int = 256
    frames_on_device: bool = True

    @property
    def observation(self) -> tuple[int, ...]:
        """Shape of an observation: the frames of a stack side by side along the last axis."""
        *rest, last = self.layout.frame_shape
        return (*rest, last * self.layout.stack)

    @property
    def drawing(self) -> Uniform | Prioritized:
        """How the replay is drawn from."""
        agent = self.agent
        return Uniform() if agent.priority == "none" else Prioritized(agent.priority_exponent, agent.uniform_share)


class State(NamedTuple):
    """One agent's state. lives: of the last row. reference: observations for diagnostics, zeros until drawn.

    sums: of loss, |TD error| and Q(s, a) over the updates since they were last read, `[3]`.
    """

    learner: Learner
    target: dict[str, Any]
    ring: Ring
    lives: Int[Array, " envs"]
    reference: Array
    sums: Float[Array, " 3"]


class Batch(NamedTuple):
    """Transitions with their observations; weight: importance of each."""

    drawn: Draw
    obs: Array
    next_obs: Array
    weight: Float[Array, " batch"]


class Parts(NamedTuple):
    """What an agent is made of: rebuilt from the config wherever it is needed, nothing of it is state."""

    members: tuple[Mitigation, ...]
    head: Head
    setting: Setting
    initial: dict[str, Any]


def base_head(agent: AgentConfig) -> Head:
    """The head of the agent without mitigations."""
    if agent.atoms:
        return Categorical(agent.atoms, -agent.value_max, agent.value_max)
    return Regression(-agent.value_max, agent.value_max)


def parts(plan: Plan, method: Method, seed: Any) -> Parts:
    """Network, head and optimiser of an agent with its mitigations. `UserError` where they do not go together."""
    agent = plan.agent
    members = compose.canonical(method.mitigations)
    compose.check_needs(members, "an agent", missing=["targets"])
    base = Architecture(base_head(agent), predictions=plan.actions, dueling=agent.dueling, noise=agent.noise)
    architecture = compose.architecture(members, base)
    network = method.network.build(architecture)
    example = jnp.zeros((1, *plan.observation), plan.layout.dtype)

    def initializer(key: jax.Array) -> dict[str, Any]:
        return compose.initial(members, network, key, example)

    setting = Setting(network, initializer, method.optimizer.lr, stream(seed, "mitigation"))
    setting = compose.optimizer(members, method.optimizer, setting)
    return Parts(members, architecture.head, setting, initializer(stream(seed, "init")))


def start(plan: Plan, method: Method, seed: Any) -> State:
    """An agent before its first row."""
    made = parts(plan, method, seed)
    prioritized = plan.agent.priority != "none"
    return State(
        learner=Learner(made.initial, made.setting.restarted(made.initial)),
        # A copy of its own: both are donated.
        target=jax.tree.map(jnp.copy, made.initial),
        ring=ring_module.init(plan.layout, plan.frames_on_device, prioritized),
        lives=jnp.zeros(plan.layout.envs, jnp.int32),
        reference=jnp.zeros((plan.reference, *plan.observation), plan.layout.dtype),
        sums=jnp.zeros(3),
    )


def outputs(plan: Plan, made: Parts, variables: Mapping[str, Any], obs: Array, noise: Any = None, train: bool = False):
    """Outputs `[batch, actions, outputs]`, activations, and the network's new state."""
    flat, activations, new_state = made.setting.network.apply(variables, obs, noise, train)
    return flat.reshape(flat.shape[0], plan.actions, -1), activations, new_state


def take(plan: Plan, state: State, row: Row, count: Int[Array, ""]) -> State:
    """Append a row, the `count`-th, to the replay."""
    kept = signals.stored(plan.protocol, state.lives, row)
    ring = ring_module.append(plan.layout, state.ring, count, kept)
    return state._replace(ring=ring, lives=jnp.asarray(row.lives))


def choose(
    plan: Plan, method: Method, seed: Any, state: State, obs: Array, count: Int[Array, ""], epsilon: Float[Array, ""]
) -> tuple[State, Int[Array, " envs"]]:
    """Actions on the newest observations `[envs, ...]`, written into the replay. epsilon: share of random ones."""
    made = parts(plan, method, seed)
    key = jax.random.fold_in(named(stream(seed, "data"), "act"), count)
    noise, explore, which = jax.random.split(key, 3)
    actions = greedy(plan, made, state.learner.variables, obs, noise if plan.agent.noise else None)
    shape = (plan.layout.envs,)
    random = jax.random.randint(which, shape, 0, plan.actions)
    actions = jnp.where(jax.random.uniform(explore, shape) < epsilon, random, actions)
    return state._replace(ring=ring_module.set_action(plan.layout, state.ring, count + 1, actions)), actions


def greedy(plan: Plan, made: Parts, variables: dict[str, Any], obs: Array, noise: Any = None) -> Int[Array, " batch"]:
    """The action of the largest value for each observation."""
    values = made.head.predict(outputs(plan, made, variables, obs, noise)[0])
    return jnp.argmax(values, axis=1).astype(jnp.int32)


def act(
    plan: Plan, method: Method, seed: Any, state: State, row: Row, count: Int[Array, ""], epsilon: Float[Array, ""]
) -> tuple[State, Int[Array, " envs"]]:
    """`take` and `choose`, with frames on the device."""
    state = take(plan, state, row, count)
    slots, mask = ring_module.window(plan.layout, state.ring, count + 1)
    return choose(plan, method, seed, state, assemble(plan, state.ring.frames, slots, None, mask), count, epsilon)


def assemble(plan: Plan, frames: Any, slots: Array, envs: Array | None, mask: Array) -> Array:
    """Observations from frames on the device; envs None means one of each environment."""
    envs = jnp.arange(plan.layout.envs) if envs is None else envs
    return ring_module.assemble(frames, slots, envs, mask, plan.layout.frame_shape)


def replay_key(seed: Any, update: Any) -> jax.Array:
    """Key of the draw of update `update`."""
    return jax.random.fold_in(named(stream(seed, "data"), "replay"), update)


def batch_of(plan: Plan, ring: Ring, frames: Any, count: Any, key: jax.Array, size: int, beta: Any) -> Batch:
    """A batch drawn from a replay with frames on the device. beta: exponent of the importance weights."""
    drawn = draw(plan.layout, ring, count, key, size, plan.drawing)
    obs = assemble(plan, frames, drawn.obs_slots, drawn.env, drawn.obs_mask)
    next_obs = assemble(plan, frames, drawn.next_slots, drawn.env, drawn.next_mask)
    return Batch(drawn, obs, next_obs, weights(plan, drawn, beta))


def weights(plan: Plan, drawn: Draw, beta: Any) -> Float[Array, " batch"]:
    """Importance weights of a batch; 1 where every transition is equally likely."""
    if plan.agent.priority == "none":
        return jnp.ones(drawn.slot.shape)
    return importance_weights(drawn.probability, drawn.size, beta)


class Gradient(NamedTuple):
    """What one batch says. context: of the online network on the batch's observations, for the mitigations."""

    grads: Any
    losses: Losses
    context: Context
    new_state: dict[str, Any]


def gradient(
    plan: Plan,
    made: Parts,
    variables: dict[str, Any],
    target: dict[str, Any],
    batch: Batch,
    reference: Array,
    key: jax.Array,
    penalised: bool = True,
) -> Gradient:
    """The gradient of the weighted loss and (unless not `penalised`) the penalties on a batch.

    reference: observations beside the batch, for penalties that compare outputs there.
    """
    agent, drawn = plan.agent, batch.drawn
    noisy = agent.noise or made.setting.network.stochastic
    online_key, target_key, selector_key = jax.random.split(key, 3) if noisy else (None, None, None)
    following, _, _ = outputs(plan, made, target, batch.next_obs, target_key)

    def forward(params: Any):
        own = {**variables, "params": params}
        online, activations, new_state = outputs(plan, made, own, batch.obs, online_key, train=True)
        selector = outputs(plan, made, own, batch.next_obs, selector_key)[0] if agent.double else following
        each = losses(made.head, agent.loss, online, following, selector, drawn.action, drawn.reward, drawn.discount)
        return jnp.mean(batch.weight * each.loss), (each, online, activations, new_state)

    def context(params: Any, online: Array, activations: Any) -> Context:
        return Context(
            made.setting.network,
            made.initial,
            activations,
            online.reshape(online.shape[0], -1),
            variables,
            inputs=batch.obs,
            loss=lambda p: forward(p)[0],
            reference=lambda: reference,
            following=lambda: outputs(plan, made, {**variables, "params": params}, batch.next_obs, online_key)[1],
        )

    def objective(params: Any):
        loss, (each, online, activations, new_state) = forward(params)
        if penalised:
            loss = loss + compose.penalty(made.members, params, context(params, online, activations))
        return loss, (each, online, activations, new_state)

    grad_fn = jax.grad(objective, has_aux=True)
    grad_fn = compose.gradient(made.members, grad_fn) if penalised else grad_fn
    params = variables["params"]
    grads, (each, online, activations, new_state) = grad_fn(params)
    if agent.max_gradient_norm:
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, agent.max_gradient_norm / jnp.maximum(norm, 1e-20)), grads)
    return Gradient(grads, each, context(params, online, activations), new_state)


def step(made: Parts, learner: Learner, found: Gradient, update: Any, elapsed: Any = None) -> tuple[Learner, Any]:
    """The learner after update number `update` (from 0, unmapped), and the change of its parameters.

    elapsed: share of the task that has passed, for those who ask; unmapped too.
    """
    tx, params = made.setting.tx, learner.variables["params"]
    assert tx is not None
    activations = found.context.activations
    extra = {"activations": activations, "step": update, "elapsed": elapsed}
    stepped, opt_state = stepping.step(tx, found.grads, learner.opt_state, params, **extra)
    variables = {**learner.variables, **found.new_state, "params": stepped}
    change = optax.tree.sub(stepped, params)
    return compose.after_update(made.members, Learner(variables, opt_state), found.context), change


def update(
    plan: Plan, made: Parts, seed: Any, state: State, batch: Batch, number: Int[Array, ""], elapsed: Any = None
) -> State:
    """One update on a batch: learner, priorities, target network. number: of this update, from 0; elapsed: `step`."""
    agent = plan.agent
    noise = jax.random.fold_in(named(stream(seed, "data"), "noise"), number)
    found = gradient(plan, made, state.learner.variables, state.target, batch, state.reference, noise)
    learner, _ = step(made, state.learner, found, number, elapsed)
    ring = state.ring
    if agent.priority != "none":
        assert isinstance(plan.drawing, Prioritized)
        new = priorities(agent.priority, found.losses)
        ring = update_priorities(plan.layout, ring, batch.drawn, new, plan.drawing)
    target = jax.lax.cond((number + 1) % agent.target_updates == 0, lambda: learner.variables, lambda: state.target)
    each = found.losses
    sums = state.sums + jnp.stack([jnp.mean(each.loss), jnp.mean(each.td_error), jnp.mean(each.q)])
    return state._replace(learner=learner, target=target, ring=ring, sums=sums)


def learn(
    plan: Plan,
    method: Method,
    seed: Any,
    frames: Any,
    state: State,
    count: Int[Array, ""],
    first: Int[Array, ""],
    updates: Int[Array, ""],
    beta: Float[Array, ""],
    elapsed: Float[Array, ""] | None = None,
) -> State:
    """Updates number `first` to `first + updates - 1` on a replay of `count` rows. elapsed: as for `step`.

    The frames come beside the state, whose own are None: they are read only, and so never copied.
    """
    made = parts(plan, method, seed)

    def body(i: Int[Array, ""], state: State) -> State:
        number = first + i
        batch = batch_of(plan, state.ring, frames, count, replay_key(seed, number), plan.agent.batch_size, beta)
        return update(plan, made, seed, state, batch, number, elapsed)

    return jax.lax.fori_loop(0, updates, body, state)


def event(plan: Plan, method: Method, seed: Any, state: State, batch: Batch, number: Int[Array, ""]) -> State:
    """The mitigations' events (shrink and perturb, full reset), the `number`-th time; the target follows.

    batch: what stands for the data of now, however often a mitigation asks for some.
    """
    made = parts(plan, method, seed)
    key = jax.random.fold_in(named(stream(seed, "mitigation"), "switch"), number)

    def grads(variables: Any, key: jax.Array) -> Any:
        return gradient(plan, made, variables, state.target, batch, state.reference, key, penalised=False).grads

    happening = Event(number, lambda key: batch.obs, grads)
    learner = compose.on_switch(made.members, key, state.learner, made.setting, happening)
    return state._replace(learner=learner, target=jax.tree.map(jnp.copy, learner.variables))


def with_events(method: Method) -> bool:
    """Whether the method has mitigations that act at events."""
    return any(compose.acts_at_events(m) for m in method.mitigations)


def detached(state: State) -> State:
    """The state without the replay's frames."""
    return state._replace(ring=state.ring._replace(frames=None))


def attached(state: State, frames: Any) -> State:
    """The state with the replay's frames."""
    return state._replace(ring=state.ring._replace(frames=frames))
