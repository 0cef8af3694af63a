"""A picture without one of its LoRAs: nothing else of its request is other."""

import pytest

from webui.core.request import Request
from webui.core.without import without_lora

BOTH = ({"name": "folder/night", "weight": 0.5}, {"name": "sepia"})


@pytest.mark.parametrize("name", ["night", "Folder\\Night"])
def test_it_is_left_out_of_lists_texts_and_the_hires_pass(name):
    request = Request(
        prompt="a cat [<lora:night:1>::0.5] <lora:nightfall:1>",
        loras=BOTH,
        seed=5,
        hires={"loras": BOTH, "prompt": "sharp <lyco: NIGHT :1:0.5>"},
        detail=[{"loras": BOTH[:1]}],
    )
    rest = without_lora(request, name)
    assert [ref.name for ref in rest.loras] == [ref.name for ref in rest.hires.loras] == ["sepia"]
    assert rest.detail[0].loras == ()
    if name == "night":
        assert (rest.prompt, rest.hires.prompt) == ("a cat [::0.5] <lora:nightfall:1>", "sharp ")
    same = {"loras": request.loras, "hires": request.hires, "detail": request.detail, "prompt": request.prompt}
    assert rest.model_copy(update=same) == request


def test_a_picture_that_does_not_have_it_is_none():
    assert without_lora(Request(prompt="night", loras=BOTH[1:]), "night") is None
