"""A process of ours begins without the garbage collector, and has it afterwards."""

import gc

import pytest

from webui.process import MANY, importing


def test_the_collector_rests_while_modules_are_imported_and_is_back_whatever_happens() -> None:
    with pytest.raises(ImportError), importing():
        with importing():
            assert not gc.isenabled()
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_what_came_in_large_numbers_is_not_looked_through_again() -> None:
    before = gc.get_freeze_count()
    with importing():
        few = [[] for _ in range(10)]
    assert gc.get_freeze_count() == before and few
    try:
        with importing():
            many = [[] for _ in range(2 * MANY)]
        assert gc.get_freeze_count() - before > len(many)
    finally:
        gc.unfreeze()
