"""The monitor: cadence, history, files, mirrors, what it keeps and what it refuses, and what it does not import."""

import importlib.util
import json
import math
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import plasticity
from plasticity.diagnostics import rank
from plasticity.errors import UserError
from plasticity.monitor import DEFAULT, Monitor, Reading

# Rows are few here, and layers are wider.
pytestmark = pytest.mark.filterwarnings("ignore:ranks are capped by the number of rows")

ROOT = Path(__file__).resolve().parents[1]
PARAMS = {"a": {"kernel": np.ones((2, 3))}, "b": {"kernel": np.ones((3, 1))}}
POST = {"h": np.array([[0.0, 1, 3], [0, 1, 1]])}
FEW = ("dead_units", "dormant_units")


def record_few(monitor, steps, **values):
    for step in steps:
        monitor.record(step, activations=POST, **values)


# --- cadence --------------------------------------------------------------------------------------------------------


def due(monitor, steps=range(300)):
    return [step for step in steps if monitor.due(step)]


def test_it_measures_densely_after_the_start_and_at_multiples():
    assert due(Monitor(every=100)) == [0, 1, 2, 4, 8, 16, 32, 64, 100, 128, 200, 256]
    assert due(Monitor(every=100, dense=False)) == [0, 100, 200]
    assert due(Monitor(every=np.int64(150), dense=False)) == [0, 150]


def test_it_measures_densely_after_an_announced_change():
    monitor = Monitor(every=100)
    monitor.task_changed(110)
    assert due(monitor, range(90, 160)) == [100, 110, 111, 112, 114, 118, 126, 142]
    monitor = Monitor(every=100, dense=False)
    monitor.task_changed(110)
    assert due(monitor) == [0, 100, 200]


@pytest.mark.parametrize("every", [0, -1, 2.0, "10", True, None])
def test_a_bad_period_is_told(every):
    with pytest.raises(UserError, match="every must be a whole number of steps >= 1"):
        Monitor(every=every)


def test_unknown_names_and_thresholds_are_told_at_construction():
    with pytest.raises(UserError, match="Did you mean 'dead_units'"):
        Monitor(choose=["dead_unit"])
    with pytest.raises(UserError, match="Did you mean 'dead_units'"):
        Monitor(choose="dead_unit")
    with pytest.raises(UserError, match="unknown threshold 'taw'"):
        Monitor(taw=0.1)
    with pytest.raises(UserError, match=r"called on its own, as plasticity\.probes\.trainability"):
        Monitor(choose=["trainability"])


# --- what is recorded -----------------------------------------------------------------------------------------------


def test_values_are_those_of_diagnose_with_its_thresholds():
    monitor = Monitor(choose=FEW, tau=1.0)
    found = monitor.record(0, activations=POST, loss=0.5)
    expected = plasticity.diagnose(activations=POST, choose=FEW, tau=1.0)
    assert found == {**{k: pytest.approx(float(v)) for k, v in expected.items()}, "loss": 0.5}
    assert found["dormant_units"] == pytest.approx(2 / 3)
    assert next(iter(found)) == "loss"
    assert Reading(0, 0, "dead_units", "h", pytest.approx(1 / 3), "share of units") in monitor.readings


def test_history_is_a_tidy_frame():
    pytest.importorskip("pandas")
    monitor = Monitor(choose=FEW)
    assert list(monitor.history().columns) == ["step", "task", "name", "layer", "value", "unit"]
    record_few(monitor, [0, 10], loss=1.0)
    monitor.task_changed(20)
    record_few(monitor, [20], loss=2.0)
    frame = monitor.history()
    assert len(frame) == 3 * 5
    assert not frame.duplicated(["step", "name", "layer"]).any()
    assert frame[frame.name == "loss"].value.tolist() == [1, 1, 2]
    assert frame.groupby("step").task.first().tolist() == [0, 0, 1]
    assert set(frame[frame.name == "dead_units"].layer) == {"", "h"}
    assert frame.set_index("name").unit.to_dict()["loss"] == "loss"
    assert frame.step.dtype.kind == "i"


def test_the_default_set_is_what_is_given_allows():
    pre = np.array([[-1.0, 1, 3], [-2, 1, 1]])
    names = {name.partition("/")[0] for name in Monitor().record(0, activations={"h": (pre, POST["h"])}, params=PARAMS)}
    assert names == set(DEFAULT) - {"gradient_norm", "update_norm", "update_ratio", "effective_lr_adam"}
    alone = {name.partition("/")[0] for name in Monitor(activation="tanh").record(0, activations=POST)}
    assert "dead_units" not in alone  # smooth units cannot be judged from their outputs
    assert "srank" in alone
    assert len(Monitor(choose="all").record(0, params=PARAMS)) > len(Monitor().record(0, params=PARAMS))
    assert Monitor().record(0) == {}


def test_what_needs_more_than_the_default_is_measured_if_it_is_given():
    needs = ["dormant_overlap", "gradient_signal", "update_previous_cosine", "moment_ratio_max"]
    moved, state = jax.tree.map(lambda p: -2 * p, PARAMS), optax.ScaleByAdamState(np.int32(3), PARAMS, PARAMS)
    trees = {"grads": PARAMS, "grads_2": moved, "updates": PARAMS, "previous_updates": moved, "opt_state": state}
    found = Monitor(choose=needs).record(0, activations=POST, reference_activations=POST, **trees)
    assert found["gradient_signal"] == pytest.approx(-2 * 9)
    assert found["update_previous_cosine"] == pytest.approx(-1)
    assert found["dormant_overlap"] == 1
    assert found["moment_ratio_max"] == pytest.approx((1 / 0.271) / np.sqrt(1 / (1 - 0.999**3)), rel=1e-4)


def test_ranks_of_too_few_rows_are_warned_of_once(monkeypatch):
    monkeypatch.setattr(rank, "_warned", set())
    with warnings.catch_warnings(record=True, action="always") as caught:
        for step in range(3):
            Monitor(choose=["srank"]).record(step, activations=POST)
    assert ["h: 2 rows, 3 features" in str(warning.message) for warning in caught] == [True]
    assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]  # the user's own line
    monkeypatch.setattr(rank, "_warned", set())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Monitor(choose=FEW).record(0, activations=POST)  # no rank among them


def test_units_of_values_that_have_one():
    monitor = Monitor()
    monitor.record(0, probe_loss=0.1, policy_churn=0.2, my_own=3)
    assert {r.name: r.unit for r in monitor.readings} == {
        "probe_loss": "share of variance",
        "policy_churn": "share",
        "my_own": "",
    }


def test_initial_parameters_are_copied():
    monitor = Monitor(choose=["distance_from_init", "weight_norm"])
    params = jax.tree.map(np.array, PARAMS)
    assert monitor.record(0, params=params)["distance_from_init"] == 0
    params["a"]["kernel"] += 2.0
    assert monitor.record(1, params=params)["distance_from_init"] == pytest.approx(2 * np.sqrt(6))
    assert monitor.record(2, params=params)["weight_norm"] == pytest.approx(np.sqrt(6 * 9 + 3))
    donated = Monitor(choose=["distance_from_init"])
    first = jax.tree.map(jnp.array, PARAMS)
    donated.record(0, params=first)
    moved = jax.jit(lambda p: jax.tree.map(lambda v: v + 1, p), donate_argnums=0)(first)
    assert donated.record(1, params=moved)["distance_from_init"] == pytest.approx(3)


def test_trees_may_hold_what_is_no_number():
    params = {"a": {"kernel": np.ones((2, 2)), "activation": jnp.tanh, "name": "a"}, "n": 3}
    assert Monitor(choose="weight_norm").record(0, params=params)["weight_norm"] == pytest.approx(np.sqrt(4 + 9))


def test_updates_gradients_learning_rate_and_targets():
    monitor = Monitor(choose=["gradient_norm", "update_norm", "effective_lr_adam"], learning_rate=1.0)
    both = {"params": PARAMS, "grads": PARAMS, "updates": PARAMS}
    found = monitor.record(0, **both, targets=[1.0, 3.0])
    assert found["gradient_norm"] == found["update_norm"] == pytest.approx(3)
    assert (found["target_mean"], found["target_std"]) == (2, 1)
    halved = monitor.record(1, **both, learning_rate=0.5)
    assert halved["effective_lr_adam"] == pytest.approx(found["effective_lr_adam"] / 2)
    with pytest.raises(UserError, match="targets= are empty"):
        monitor.record(2, targets=[])


def numbers():
    yield from [1.5, np.float32(1.5), np.array(1.5), np.array([1.5]), jnp.array(1.5), jnp.array([[1.5]], jnp.bfloat16)]
    if importlib.util.find_spec("torch") is not None:
        import torch

        yield from [torch.tensor(1.5, requires_grad=True), torch.tensor([1.5], dtype=torch.bfloat16)]


def test_values_may_be_scalars_of_any_framework():
    for number in numbers():
        assert Monitor().record(0, loss=number) == {"loss": 1.5}
    assert Monitor().record(0, a=True, b=3, c=math.nan)["a"] == 1.0


@pytest.mark.parametrize("value", ["1.0", None, [1.0, 2.0], np.ones(3), np.zeros(0), 1j, object()])
def test_what_is_no_number_is_told_and_leaves_nothing_behind(value):
    monitor = Monitor(choose=FEW)
    with pytest.raises(UserError, match="loss= must be one number"):
        monitor.record(0, activations=POST, loss=value)
    assert monitor.readings == []


def test_layers_must_stay_the_same():
    monitor = Monitor(choose=FEW)
    record_few(monitor, [0])
    monitor.record(1, loss=1.0)
    with pytest.raises(UserError, match="have the layers g; before they had h"):
        monitor.record(2, activations={"g": np.ones((2, 3))})
    record_few(monitor, [3])
    with pytest.raises(UserError, match="diagnostic 'dead_units' needs activations="):
        Monitor(choose=FEW).record(0, params=PARAMS)


def test_parameters_must_stay_the_same():
    monitor = Monitor(choose="distance_from_init")
    monitor.record(0, params=PARAMS)
    with pytest.raises(UserError, match="differ in structure"):
        monitor.record(1, params={"a": PARAMS["a"]})


def test_it_compiles_once_for_one_shape():
    monitor = Monitor(choose=FEW, learning_rate=0.1)
    record_few(monitor, range(5), loss=1)
    assert monitor._measure._cache_size() == 1


# --- files and mirrors ----------------------------------------------------------------------------------------------


def test_jsonl_lines_are_written_at_once_and_appended(tmp_path):
    path = tmp_path / "deep" / "metrics.jsonl"
    monitor = Monitor(choose=FEW, jsonl=path)
    record_few(monitor, [0], loss=math.nan, other=-math.inf)
    (line,) = path.read_text().splitlines()  # before it is closed

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    found = json.loads(line, parse_constant=refuse)
    assert found == {
        "step": 0,
        "task": 0,
        "loss": None,
        "other": None,
        "dead_units": pytest.approx(1 / 3),
        "dead_units/h": pytest.approx(1 / 3),
        "dormant_units": pytest.approx(1 / 3),
        "dormant_units/h": pytest.approx(1 / 3),
    }
    monitor.close()
    monitor.close()
    with Monitor(jsonl=str(path)) as second:
        second.task_changed(4)
        second.record(np.int64(5), loss=2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 5]
    assert json.loads(path.read_text().splitlines()[1])["task"] == 1
    with pytest.raises(UserError, match="closed"):
        second.record(6, loss=1)


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "metrics.jsonl"):
        with pytest.raises(UserError, match="cannot write"):
            Monitor(jsonl=path)


class Writer:
    def __init__(self):
        self.calls, self.closed = [], False

    def add_scalar(self, name, value, step):
        self.calls.append((name, value, step))

    def close(self):
        self.closed = True


class Run:
    def __init__(self):
        self.calls, self.finished = [], False

    def log(self, values, step):
        self.calls.append((values, step))

    def finish(self):
        self.finished = True


def test_mirrors_of_the_users_own_get_all_values_and_stay_open():
    writer, run = Writer(), Run()
    for mirror in (writer, run):
        with Monitor(mirror=mirror) as monitor:
            monitor.record(3, loss=0.5, score=1)
    assert writer.calls == [("loss", 0.5, 3), ("score", 1.0, 3)]
    assert run.calls == [({"loss": 0.5, "score": 1.0}, 3)]
    assert not writer.closed
    assert not run.finished


def test_mirrors_by_name_are_opened_and_closed(monkeypatch):
    import types

    opened = []
    board = types.SimpleNamespace(SummaryWriter=lambda folder: opened.append((folder, Writer())) or opened[-1][1])
    tracker = types.SimpleNamespace(init=lambda project: opened.append((project, Run())) or opened[-1][1])
    monkeypatch.setitem(sys.modules, "tensorboardX", board)
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    for mirror in ("tensorboard:some/folder", "wandb:project"):
        with Monitor(mirror=mirror) as monitor:
            monitor.record(1, loss=2)
    assert [name for name, _ in opened] == ["some/folder", "project"]
    assert opened[0][1].closed
    assert opened[1][1].finished


def test_bad_mirrors_are_told(monkeypatch):
    for mirror in ("tensorboard:", "tensorbord:x", "wandb", 3):
        with pytest.raises(UserError, match="mirror must be"):
            Monitor(mirror=mirror)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="needs tensorboardX: pip install"):
        Monitor(mirror="tensorboard:x")


def test_tensorboard_itself(tmp_path):
    pytest.importorskip("tensorboardX")
    with Monitor(mirror=f"tensorboard:{tmp_path}") as monitor:
        monitor.record(1, loss=2)
    assert any(tmp_path.iterdir())


# --- what it prints -------------------------------------------------------------------------------------------------


def test_the_table_shows_steps_spread_over_the_run():
    monitor = Monitor(choose=FEW)
    assert monitor.table() == "Nothing was recorded yet."
    record_few(monitor, [0, 1, 2, 4, 500, 1000], loss=0.123456)
    head, loss, *rest = monitor.table(columns=3).splitlines()
    assert head.split() == ["step", "0", "500", "1,000"]
    assert loss.split() == ["loss", *["0.1235"] * 3, "loss"]
    assert [line.split()[0] for line in rest] == list(FEW)  # the values of layers are not shown
    assert rest[0].endswith("share of units")
    monitor.record(2000, score=math.nan)
    assert monitor.table().splitlines()[-1].split() == ["score", "nan", "score"]


def test_it_explains():
    monitor = Monitor()
    for step in range(10):
        monitor.record(step, dead_units=step / 10)
    assert monitor.explain().startswith("Clear sign of dead or dormant units")


# --- imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import plasticity", {"jax", "numpy", "flax", "seaborn", "torch", "pandas", "matplotlib"}),
        ("import plasticity; plasticity.Monitor", {"flax", "seaborn", "torch", "pandas", "matplotlib", "wandb"}),
        ("import plasticity; plasticity.probes.trainability", {"flax", "seaborn", "torch", "pandas"}),
    ],
)
def test_imports_are_light(code, absent):
    code += "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert not absent & set(run.stdout.split())
