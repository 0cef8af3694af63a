from webui.core.spans import Span, Term, spans


def test_a_prompt_is_one_span_of_one_term():
    assert spans("a red apple", 20) == (Span(20, (Term("a red apple", 1.0),)),)
