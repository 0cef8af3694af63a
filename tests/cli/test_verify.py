"""What a preset needs before its picture can be drawn again."""

import pytest

from webui.cli.verify import Verifier
from webui.core.errors import RequestError
from webui.workspace.preset import make_preset


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({"steps": 2}, "seed"),
        ({"seed": 5, "variation.strength": 0.5}, "variation seed"),
        ({"seed": 5, "variation.strength": 0.0}, None),
        ({"seed": 5, "variation.seed": 9, "variation.strength": 0.5}, None),
    ],
)
def test_a_preset_that_expects_a_picture_has_all_its_seeds(settings, fields, missing):
    def ask(expected):
        return Verifier(settings)._preset_request(make_preset(name="x", fields=fields, expected=expected))

    assert ask(None).seed == fields.get("seed", -1)
    if missing is None:
        assert ask("ab" * 32).seed == 5
    else:
        with pytest.raises(RequestError, match=f"it expects a picture but has no {missing}$"):
            ask("ab" * 32)
