"""Score files as tables read them: the same content as `read_scores`, or its error."""

from __future__ import annotations

import json

import pytest

from promptecho.errors import DataError
from promptecho.item_columns import ItemColumns, LightItem
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, read_scores, write_scores
from promptecho.tables.light import read_light


@pytest.fixture
def path(tmp_path):
    items = [ScoreItem(prompt_id=f"p{k}", image_index=k, group="g", outcome=k / 4, failed=False) for k in range(4)]
    items.append(ScoreItem(prompt_id="p9", image_index=0, group="h", outcome=None, failed=True))
    told = Provenance(
        experiment="e", run="r", step=4, benchmark="geneval", scorer="geneval", backend="oracle", mode="official",
        judge_model="oracle", config_digest="d", git_commit="c", prompts_digest="p", n=5, failures=1,
    )  # fmt: skip
    write_scores(tmp_path / "4.json", Scores(provenance=told, summary={"overall": 0.5}, items=items, parts=items[:2]))
    return tmp_path / "4.json"


def test_the_content_is_that_of_read_scores(path):
    light, whole = read_light(path), read_scores(path)
    assert type(light.items) is type(light.parts) is ItemColumns and type(light.items[0]) is LightItem
    for mine, others in ((light.items, whole.items), (light.parts, whole.parts)):
        assert [item._asdict() for item in mine] == [item.model_dump() for item in others]
    assert (light.provenance, light.summary, light.schema_version) == (whole.provenance, whole.summary, 1)
    copies = [some.items[0].model_copy(update={"image_index": 7}) for some in (light, whole)]
    assert copies[0]._asdict() == copies[1].model_dump()


FAULTS = {
    "twice": lambda v: v["items"].append(v["items"][0]),
    "count": lambda v: v["provenance"].update(n=9),
    "infinite": lambda v: v["items"][0].update(outcome=float("inf")),
    "failed": lambda v: v["items"][0].update(failed=True),
    "negative": lambda v: v["items"][1].update(image_index=-1),
    "nameless": lambda v: v["items"][1].update(prompt_id=""),
    "key": lambda v: v["items"][1].update(more=1),
    "empty": lambda v: v.update(items=[]),
    "summary": lambda v: v["summary"].update(overall=float("nan")),
    "schema": lambda v: v.update(schema_version=9),
    "provenance": lambda v: v.pop("provenance"),
    "part": lambda v: v["parts"][0].update(group=None),
}


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_faulty_files_are_told_as_by_read_scores(path, name):
    value = json.loads(path.read_text())
    FAULTS[name](value)
    path.write_text(json.dumps(value))
    told = []
    for read in (read_scores, read_light):
        with pytest.raises(DataError) as caught:
            read(path)
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_files_by_other_hands_are_taken_where_read_scores_takes_them(path):
    value = json.loads(path.read_text())
    value["items"][0]["outcome"] = 0  # a whole number
    del value["schema_version"]
    path.write_text(json.dumps(value))
    assert read_light(path) == read_scores(path)
