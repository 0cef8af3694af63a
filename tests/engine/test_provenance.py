"""What a recipe says of files, their hashes or that they are gone, and of where it was drawn."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from webui.core.recipe import Recipe
from webui.core.request import Request
from webui.core.verdict import changes
from webui.core.weight_files import hash_whole
from webui.engine import provenance
from webui.engine.provenance import FileHashes, describe_environment


def test_a_file_that_is_gone_is_told_without_its_folder(tmp_path):
    (tmp_path / "here").write_bytes(b"")
    with ThreadPoolExecutor(1) as hasher:
        hashes = FileHashes(hasher)
        for name in ("here", "gone"):
            hashes.want("lora", name, partial(hash_whole, tmp_path / name))
        found, warnings = hashes.collect()
    assert [*found["lora"]] == ["here"]
    assert warnings == ["The recipe has no lora hash: gone can no longer be read: No such file or directory"]


def test_what_float32_is_computed_with_is_named_where_somebody_chose_it(monkeypatch):
    cpu = torch.device("cpu")
    usual = describe_environment(cpu, torch.float32)
    assert not {"float32", "cpu_kernels"} & set(usual)
    convolutions = torch.backends.mkldnn.conv
    with monkeypatch.context() as patch:
        patch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
        patch.setattr(provenance, "KERNELS", {torch.float32: 2})
        convolutions.fp32_precision = "bf16"
        try:
            faster = describe_environment(cpu, torch.float32)
        finally:
            convolutions.fp32_precision = "none"
    assert describe_environment(cpu, torch.float32) == usual
    assert {name: value for name, value in faster.items() if value != usual.get(name)} == {
        "cpu_kernels": 2,
        "float32": "oneDNN bf16, convolutions bf16",
    }
    recipes = (Recipe(Request(seed=1), environment=said) for said in (usual, faster))
    assert list(changes(*recipes)) == [
        "environment: cpu_kernels True, now 2",
        "environment: float32 as torch has it, now oneDNN bf16, convolutions bf16",
    ]
