"""What a picture's settings fill."""

import pytest

from webui.core.catalog import Catalog
from webui.ui.fills import from_picture

CATALOG = Catalog({}, {}, {}, {}, {"Euler": ("Default",)})
VALUES = {"prompt": "a red apple", "negative": "blur", "template": "a {red|green} apple", "negative_template": ""}


@pytest.mark.parametrize(
    ("how", "prompt"),
    [
        ({"with_seed": False}, "a {red|green} apple"),
        ({"with_seed": True}, "a red apple"),
        ({"with_seed": False, "keep_texts": True}, "a red apple"),
    ],
)
def test_new_pictures_take_the_template_and_the_same_picture_its_words(how, prompt):
    assert from_picture(VALUES, ("prompt", "negative"), CATALOG, **how)[:2] == [prompt, "blur"]
