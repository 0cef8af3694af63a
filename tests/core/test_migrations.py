"""Recipes of earlier schemas are read as what they meant, and each is written in the earliest that can say it."""

import json

import pytest

from webui.core.groups import GROUPS
from webui.core.groups.base import Group
from webui.core.migrations import MIGRATIONS, NEWEST, migrate
from webui.core.recipe import Recipe, RecipeError
from webui.core.request import Request


def body(schema: int, **fields) -> str:
    return json.dumps({"schema": schema, "request": {"prompt": "a cat", "seed": 1, **fields}})


@pytest.mark.parametrize("prompt", ["a [cat|dog]", "a cat AND a dog", "a {cat|dog}", "a cat"])
def test_a_mark_is_letters_in_the_first_schema_and_a_form_later(prompt):
    marked = prompt not in ("a cat", "a {cat|dog}")
    first, *later = (Recipe.from_json(body(schema, prompt=prompt)).request for schema in range(1, NEWEST + 1))
    assert (first.syntax == 1) == marked and all(request.syntax > 1 for request in later)
    assert {request.prompt for request in (first, *later)} == {prompt}


@pytest.mark.parametrize("schema", range(1, NEWEST + 1))
def test_what_was_read_is_written_so_that_it_is_read_the_same(schema):
    for fields in ({}, {"prompt": "[a|b] c"}, {"variation": {"seed": 3, "strength": 0.2}} if schema > 1 else {}):
        recipe = Recipe.from_json(body(schema, **fields))
        again = Recipe.from_json(recipe.to_json())
        assert again == recipe and again.to_json() == recipe.to_json()
        assert json.loads(recipe.to_json())["schema"] <= max(schema, 2)


def test_the_earliest_schema_is_written_and_groups_that_existed_keep_theirs():
    assert {name: made_of.since for name, made_of in GROUPS.items() if made_of.since < Group.since} == {
        "init": 1,
        "variation": 2,
        "upscale": 2,
    }
    assert all(made_of.since <= NEWEST for made_of in GROUPS.values()) and Group.since == NEWEST
    for fields, schema in (({}, 1), ({"prompt": "[a|b]"}, 2), ({"upscale": {}}, 2), ({"template": "{a|b}"}, 2)):
        assert json.loads(Recipe(Request(seed=1, **fields)).to_json())["schema"] == schema


def test_each_step_takes_what_a_stranger_wrote():
    for step in MIGRATIONS:
        for hostile in ({}, {"request": None}, {"request": [1]}, {"request": {"prompt": 5, "negative": {"a": 1}}}):
            assert isinstance(step(dict(hostile)), dict)
    with pytest.raises(RecipeError, match="is not valid"):
        Recipe.from_json(json.dumps({"schema": 1, "request": {"prompt": "[" * 10**5}}))
    assert migrate({"request": {"prompt": "a"}}, NEWEST) == {"request": {"prompt": "a"}}
