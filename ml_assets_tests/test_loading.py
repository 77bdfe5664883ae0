import re

import pytest

from ml_assets_tests.project import Project

LOOKUP = {
    "name": "town",
    "contract": "contract.Town",
    "source": {"kind": "files", "uri": "town.csv"},
    "by": {"zone": "zone"},
}
TOWN = (
    "class Orders(",
    """class Town(pa.DataFrameModel):
    zone: str
    people: int
    since: UtcTime = pa.Field(nullable=True{role})


class Orders(""",
)
TIMED = ', metadata={"role": "event_time"}'


def said_of(project: Project, contract: tuple[str, str], *lookups: dict[str, object]) -> str:
    """What is said when the demo's model is loaded with these lookups."""
    folder = project.add_demo_model(lookups=list(lookups))
    file = folder / "contract.py"
    file.write_text(file.read_text().replace(*contract))
    return project.refusal()


@pytest.mark.parametrize(
    ("change", "role", "message"),
    [
        ({"by": {"district": "zone"}}, "", r"lookup town: `by` names 'district'.* there are order_id"),
        ({"by": {"minutes_late": "people"}}, "", r"`by` names 'minutes_late', which is not known when"),
        ({"by": {"zone": "district"}}, "", r"`by` names 'district'; .*contract\.py has zone, people, since"),
        ({"by": {"items": "zone"}}, "", r"'items' is a Int64 and 'zone' a String; give them one type"),
        ({"by": {"zone": "zone", "vehicle": "zone"}}, "", r"names a column of the side table twice"),
        ({"by": {}}, "", r"say which columns are to be equal \(`by`\), or give a column of contract\.Town the role"),
        ({"lag": "1h"}, "", r"lag need a column of contract\.Town with the role event_time"),
        ({"lag": "2h", "tolerance": "2h"}, TIMED, r"every row is too old once it is known; set tolerance higher"),
        ({"contract": "contract.Village"}, "", r"contract\.py defines no Village"),
        ({"name": "features"}, "", r"'features' has the name of a table of the platform"),
        ({"name": "rejected_town"}, "", r"has the name of a table of the platform"),
        ({}, ', metadata={"role": "target"}', r"column 'since' has the role 'target'; in a side table only event_time"),
        ({"source": LOOKUP["source"] | {"limits": {"columns": {"size": 0.1}}}}, "", r"names 'size', which is not in"),  # type: ignore[operator]
        ({"name": "order"}, "", r"column 'order_zone' is in the contract of the rows already"),
    ],
)
def test_a_lookup_that_cannot_be_joined_is_refused_when_definitions_load(
    project: Project, change: dict[str, object], role: str, message: str
) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", role))
    if change == {"name": "order"}:
        contract = (contract[0], contract[1].replace("people: int", "value: float"))
        message = message.replace("order_zone", "order_value")
    assert re.search(message, said_of(project, contract, LOOKUP | change))


def test_two_lookups_with_one_name_are_refused(project: Project) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", ""))
    assert "several lookups are called town" in said_of(project, contract, LOOKUP, LOOKUP)


def test_times_with_and_without_a_zone_cannot_be_compared(project: Project) -> None:
    contract = (TOWN[0], TOWN[1].replace("{role}", TIMED).replace("UtcTime", "pl.Datetime"))
    assert "either both with a time zone or both without" in said_of(project, contract, LOOKUP)
