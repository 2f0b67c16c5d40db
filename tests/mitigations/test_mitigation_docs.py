"""The page on mitigations names every member at its stage, and none that is not there."""

import re
from pathlib import Path

import plasticity
from plasticity.mitigations import compose, mitigations

PAGE = Path(plasticity.__file__).resolve().parent.parent / "docs" / "mitigations.md"


def test_the_page_has_every_member_at_its_stage():
    table = PAGE.read_text().split("| stage | members |")[1].split("##")[0]
    found = {}
    for line in table.splitlines()[2:]:
        if line.startswith("|"):
            stage, members = line.strip("|").split("|")
            for name in re.findall(r"`(\w+)`", members):
                found[name] = stage.strip().rstrip("*")
            assert stage.strip().endswith("*") is (stage.strip().rstrip("*") in compose.EXCLUSIVE)
    assert found == {name: cls.stage for name, cls in mitigations.members().items()}
    assert list(dict.fromkeys(found.values())) == [s for s in compose.STAGES if s in found.values()]
