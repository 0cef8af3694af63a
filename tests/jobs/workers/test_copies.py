"""Files for workers on other machines: what is missing is sent, checked, kept within a bound."""

import os
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from webui.core.errors import RequestError
from webui.core.events import Done, Image
from webui.core.files import LoraFile, UpscalerFile, VaeFile
from webui.core.request import LoraRef, Request
from webui.engine.manager import PipelineManager
from webui.jobs.resolve import make_order
from webui.jobs.workers.copies import Copies, Tree, chunks, places_of_files, tree_of
from webui.jobs.workers.ray import Actor, explain_end, explain_start


def make_tree(folder: Path, name: str, content: bytes) -> Tree:
    """Of a file that lay here, and does not any more."""
    (folder / name).write_bytes(content)
    tree = tree_of(UpscalerFile(name, folder / name))
    return replace(tree, root=folder / "gone")


def send(copies: Copies, tree: Tree, content: bytes) -> None:
    (entry,) = tree.entries
    copies.begin(entry, [tree])
    copies.add(entry, content[:3])
    copies.add(entry, content[3:])


def test_what_is_not_there_is_asked_for_once_and_found_then(tmp_path):
    copies, tree = Copies(tmp_path / "kept", 1000), make_tree(tmp_path, "a.bin", b"weights")
    assert copies.lacks([tree]) == [tree.entries[0].sha256]
    send(copies, tree, b"weights")
    assert copies.lacks([tree]) == []
    found = copies.find(UpscalerFile("a", tmp_path / "gone" / "a.bin"), tree)
    assert found.name == "a" and found.path.read_bytes() == b"weights" and found.path.name == "a.bin"
    assert (tmp_path / "kept") in found.path.parents


def test_what_lies_at_the_same_place_is_used_there_if_it_is_the_same(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"weights")
    file = UpscalerFile("a", path)
    copies, tree = Copies(tmp_path / "kept", 1000), tree_of(file)
    assert copies.lacks([tree]) == [] and copies.find(file, tree).path == path
    path.write_bytes(b"WEIGHTS")
    assert copies.lacks([tree]) == [tree.entries[0].sha256]


def test_another_file_than_was_sent_is_not_taken(tmp_path):
    copies, tree = Copies(tmp_path / "kept", 1000), make_tree(tmp_path, "a.bin", b"weights")
    with pytest.raises(RequestError, match="another file"):
        send(copies, tree, b"WEIGHTS")
    assert copies.lacks([tree])


def test_the_bound_holds_and_what_was_used_longest_ago_goes(tmp_path):
    copies = Copies(tmp_path / "kept", 20)
    trees = [make_tree(tmp_path, f"{k}.bin", bytes([k]) * 8) for k in range(3)]
    for age, k in ((2000, 0), (1000, 1)):
        send(copies, trees[k], bytes([k]) * 8)
        laid = copies.find(UpscalerFile(str(k), tmp_path / f"{k}.bin"), trees[k]).path
        os.utime(laid, (time.time() - age, laid.stat().st_mtime))
    send(copies, trees[2], bytes([2]) * 8)
    assert [bool(copies.lacks([tree])) for tree in trees] == [True, False, False]
    assert sum(path.stat().st_size for path in (tmp_path / "kept/files").iterdir()) <= 20


def test_what_finds_no_room_says_so_and_what_is_in_use_stays(tmp_path):
    copies = Copies(tmp_path / "kept", 10)
    first, second = (make_tree(tmp_path, name, name.encode() * 2) for name in ("a.b", "c.d"))
    send(copies, first, b"a.ba.b")
    with pytest.raises(RequestError, match="c.d of .* finds no room.*--ray-files"):
        send(copies, second, b"c.dc.d")
    assert copies.lacks([first]) == []


def test_no_place_outside_of_its_folder_is_written(tmp_path):
    copies, tree = Copies(tmp_path / "kept", 1000), make_tree(tmp_path, "a.bin", b"weights")
    tree = replace(tree, entries=(replace(tree.entries[0], place="../../a.bin"),))
    send(copies, tree, b"weights")
    with pytest.raises(RequestError, match="not a place within"):
        copies.find(UpscalerFile("a", tmp_path / "a.bin"), tree)


def test_what_is_read_beside_a_file_goes_along(tmp_path):
    for name in ("a.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes(name.encode())
    alone = tree_of(LoraFile("a", tmp_path / "a.safetensors"))
    assert [entry.place for entry in alone.entries] == ["a.safetensors", "adapter_config.json"]
    for name in ("taesd_decoder.safetensors", "taesd_encoder.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    lora = tree_of(LoraFile("a", tmp_path / "a.safetensors"))
    vae = tree_of(VaeFile("taesd", tmp_path / "taesd_decoder.safetensors"))
    assert [entry.place for entry in lora.entries] == ["a.safetensors"], "the note is read for a file alone"
    assert [entry.place for entry in vae.entries] == ["taesd_decoder.safetensors", "taesd_encoder.safetensors"]


def test_an_actor_that_has_no_file_draws_the_same_once_they_are_sent(library, tmp_path, monkeypatch):
    from webui.core.engine_options import EngineOptions

    monkeypatch.setenv("WEBUI_DATA_DIR", str(tmp_path))
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    options = EngineOptions(tmp_path / "cache", device="cpu", dtype="float32")
    request = Request(prompt="a panda", seed=7, steps=2, width=64, height=64, loras=(LoraRef(name="blueprint"),))
    order = make_order(request, library)
    actor, own = Actor(options, 1, 2**30), tuple(map(tree_of, order.files))
    trees = tuple(replace(tree, root=tmp_path / "nowhere") for tree in own)
    lacking = actor.lacks(trees)
    assert len(lacking) >= len(order.files)
    (refused,) = actor.work("draw", 1, order, trees)
    assert isinstance(refused.error, OSError)
    for digest in lacking:
        actor.begin(digest, trees)
        for chunk in chunks(places_of_files(own)[digest][1]):
            actor.add(digest, trees, chunk)
    events = [said.event for said in actor.work("draw", 2, order, trees) if said.event]
    assert isinstance(events[-1], Done)
    here = PipelineManager(options)
    drawn, expected = ([e for e in some if isinstance(e, Image)][0] for some in (events, here.draw(order)))
    here.close()
    assert drawn.pixels_sha256 == expected.pixels_sha256 and drawn.recipe.hashes == expected.recipe.hashes


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ModuleNotFoundError: No module named 'webui'", "has no Darkroom"),
        ("ModuleNotFoundError: No module named 'diffusers'", "lacks a package"),
        ("first\nRuntimeError: no disk", "could not start: RuntimeError: no disk"),
    ],
)
def test_why_an_actor_does_not_start_is_said(error, words):
    assert words in explain_start(RuntimeError(error))


LOST_PROCESS = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: Actor\nThe actor is dead because its worker"
    " process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: Worker unexpectedly exits with a connection"
    " error code 2. End of file. Some common causes include: (1) the process was killed by the OOM killer due to high"
    " memory usage, (2) ray stop --force was called, or (3) the worker crashed unexpectedly due to SIGSEGV or another"
    " unexpected error. Consider enabling resource isolation to prevent node deaths by resource contention."
)
"""Ray's own words where a process was killed."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LOST_PROCESS, "its process is lost"),
        (LOST_PROCESS.replace("SYSTEM_ERROR", "NODE_OUT_OF_MEMORY"), "its process was ended for want of memory"),
        ("Task was killed due to the node running low on memory.", "its process was ended for want of memory"),
        ("The actor died because its node has died. Node Id: 6e56", "its node is lost"),
    ],
)
def test_how_an_actor_ended_is_said(error, words):
    assert explain_end(RuntimeError(error)) == words


def test_what_came_half_leaves_with_its_process_or_with_the_next_file(tmp_path):
    ended = tmp_path / f"coming-{socket.gethostname()}-{2**22 + 1}"  # above all ids of processes
    elsewhere = tmp_path / f"coming-{socket.gethostname()}-2-{2**22 + 1}"  # a machine whose name begins like this one's
    for folder in (ended, elsewhere):
        folder.mkdir()
        (folder / "half").write_bytes(b"weights")
    copies = Copies(tmp_path, 1000)
    assert not ended.exists() and elsewhere.exists()
    first, second = (make_tree(tmp_path, name, name.encode() * 2) for name in ("a.b", "c.d"))
    copies.begin(first.entries[0], [first])
    copies.add(first.entries[0], b"a.b")
    send(copies, second, b"c.dc.d")
    (own,) = tmp_path.glob(f"coming-*-{os.getpid()}")
    assert not [*own.iterdir()] and copies.lacks([first]) and not copies.lacks([second])


def test_a_file_that_another_worker_takes_away_meanwhile_is_no_error(tmp_path):
    copies, tree = Copies(tmp_path / "kept", 10), make_tree(tmp_path, "a.bin", b"weights")
    (tmp_path / "kept/files/gone").symlink_to(tmp_path / "nowhere")
    send(copies, tree, b"weights")
    assert copies.lacks([tree]) == []
