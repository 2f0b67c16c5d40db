"""The report page and the command line: verdict first, nothing from outside, readable errors."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import duckdb
import pandas as pd
import pytest
from synthetic_study import make_study

from analysis.__main__ import main
from analysis.report import write_report
from plasticity import record


class Page(HTMLParser):
    """Tags with attributes, the text, and tags left open."""

    VOID = frozenset({"meta", "img", "br", "hr", "link"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def html(folder, tmp_path_factory):
    path = write_report(folder, tmp_path_factory.mktemp("page") / "report.html")
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_verdict_comes_first(html):
    order = [
        html.index(f'id="{key}"')
        for key in ("verdict", "claims", "figures", "combinations", "runs", "provenance", "reproduce")
    ]
    assert order == sorted(order)
    assert html.index("Layer norm + L2 kept the network trainable best: +0.30") < html.index("<figure")


def test_nothing_comes_from_outside(html, page):
    assert "http:" not in html
    assert "https:" not in html
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:40])
    assert "url(" not in html
    assert "@import" not in html


def test_page_is_whole_and_accessible(html, page):
    assert page.open == []
    images = [a for tag, a in page.tags if tag == "img"]
    assert len(images) == 8
    assert all(len(a["alt"]) > 60 for a in images)
    assert all(a.get("scope") in ("col", "row") for tag, a in page.tags if tag == "th")
    assert sum(tag == "caption" for tag, _ in page.tags) == sum(tag == "table" for tag, _ in page.tags)
    assert ("html", {"lang": "en"}) in page.tags
    targets = {a["href"][1:] for tag, a in page.tags if tag == "a"}
    assert targets <= {a["id"] for _, a in page.tags if "id" in a}
    assert "prefers-color-scheme:dark" in html
    assert "width=device-width" in html


def test_claims_and_provenance_are_on_it(html, page):
    for claim in ("T1", "T2", "T3", "T4", "T5"):
        assert f">{claim}</th>" in html
    assert len(re.findall('class="chip reproduced"', html)) == 4
    assert "python -m sweeps run factorial --scale laptop" in page.text
    assert "versions.jax" in page.text
    assert "75 done." in page.text
    assert "—" not in page.text


def test_flaws_are_on_it(flawed, tmp_path):
    path = write_report(flawed, tmp_path / "r.html")
    text = Page(path.read_text()).text
    assert "Preliminary: 46 of 50 runs have finished." in text
    assert "RuntimeError: out of memory" in text
    assert "score 0 from there on" in text
    assert "1 planned but without any record" in text


def test_page_is_byte_stable_and_escapes(tmp_path):
    folder = make_study(tmp_path, tasks=1, factors=1, seeds=[0, 1], num_tasks=2, names=[])
    meta = record.read_json(folder / "study.json")
    record.write_json(folder / "study.json", {**meta, "title": "<script>a & b</script>"})
    first = write_report(folder)
    assert first == folder / "report.html"
    one = first.read_text()
    assert "<script>" not in one
    assert "&lt;script&gt;a &amp; b" in one
    assert write_report(folder).read_text() == one


@pytest.fixture
def study_name(tmp_path, monkeypatch):
    """A small study that is found by its name under runs/."""
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path / "runs", name="tiny", tasks=1, factors=1, seeds=range(3), num_tasks=3, names=["dead_units"])
    return "tiny"


def test_commands(study_name, tmp_path, capsys):
    assert main(["verdict", study_name]) == 0
    out = capsys.readouterr().out
    assert "T1  reproduced" in out
    assert "n=3, claimed above 0: reproduced" in " ".join(out.split())
    assert main(["table", study_name]) == 0
    assert "fresh network" in capsys.readouterr().out
    assert main(["table", study_name, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("task,combination,value,low,high,n,gap")
    assert main(["figures", study_name, "--only", "effects", "--out", "drawn"]) == 0
    assert {p.suffix for p in (tmp_path / "drawn").iterdir()} == {".pdf", ".png", ".csv", ".txt"}
    assert main(["report", study_name, "--out", "page.html", "--level", "0.9"]) == 0
    assert "90% bootstrap intervals" in (tmp_path / "page.html").read_text()


def test_export_has_every_row(study_name, tmp_path, capsys):
    assert main(["export", study_name, "--out", "packed"]) == 0
    rows = duckdb.connect().read_parquet("packed/metrics.parquet").df()
    # 9 runs of 3 tasks: four task-level numbers, and a diagnostic at 8 steps for the network and its two layers.
    assert len(rows) == 9 * 3 * (6 + 8 * 3)
    assert set(rows["task_kind"]) == {"label_reset"}
    assert pd.read_csv("packed/runs.csv")["run_id"].nunique() == 9
    assert set(pd.read_csv("packed/late_scores.csv")["combination"]) == {"none", "layer_norm", "full_reset"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "tyni"], "Did you mean 'tiny'"),
        (["figures", "tiny", "--only", "efects"], "Did you mean 'effects'"),
        (["verdict", "tiny", "--level", "95"], "level must lie between 0 and 1"),
        (["figures"], "at least one study"),
        (["report", "tiny", "--out", "runs/tiny/study.json/page.html"], "cannot write"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(study_name, capsys, arguments, said):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err


def test_help(capsys):
    for command in ("figures", "report", "table", "verdict", "export"):
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert "0.95" in capsys.readouterr().out
