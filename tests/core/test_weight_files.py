"""Which files a model's weights are in, and the hash over them."""

import os
from pathlib import Path

import pytest

from webui.core.files import ModelFile
from webui.core.weight_files import content_hash, stamp, weight_files


def make_model(folder: Path, weights: bytes = b"w") -> ModelFile:
    """A diffusers folder with weights that nobody loads."""
    for part in ("unet", "vae", "text_encoder"):
        (folder / part).mkdir(parents=True)
        (folder / part / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    return ModelFile(folder.name, folder)


def test_a_single_file_is_all_components(tmp_path: Path) -> None:
    assert weight_files(tmp_path / "x.safetensors") == {"": (tmp_path / "x.safetensors",)}


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["b.fp16.safetensors", "a.fp16.safetensors"], ["a.fp16.safetensors"]),
        (["m-00002-of-00002.safetensors", "m-00001-of-00002.safetensors"], ["m-00001-of-00002.safetensors"] * 2),
        (["m.non_ema.safetensors", "m.fp16.safetensors", "m.bin"], ["m.fp16.safetensors"]),
        (["m.bin"], []),
    ],
)
def test_of_a_folder_s_variants_one_is_taken_with_all_its_shards(
    tmp_path: Path, there: list[str], taken: list[str]
) -> None:
    (tmp_path / "unet").mkdir()
    for name in there:
        (tmp_path / "unet" / name).touch()
    if len(taken) == 2:
        taken = sorted(there)
    expected = {"unet": tuple(tmp_path / "unet" / name for name in taken)} if taken else {}
    assert weight_files(tmp_path) == expected


def test_the_content_hash_changes_with_any_weight_file(tmp_path: Path) -> None:
    model = make_model(tmp_path / "m", b"one")
    before = content_hash(model)
    assert len(before) == 64 and content_hash(model) == before
    for part in ("unet", "vae"):
        file = model.path / part / "diffusion_pytorch_model.safetensors"
        stamp = file.stat().st_mtime_ns
        file.write_bytes(b"two")
        os.utime(file, ns=(stamp + 10**6, stamp + 10**6))  # same size, a millisecond later
        after = content_hash(model)
        assert after != before
        before = after


def test_the_content_hash_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    one, same, other = (make_model(tmp_path / str(k), weights) for k, weights in enumerate((b"x", b"x", b"y")))
    assert content_hash(one) == content_hash(same) != content_hash(other)


def test_the_content_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(tmp_path / "m")
    first = content_hash(model)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("the weights were read again"))
    assert content_hash(model) == first


def test_the_stamp_changes_with_a_file_s_time_size_or_absence_and_with_nothing_else(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m").path
    file, seen = folder / "vae/diffusion_pytorch_model.safetensors", [stamp(folder)]
    (folder / "vae/notes.txt").write_text("of no weight")
    assert stamp(folder) == seen[0]
    stat = file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**9))  # an older one in its place
    seen.append(stamp(folder))
    file.write_bytes(b"more")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    seen.append(stamp(folder))
    file.unlink()
    seen.append(stamp(folder))
    assert len(set(seen)) == 4
    with pytest.raises(FileNotFoundError):
        stamp(tmp_path / "gone.safetensors")
