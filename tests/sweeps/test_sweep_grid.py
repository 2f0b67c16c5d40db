"""Grids and run ids: products, unions, subsets, each run once; ids that mean the whole resolved config."""

from __future__ import annotations

import dataclasses
from itertools import permutations

import pytest
from tiny_study import LEAN, task, tiny

from plasticity import spec
from plasticity.errors import UserError
from plasticity.identity import resolved
from plasticity.mitigations.l2 import L2
from sweeps import run as run_module
from sweeps.grid import Grid, subsets
from sweeps.run import Run
from tasks.measure import Measure

EVERY = ("layer_norm", "l2(1e-3)", "redo(tau=0.1)", "shrink_perturb")


def test_a_grid_is_the_product_of_its_axes():
    grid = Grid(
        task={"a": "label_reset", "b": "label_reset(eps=0.5)"},
        mitigations=("none", "layer_norm", "l2"),
        network=("mlp(8)", "mlp(16)"),
        optimizer=("adam", "sgd"),
        seeds=3,
    )
    runs = grid.runs()
    cells = {(r.key, r.label, r.method.network.width, r.method.optimizer.name, r.seed) for r in runs}
    assert len(runs) == len(cells) == len({r.id for r in runs}) == 2 * 3 * 2 * 2 * 3
    assert {r.seed for r in runs} == {0, 1, 2}
    assert {r.key for r in runs} == {"a", "b"}


def test_union_has_every_run_once_and_in_order():
    one, other = tiny(("none", "l2"), seeds=2), tiny(("l2", "layer_norm"), seeds=3)
    ids = [r.id for r in (one + other).runs()]
    assert len(ids) == len(set(ids)) == 2 * 2 + 2 * 3 - 2
    assert ids[:4] == [r.id for r in one.runs()]
    assert set(ids) == {r.id for g in (one, other) for r in g.runs()}


def test_union_is_associative():
    a, b, c = (tiny((text,), seeds=1) for text in ("none", "l2", "layer_norm"))
    left, right = ((a + b) + c).runs(), (a + (b + c)).runs()
    assert [r.label for r in left] == [r.label for r in right] == ["none", "l2", "layer_norm"]


@pytest.mark.parametrize("count", range(len(EVERY) + 1))
def test_subsets_are_all_combinations(count):
    found = subsets(*EVERY[:count])
    assert len(found) == len(set(found)) == 2**count
    assert found[0] == "none"
    assert {frozenset(t.split("+")) - {"none"} for t in found} == {
        frozenset(t for i, t in enumerate(EVERY[:count]) if bits >> i & 1) for bits in range(2**count)
    }
    assert len(tiny(found, seeds=1).runs()) == 2**count


def test_the_same_run_written_twice_is_one_run():
    texts = ("layer_norm+l2(1e-3)", "l2(0.001)+layer_norm", "l2(strength=1e-3) + layer_norm", "layer_norm+l2(.001)")
    runs = tiny(texts, seeds=2).runs()
    assert len(runs) == 2
    assert {r.label for r in runs} == {"layer_norm+l2(0.001)"}


def test_keys_name_tasks():
    assert [r.key for r in tiny(("none",), 1, ("label_reset", "label_reset(eps=0.5, steps=7)")).runs()] == [
        "label_reset",
        "label_reset(eps=0.5,steps=7)",
    ]
    assert Run.of("label_reset").key == "label_reset"


@pytest.mark.parametrize("axis", ["task", "mitigations", "network", "optimizer"])
def test_an_empty_axis_is_an_error(axis):
    grid = dataclasses.replace(tiny(), **{axis: ()})
    with pytest.raises(UserError, match=f"axis '{axis}' is empty"):
        grid.runs()


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_is_an_error(seeds):
    with pytest.raises(UserError, match=rf"seeds must be >= 1, got {seeds}"):
        tiny(seeds=seeds).runs()


def test_id_is_pinned():
    """Ids name results on disk. If this fails and no default was meant to change, old results are orphaned."""
    run = Run.of(task(), "mlp(8)", "adam(1e-3)", "layer_norm+l2(1e-3)", 3, measure=LEAN)
    assert resolved(run.method.mitigations[1]) == {"name": "l2", "strength": 0.001}
    assert run.id == run_module.digest(
        {
            "task": {
                "name": "label_reset",
                **{"steps": 5, "num_tasks": 3, "batch_size": 20, "examples_used": 40, "pool": 4},
                **{"eps": 1.0, "transition": 0.0, "first_true": False, "data": "fashion_mnist", "held_out": 0},
                **{"redraw": "uniform", "budget": "switch", "epochs": 0, "stop_at": 0.0},
            },
            "network": {"name": "mlp", "width": 8, "depth": 2},
            "optimizer": {"name": "adam", "lr": 0.001, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "eps_root": 0.0},
            "mitigations": [{"name": "layer_norm"}, {"name": "l2", "strength": 0.001}],
            "measure": {
                **{"name": "measure", "points": "end", "reference": 256, "ranks_every": 0, "also": ""},
                **{"probe_every": 0, "probe_updates": 200, "curvature_every": 0, "curvature_inputs": 64},
            },
            "seed": 3,
        }
    )
    assert (
        run_module.digest({"a": [1, 2.5, None, True, "x"]}) == "78539effacd6"
    )  # sha256sum of {"a": [1, 2.5, null, true, "x"]}


def test_id_ignores_order_spelling_and_key():
    members = ("layer_norm", "l2(1e-3)", "redo(tau=0.1)")
    ids = {Run.of("label_reset", mitigation="+".join(p), key=str(i)).id for i, p in enumerate(permutations(members))}
    assert len(ids) == 1
    assert Run.of("label_reset").id == Run.of("label_reset(eps=1, steps=400)", "mlp(128)", "adam(lr=1e-3)").id
    assert Run.of("label_reset", mitigation="l2(0.0)").id == Run.of("label_reset", mitigation="l2(-0.0)").id


def test_any_field_changes_the_id():
    base = {"task": "label_reset", "network": "mlp", "optimizer": "adam", "mitigation": "l2", "seed": 0}
    changes = [
        *({"task": f"label_reset({f})"} for f in ("eps=0.5", "steps=401", "transition=0.1", "first_true=true")),
        *({"task": f"label_reset({f})"} for f in ("data=other.npz", "pool=2", "batch_size=99", "num_tasks=2")),
        {"task": "class_permutation"},
        *({"network": t} for t in ("mlp(64)", "mlp(depth=3)")),
        *({"optimizer": t} for t in ("sgd", "adam(2e-3)", "adam(b2=0.9)")),
        *({"mitigation": t} for t in ("none", "l2(2e-5)", "l2+layer_norm", "l2_init", "weight_decay(1e-5)")),
        {"seed": 1},
        *({"measure": m} for m in (Measure(points="end"), Measure(reference=255), Measure(ranks_every=2))),
    ]
    ids = [Run.of(**base).id, *(Run.of(**{**base, **change}).id for change in changes)]
    assert len(set(ids)) == len(ids)


def test_a_changed_default_changes_the_id(monkeypatch):
    """The text `l2` stays the same, the experiment does not."""
    before = Run.of("label_reset", mitigation="l2")

    @dataclasses.dataclass(frozen=True)
    class Changed(L2):
        strength: float = dataclasses.field(default=2e-5, metadata=L2.__dataclass_fields__["strength"].metadata)

    after = dataclasses.replace(before, method=dataclasses.replace(before.method, mitigations=(Changed(),)))
    assert spec.to_text(Changed()) == before.label == "l2"
    assert after.id != before.id


@pytest.mark.parametrize("mitigation", ["none", *EVERY, "+".join(EVERY), "l2(-0.0)"])
@pytest.mark.parametrize("measure", [Measure(), LEAN, Measure(points="off", reference=7)])
def test_a_run_is_read_back_from_its_config(mitigation, measure):
    run = Run.of(task(eps=0.25), "mlp(8, 3)", "sgd(0.5, momentum=0.9)", mitigation, 5, "key", measure)
    again = Run.from_config(run.config)
    assert again == run
    assert (again.id, again.config, again.key) == (run.id, run.config, "key")
