"""What a recipe says of files: their hashes, or that they are gone."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

from webui.core.weight_files import hash_whole
from webui.engine.provenance import FileHashes


def test_a_file_that_is_gone_is_told_without_its_folder(tmp_path):
    (tmp_path / "here").write_bytes(b"")
    with ThreadPoolExecutor(1) as hasher:
        hashes = FileHashes(hasher)
        for name in ("here", "gone"):
            hashes.want("lora", name, partial(hash_whole, tmp_path / name))
        found, warnings = hashes.collect()
    assert [*found["lora"]] == ["here"]
    assert warnings == ["The recipe has no lora hash: gone cannot be read any more: No such file or directory"]
