"""The catalog: what can be chosen from."""

from webui.core.executor import Catalog


def test_schedules_are_each_listed_once_in_order_of_first_mention():
    catalog = Catalog(models={}, samplers={"A": ("Default", "Karras"), "B": ("Default", "Trailing", "Karras"), "C": ()})
    assert catalog.schedules == ("Default", "Karras", "Trailing")
