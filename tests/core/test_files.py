"""What is said of a file whose name others could have too."""

from pathlib import Path

from webui.core.files import LoraFile


def test_a_name_that_several_files_could_have_is_told_with_the_file_that_has_it() -> None:
    path = Path("/data/models/Lora/Pony/styles/ink.safetensors")
    file = LoraFile("ink", path, place="Pony/styles/ink", namesakes=("styles/ink", "SDXL/styles/ink"))
    assert file.full_place == "Lora/Pony/styles/ink"
    assert file.ambiguity == (
        "3 files are called “ink”: Lora/Pony/styles/ink was used, not styles/ink and SDXL/styles/ink."
    )
    assert LoraFile("ink", path, place="Pony/styles/ink").ambiguity == ""


def test_where_a_file_lies_and_what_shares_its_name_make_no_other_file() -> None:
    one, other = (LoraFile("ink", Path("/x/ink.safetensors"), place=place) for place in ("a/ink", "b/ink"))
    assert one == other and hash(one) == hash(other)
