"""The catalog: what can be chosen from."""

from webui.core.catalog import Catalog


def test_schedules_are_each_listed_once_in_order_of_first_mention():
    samplers = {"A": ("Default", "Karras"), "B": ("Default", "Trailing", "Karras"), "C": ()}
    catalog = Catalog(models={}, loras={}, vaes={}, embeddings={}, samplers=samplers)
    assert catalog.schedules == ("Default", "Karras", "Trailing")
