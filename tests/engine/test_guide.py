"""Guidance over one term or several: the maths by hand, and not one bit of what one term alone gives."""

import pytest
import torch

from webui.engine.guide import Branch, are_whole, guide

U, C, D = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
LEFT = torch.zeros(1, 1, 8, 8)
LEFT[..., :4] = 1


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 5.0, 7.3])
def test_one_term_is_diffusers_own_expression_bit_for_bit(guidance):
    assert torch.equal(guide(U, [C], [Branch({})], guidance), U + guidance * (C - U))


@pytest.mark.parametrize("area", [None, LEFT])
def test_a_further_term_of_weight_0_changes_no_bit(area):
    alone = guide(U, [C], [Branch({})], 7.3)
    assert torch.equal(guide(U, [C, D], [Branch({}), Branch({}, 0.0, area)], 7.3), alone)
    assert torch.equal(guide(U, [D, C], [Branch({}, 0.0, area), Branch({})], 7.3), alone)
    assert not torch.equal(guide(U, [C, D], [Branch({}), Branch({}, 0.01, area)], 7.3), alone)


def test_terms_count_by_their_weights_below_0_too():
    found = guide(U, [C, D], [Branch({}, 0.7), Branch({}, -0.4)], 3.0)
    torch.testing.assert_close(found, U + 3 * (0.7 * (C - U) - 0.4 * (D - U)))


def test_areas_count_where_they_are():
    found = guide(U, [C, D], [Branch({}, area=LEFT), Branch({}, 0.5, 1 - LEFT)], 3.0)
    torch.testing.assert_close(found[..., :4], (U + 3 * (C - U))[..., :4])
    torch.testing.assert_close(found[..., 4:], (U + 1.5 * (D - U))[..., 4:])


WHOLE = [
    [Branch({})],
    [Branch({}, 0.3), Branch({}, 0.7)],
    [Branch({}, area=LEFT), Branch({}, area=1 - LEFT)],
    [Branch({}, 0.5), Branch({}, 0.5, LEFT), Branch({}, 0.5, 1 - LEFT)],
]
OTHERS = [
    [Branch({}, 0.5)],
    [Branch({}), Branch({})],
    [Branch({}), Branch({}, -1.0)],
    [Branch({}, area=LEFT)],
    [Branch({}), Branch({}, area=LEFT)],
]


@pytest.mark.parametrize("branches", WHOLE)
def test_terms_that_are_whole_need_no_unconditional_answer_at_guidance_1(branches):
    assert are_whole(branches)
    outputs = [C, D, U][: len(branches)]
    torch.testing.assert_close(guide(None, outputs, branches, 9.0), guide(U * 2, outputs, branches, 1.0))


def test_one_term_without_an_unconditional_answer_is_its_own():
    assert torch.equal(guide(None, [C], [Branch({})], 5.0), C)


@pytest.mark.parametrize("branches", OTHERS)
def test_others_are_not_whole(branches):
    assert not are_whole(branches)
