"""One run as one pure function, a chunk at a time.

`start` gives the state of a run; `run_chunk` takes it through a task or a part of one: the switch (context, then the
mitigations' events) if the chunk begins the task, updates with measurements in between, and the evaluation if it ends
the task. Both are pure, so that a run can be jitted alone, vmapped over seeds and strengths, stopped between chunks
and resumed.

The number of the task and the steps within it are never batched: periodic work inside a step stays a branch under vmap.
Online metrics are taken before the update on the batch (pre-update loss and score, averaged over the task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.errors import UserError
from plasticity.heads import Head
from plasticity.method import Method
from plasticity.mitigations import compose
from plasticity.mitigations.base import Context, Event, Learner, Mitigation, Setting
from plasticity.mitigations.resets import anywhere
from plasticity.network import Activation
from plasticity.networks.base import Architecture
from plasticity.optimizers import stepping
from plasticity.rng import named, stream
from tasks import objectives
from tasks.base import Batch, State, Task, Transition
from tasks.measure import Measure
from tasks.objectives import base_head

#: End-of-task evaluation uses at most so many examples (the first of the stream).
EVALUATED = 4096


class Targets(NamedTuple):
    """Variables of the target network in the task before and in this one."""

    before: Any
    now: Any


class Rest(NamedTuple):
    """Of a task that a run may have learned before its last update. window: sum of the scores since the last look at
    them; taken: updates of this task; resting: whether it takes no more."""

    window: jax.Array
    taken: jax.Array
    resting: jax.Array

    @classmethod
    def none(cls) -> Rest:
        """At the beginning of a task."""
        return cls(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), bool))


class RunState(NamedTuple):
    """stream: where the task stream is, the same for all methods of a seed; learner: what training has changed;
    total: sums over the task so far of what `objectives.tally` gives before each update; targets: `Targets` of value
    learning, else (); rest: `Rest` where a task can end early, else ()."""

    stream: State
    learner: Learner
    total: jax.Array
    targets: Any = ()
    rest: Any = ()


class Chunk(NamedTuple):
    """A stretch of a task: measured updates at `lasts`, plain ones before them from `firsts` on; int32 `[points]`."""

    firsts: jax.Array
    lasts: jax.Array


class Span(NamedTuple):
    """Whether a chunk begins and whether it ends its task: part of the compiled program."""

    begins: bool = True
    ends: bool = True


class Record(NamedTuple):
    """What a chunk leaves. dense: `name[/layer]` -> `[points]`, one value per measuring point.
    final: `name[/layer]` -> scalar, one value at the end of the task; empty if the chunk does not end it."""

    dense: dict[str, jax.Array]
    final: dict[str, jax.Array]


class _Parts(NamedTuple):
    head: Head
    setting: Setting
    initial: dict[str, Any]


def architecture_on(task: Task, members: Sequence[Mitigation], data: Any) -> Architecture:
    """What these mitigations, in canonical order, make of a network on a task. `UserError` where they cannot stand."""
    compose.check_needs(members, "a stream of tasks", missing=[] if task.kind == "values" else ["following"])
    problem = task.problem(data)
    return compose.architecture(members, Architecture(base_head(problem), predictions=problem.actions))


def _parts(task: Task, method: Method, seed: jax.Array, data: Any) -> _Parts:
    members = compose.canonical(method.mitigations)
    architecture = architecture_on(task, members, data)
    network = method.network.build(architecture)
    if network.sequence != task.sequence:
        kinds = {False: "one prediction an input", True: "a prediction at every position (transformer and the like)"}
        raise UserError(
            f"{task.name} needs a network with {kinds[task.sequence]}; {method.network.name} has "
            f"{kinds[network.sequence]}"
        )
    example = task.example(data)

    def initializer(key: jax.Array) -> dict[str, Any]:
        return compose.initial(members, network, key, example)

    setting = Setting(network, initializer, method.optimizer.lr, stream(seed, "mitigation"))
    setting = compose.optimizer(members, method.optimizer, setting)
    # Recomputed from its key where it is needed, rather than carried: only L2-Init and distances read it.
    return _Parts(architecture.head, setting, initializer(stream(seed, "init")))


def start(task: Task, method: Method, seed: jax.Array, data: Any) -> RunState:
    """The state of a run before its first task."""
    parts = _parts(task, method, seed, data)
    learner = Learner(parts.initial, parts.setting.restarted(parts.initial))
    # The target network starts as the network does.
    targets = Targets(parts.initial, parts.initial) if task.kind == "values" else ()
    first = task.init(named(stream(seed, "task"), "first"), data)
    rest = () if task.stop(jnp.int32(0), data) is None else Rest.none()
    return RunState(first, learner, objectives.nothing(task.pooled_score), targets, rest)


def chunks(length: int, measure: Measure, longest: int) -> list[tuple[Span, Chunk]]:
    """A task of so many updates in chunks of at most `longest`, or of one point where points lie further apart."""
    points = measure.updates(length, longest)
    parts: list[list[tuple[int, int]]] = [[]]
    for first, end in zip((0, *points[:-1]), points, strict=True):
        if parts[-1] and end - parts[-1][0][0] > longest:
            parts.append([])
        parts[-1].append((first, end - 1))
    return [
        (
            Span(i == 0, i == len(parts) - 1),
            Chunk(*(jnp.array(column, jnp.int32) for column in zip(*part, strict=True))),
        )
        for i, part in enumerate(parts)
    ]


def run_chunk(
    task: Task,
    method: Method,
    measure: Measure,
    span: Span,
    seed: jax.Array,
    state: RunState,
    index: jax.Array,
    chunk: Chunk,
    data: Any,
) -> tuple[RunState, Record]:
    """Take a run through a chunk of task `index` (0-based, unbatched)."""
    members = compose.canonical(method.mitigations)
    parts = _parts(task, method, seed, data)
    setting, head, initial = parts.setting, parts.head, parts.initial
    network, tx = setting.network, setting.tx
    assert tx is not None
    data_key = jax.random.fold_in(stream(seed, "data"), index)
    length, before = task.length(index, data), task.before(index, data)
    stop = task.stop(index, data)

    def ready(batch: Batch, targets: Any, step: Any) -> Batch:
        """The batch with targets, if there is a target network: over the transition it turns into the new one."""
        if not isinstance(targets, Targets):
            return batch
        ramp = task.transition * length

        def between(targets: Targets) -> Any:
            share = step / jnp.maximum(ramp, 1.0)
            return jax.tree.map(lambda a, b: ((1 - share) * a + share * b).astype(b.dtype), *targets)

        variables = jax.lax.cond(step < ramp, between, lambda targets: targets.now, targets)
        return objectives.with_targets(head, batch, lambda x: network.apply(variables, x)[0])

    def forward(params: Any, variables: dict[str, Any], batch: Batch, key: jax.Array):
        """Mean loss of a batch in training, and what else the pass gives."""
        noise = named(key, "noise") if network.stochastic else None
        outputs, activations, new_state = network.apply({**variables, "params": params}, batch.x, noise, train=True)
        return objectives.loss(head, outputs, batch), (outputs, activations, new_state)

    def switch(state: RunState) -> RunState:
        key = jax.random.fold_in(stream(seed, "task"), index)
        event_key = jax.random.fold_in(named(stream(seed, "mitigation"), "switch"), index)
        following = task.advance(state.stream, key, index, data)
        # The target network becomes what was learned, before anything is reset.
        targets = Targets(state.targets.now, state.learner.variables) if state.targets else ()

        def gradient(variables: Any, key: jax.Array) -> Any:
            batch = ready(task.some(following, key, index, data), targets, length)
            return jax.grad(lambda p: forward(p, variables, batch, key)[0])(variables["params"])

        event = Event(index, lambda key: task.some(following, key, index, data).x, gradient)
        learner = compose.on_switch(members, event_key, state.learner, setting, event)
        return RunState(following, learner, state.total, targets, state.rest)

    def update(state: RunState, step: jax.Array):
        key = jax.random.fold_in(data_key, step)
        stream_state, drawn = task.batch(state.stream, key, step, index, data)
        batch = ready(drawn, state.targets, step)
        learner = state.learner
        variables = learner.variables

        def following(params: Any) -> Mapping[str, Activation]:
            return network.apply({**variables, "params": params}, drawn.y.next_x)[1]

        def context(params: Any, outputs: jax.Array, activations: Mapping[str, Activation]) -> Context:
            return Context(
                network,
                initial,
                activations,
                outputs,
                variables,
                inputs=batch.x,
                targets=objectives.targets(batch),
                loss=lambda p: forward(p, variables, batch, key)[0],
                reference=lambda: task.some(stream_state, named(key, "reference"), index, data).x,
                following=(lambda: following(params)) if isinstance(drawn.y, Transition) else None,
            )

        def objective(params):
            loss, found = forward(params, variables, batch, key)
            return loss + compose.penalty(members, params, context(params, *found[:2])), (loss, *found)

        params = variables["params"]
        grad_fn = compose.gradient(members, jax.grad(objective, has_aux=True))
        grads, (loss, outputs, activations, new_state) = grad_fn(params)
        extra = {"activations": activations, "step": before + step, "elapsed": step / length}
        stepped, opt_state = stepping.step(tx, grads, learner.opt_state, params, **extra)
        learner = Learner({**variables, **new_state, "params": stepped}, opt_state)
        learner = compose.after_update(members, learner, context(params, outputs, activations))
        online = objectives.tally(head, outputs, batch, loss, task.pooled_score)
        after = state._replace(stream=stream_state, learner=learner, total=state.total + online)
        change = optax.tree.sub(stepped, params)
        if stop is not None:
            after = rested(state, after, online[1], step)
            change = jax.tree.map(lambda u: jnp.where(state.rest.resting, 0.0, u), change)
        return after, grads, change

    def rested(state: RunState, after: RunState, score: jax.Array, step: jax.Array) -> RunState:
        """The state after an update, or as it was (but for the stream, which all runs of a seed share) if it rests."""
        assert stop is not None
        rest = state.rest
        window = rest.window + score
        complete = (step + 1) % stop.updates == 0
        # A sum of many accuracies rounds.
        enough = complete & (window >= (stop.score - 1e-6) * stop.updates)
        following = Rest(jnp.where(complete, 0.0, window), rest.taken + 1, enough)
        kept = lambda old, new: jax.tree.map(lambda a, b: jnp.where(rest.resting, a, b), old, new)  # noqa: E731
        return after._replace(
            learner=kept(state.learner, after.learner),
            total=kept(state.total, after.total),
            rest=kept(rest, following),
        )

    def judged(name: str, variables: Any, batch: Batch, targets: Any) -> dict[str, jax.Array]:
        batch = ready(batch, targets, length)
        outputs, _, _ = network.apply(variables, batch.x)
        return {
            f"{name}_loss": objectives.loss(head, outputs, batch),
            f"{name}_score": objectives.score(head, outputs, batch),
        }

    def finish(state: RunState) -> dict[str, jax.Array]:
        variables = state.learner.variables
        measured = ready(task.fixed(state.stream, index, measure.reference, data), state.targets, length)
        tested = task.tested(state.stream, index, EVALUATED, data)
        taken = length if stop is None else state.rest.taken
        online_loss, online_score = objectives.online(state.total / taken, task.pooled_score)
        return {
            "online_loss": online_loss,
            "online_score": online_score,
            **({} if stop is None else {"updates_taken": taken}),
            **judged("end", variables, task.evaluation(state.stream, index, EVALUATED, data), state.targets),
            **({} if tested is None else judged("test", variables, tested, state.targets)),
            **{f"baseline_{name}": value for name, value in task.baselines(state.stream, index, data).items()},
            **measure.ranks(setting, variables, measured.x, index),
            **measure.probe(
                setting,
                method.optimizer,
                named(stream(seed, "probe"), "trainability"),
                variables,
                measured.x,
                index,
            ),
            **measure.curvature(setting, head, named(stream(seed, "probe"), "curvature"), variables, measured, index),
        }

    def plain(step: jax.Array, state: RunState) -> RunState:
        return update(state, step)[0]

    def interval(state: RunState, bounds: Chunk):
        """Updates `firsts .. lasts - 1` plainly, then update `lasts`, measured."""
        if stop is None:
            state = jax.lax.fori_loop(bounds.firsts, bounds.lasts, plain, state)
        else:
            # Until all runs of the group rest.
            _, state = jax.lax.while_loop(
                lambda at: (at[0] < bounds.lasts) & anywhere(~at[1].rest.resting),
                lambda at: (at[0] + 1, plain(*at)),
                (bounds.firsts, state),
            )
        state, grads, updates = update(state, bounds.lasts)
        x = task.fixed(state.stream, index, measure.reference, data).x
        return state, measure.cheap(setting, state.learner.variables, x, grads, updates, initial["params"])

    if span.begins:
        state = state._replace(total=jnp.zeros_like(state.total), rest=() if stop is None else Rest.none())
        state = jax.lax.cond(index > 0, switch, lambda state: state, state)
    state, dense = jax.lax.scan(interval, state, chunk)
    return state, Record(dense, finish(state) if span.ends else {})
