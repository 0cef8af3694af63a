"""Flags of what is drawn become a request."""

from webui.cli import make_parser
from webui.cli.request_flags import read_request
from webui.core.groups.variation import Variation

PRESET = "[fields]\nprompt = 'a cat'\n[variation]\nseed = 3\nstrength = 0.5\n"


def test_a_group_s_flags_have_its_name_before_the_field_s(tmp_path):
    def variation(*flags):
        return read_request(make_parser("generate").parse_args(["generate", *flags]), tmp_path)[0].variation

    (tmp_path / "near.toml").write_text(PRESET)
    flags = "--variation.seed", "9", "--variation.strength", "0.25"
    assert variation("--prompt", "a") is None
    assert variation("--prompt", "a", *flags) == Variation(seed=9, strength=0.25)
    assert variation("--preset", "near") == Variation(seed=3, strength=0.5)
    assert variation("--preset", "near", *flags[:2]) == Variation(seed=9, strength=0.5)
