"""What there is to choose from, made from files."""

from types import SimpleNamespace

from webui.core.catalog import Catalog
from webui.core.samplers import SAMPLERS


def test_it_has_every_file_and_every_sampler():
    files = SimpleNamespace(
        models={"a": 1},
        loras={"b": 2},
        vaes={"c": 3},
        embeddings={"d": 4},
        upscalers={"e": 5},
        finders={"f": 6},
        controls={"h": 8},
        parts={"g": 7},
        text_encoders=("g",),
        image_encoders={"i": 9},
        annotators={"j": 10},
    )
    catalog = Catalog.of(files)
    assert catalog.image_encoders == {"i": 9}
    assert (catalog.models, catalog.loras, catalog.vaes, catalog.embeddings) == ({"a": 1}, {"b": 2}, {"c": 3}, {"d": 4})
    assert (catalog.upscalers, catalog.finders, catalog.controls) == ({"e": 5}, {"f": 6}, {"h": 8})
    assert catalog.parts == {"g": 7}
    assert catalog.samplers.keys() == SAMPLERS.keys() and catalog.samplers["LCM"] == ("Default",)
    assert set(catalog.schedules) == {"Default", "Karras", "Exponential", "Trailing"}
