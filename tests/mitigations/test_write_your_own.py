"""The page on writing a mitigation: its files are written as they stand there, and run."""

import importlib.util
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab import method, train

from plasticity.mitigations import compose, mitigations

PAGE = Path(__file__).parents[2] / "docs" / "write_your_own_mitigation.md"
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write the page's files, and run one of them as a module; afterwards the member is forgotten."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    known, modules = dict(mitigations.members()), set(sys.modules)

    def execute(name):
        spec = importlib.util.spec_from_file_location(name.removesuffix(".py"), tmp_path / name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield execute
    mitigations._members.clear()
    mitigations._members.update(known)
    for name in {*sys.modules} - modules:
        if name.removesuffix(".py") + ".py" in FILES:
            del sys.modules[name]


def test_the_page_names_the_hooks_that_there_are_and_no_others():
    hooks = {"network", "base", "penalty", "gradient", "optimizer", "memory", "after_update", "on_event"}
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)\(", row)}
    assert named == hooks
    assert all(hasattr(compose.Mitigation, hook) for hook in hooks)


def test_the_loop_trains_and_recycles_units_at_its_period(run, capsys):
    loop = run("my_loop.py")
    found = re.fullmatch(r"loss (\d\.\d+)\n", capsys.readouterr().out)
    assert float(found[1]) < 0.2
    assert int(loop.state.count) == 200
    params = loop.init(jax.random.key(0))["params"]
    grads = jax.tree.map(jnp.zeros_like, params)
    for step in (48, 49):  # the 49th and the 50th update
        updates, _ = loop.tx.update(grads, loop.tx.init(params), params, step=step)
        after = np.asarray(params["output"]["kernel"] + updates["output"]["kernel"])
        assert (step == 49) == bool(np.any(after == 0)) == bool(np.any(updates["hidden"]["kernel"] != 0))


def test_its_name_is_config_text_in_every_loop_of_the_suite(run, capsys):
    run("by_text.py")
    printed = capsys.readouterr().out.splitlines()
    assert printed[1] == "random_recycling(0.1, every=500) -- nothing between its updates"
    losses = [train(method(f"random_recycling({share}, every=2)"), 0, "regression")[1] for share in (0, 0.5)]
    assert np.all(np.isfinite(losses))
    assert np.any(losses[0] != losses[1])
    assert np.all(losses[0][:2] == losses[1][:2])  # as long as nothing was recycled


def test_the_family_is_as_it_was():
    assert "random_recycling" not in mitigations.members()
