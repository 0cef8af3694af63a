"""``--compile``: the plain UNet until there is code, then the same prediction from it, LoRAs included."""

import subprocess
import sys
import time
from hashlib import sha256

import numpy as np
import pytest
import torch
from checkpoints import SMALL_UNET
from PIL import Image as PilImages

from webui.core.events import Image
from webui.core.groups.control import Control
from webui.core.settings import Settings
from webui.darkroom import Darkroom
from webui.engine.cpu.install import install
from webui.engine.families.latent import look_at
from webui.engine.lora.cache import WeightCache
from webui.engine.nets.unet import UNet
from webui.engine.speed import compiled
from webui.engine.speed.compiled import CompiledUNet, CompileTarget
from webui.engine.speed.shortcuts import Shortcuts

FOR_AS_LONG_AS_IT_TAKES = pytest.mark.timeout(0)
"""The compiler is a process that ends by itself, after minutes on a busy machine; no clock says when it has failed."""


@pytest.fixture
def unet() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL_UNET).eval().requires_grad_(False)


def given(side: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 4, side, side, generator=generator)
    return latents, torch.tensor(300), torch.randn(2, 5, 24, generator=generator)


def until(condition) -> None:
    while not condition():
        time.sleep(0.05)


@pytest.fixture
def orders(monkeypatch) -> list[list[str]]:
    """The processes that were started to compile; none does anything, and each fails."""
    started: list[list[str]] = []
    real = subprocess.Popen

    def popen(command, **options):
        started.append(command)
        return real([sys.executable, "-c", "import sys; sys.exit('there is no compiler')"], **options)

    monkeypatch.setattr(compiled.subprocess, "Popen", popen)
    return started


@torch.inference_mode()
def test_without_a_compiler_the_plain_unet_draws_and_the_log_says_why_once(unet, tmp_path, orders, monkeypatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(compiled.logger, "warning", lambda text, *values: said.append(text % values))
    run = CompiledUNet(unet, tmp_path)
    latents, timestep, context = given()
    prepared = unet.prepare(context)
    expected = unet(latents, timestep, prepared)
    assert torch.equal(run(latents, timestep, prepared), expected)
    until(lambda: run._failed)
    larger = given(side=16)[0]
    assert torch.equal(run(larger, timestep, prepared), unet(larger, timestep, prepared))
    assert len(orders) == 1 and not run.is_compiled
    assert said == ["The UNet is not compiled and runs as it is: there is no compiler"]


@torch.inference_mode()
def test_weights_that_lie_otherwise_and_another_card_want_other_code(unet, tmp_path, orders, monkeypatch) -> None:
    """It reads weights as they lay when it was made, without looking: the same code would draw noise."""
    asked: list[CompileTarget] = []
    monkeypatch.setattr(compiled.pickle, "dumps", lambda made: asked.append(made[0]) or b"")
    latents, timestep, context = given()
    for lies, card in (("contiguous", "A"), ("channels_last", "A"), ("channels_last", "B")):
        unet.to(memory_format=getattr(torch, f"{lies}_format" if lies == "contiguous" else lies))
        monkeypatch.setattr(compiled, "describe_device", lambda _, card=card: f"cuda {card}")
        run = CompiledUNet(unet, tmp_path)
        run(latents, timestep, unet.prepare(context))
        until(lambda run=run: run._failed)
    assert [target.channels_last for target in asked] == [False, True, True]
    assert len({target.name for target in asked}) == 3


@torch.inference_mode()
def test_with_shortcuts_the_plain_unet_draws_and_nothing_is_compiled(unet, tmp_path, orders) -> None:
    run = CompiledUNet(unet, tmp_path)
    latents, timestep, context = given()
    prepared = unet.prepare(context)
    found = run(latents, timestep, prepared, Shortcuts(merging=0.5))
    assert torch.equal(found, unet(latents, timestep, prepared, Shortcuts(merging=0.5)))
    assert not torch.equal(found, unet(latents, timestep, prepared))
    assert not run._wanted and not orders


def test_a_job_with_shortcuts_says_that_it_runs_uncompiled(tmp_path, orders, request_for) -> None:
    darkroom = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path, compile=True))
    list(darkroom.load("demo"))
    darkroom.manager.warm_up(darkroom.plan(request_for(steps=1, reuse=2)))
    done = list(darkroom.generate(request_for(reuse=2)))[-1]
    assert done.warnings == (
        "Approximate: step caching every 2 steps.",
        "Step caching and token merging run without compiled code.",
    )
    assert not orders  # nor was any for the warm-up's size


def test_steps_with_a_control_run_the_plain_unet_and_say_so(tmp_path, monkeypatch, darkroom, request_for) -> None:
    """Compiled code is there at once, and draws nothing: whatever is drawn, the plain UNet drew."""
    monkeypatch.setattr(CompiledUNet, "_want", lambda self, key, inputs: self._code.setdefault(key, empty(self)))

    def empty(run: CompiledUNet):
        run._wanted[len(run._wanted)] = None
        return lambda weights, latents, timestep, leaves: torch.zeros(2, *latents.shape[1:])

    fast = Darkroom(Settings(device="cpu", dtype="float32", data_dir=tmp_path, compile=True))
    whole = Control(model="demo-edges", image=PilImages.linear_gradient("L"), preprocessor="threshold")
    said = "Steps with a control run without compiled code."

    def draw(room: Darkroom, *controls: Control, **fields) -> tuple[Image, list[str]]:
        *_, image, done = room.generate(request_for(controls=controls, steps=2, **fields))
        return image, [line for line in done.warnings if line == said]

    for _ in range(2):  # the second time there is code for the first step of those below
        plain, lines = draw(fast)
        assert not lines
    assert fast.manager.is_compiled and plain.recipe.environment["compiled"] is True
    drawn, lines = draw(fast, whole, count=2)
    assert lines == [said] and drawn.recipe.environment["compiled"] is False
    assert drawn.pixels_sha256 == draw(darkroom, whole, count=2)[0].pixels_sha256 != plain.pixels_sha256
    half, lines = draw(fast, whole.model_copy(update={"end": 0.5}))
    assert lines == [said] and half.recipe.environment["compiled"] == "partly"


@pytest.mark.slow
@FOR_AS_LONG_AS_IT_TAKES
@pytest.mark.parametrize("cpu_kernels", [False, True])
@torch.inference_mode()
def test_compiled_code_is_the_same_unet_and_is_kept(unet, tmp_path, monkeypatch, cpu_kernels, device) -> None:
    if cpu_kernels and device != "cpu":
        pytest.skip("the CPU kernels draw on no card")
    if cpu_kernels:
        install(unet)
    else:  # as it lies on a card
        unet.to(device, memory_format=torch.channels_last)
    latents, timestep, context = (tensor.to(device) for tensor in given())
    prepared = unet.prepare(context)
    if cpu_kernels:  # all that a guide may tell it besides
        prepared = unet.prepare(context, perturbed=1, against=(context[:1], torch.tensor([4.0, 2.5, 0.5])))
        widths = sum(2 * one.keys.shape[1] * one.keys.shape[3] for one in prepared.attended)
        prepared = prepared._replace(attended=look_at(prepared.attended, [torch.randn(2, 4, widths)]))
    run = CompiledUNet(unet, tmp_path)
    run(latents, timestep, prepared)
    until(lambda: run.is_compiled or run._failed)
    assert run.is_compiled

    def assert_same() -> torch.Tensor:
        plain, fast = unet(latents, timestep, prepared), run(latents, timestep, prepared)
        assert torch.allclose(plain, fast, atol=1e-5 if device == "cpu" else 5e-3)  # a card's float32 is TF32
        return fast

    base = assert_same()
    for module in (unet.mid_block.resnets[0].conv1, unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q):
        own = module.weight.data
        module.weight.data = own * 1.5  # as a LoRA does it
        assert not torch.allclose(assert_same(), base, atol=1e-4 if device == "cpu" else 1e-2)
        module.weight.data = own
    assert torch.equal(assert_same(), base)

    monkeypatch.setattr(compiled.subprocess, "Popen", None)  # a second start compiles nothing
    again = CompiledUNet(unet, tmp_path)
    again(latents, timestep, prepared)
    until(lambda: again.is_compiled or again._failed)
    assert torch.equal(again(latents, timestep, prepared), base)


@pytest.mark.slow
@FOR_AS_LONG_AS_IT_TAKES
def test_200_switches_in_mid_picture_compile_nothing_anew_and_change_no_picture(tmp_path, switching, monkeypatch):
    compilers, real = [], subprocess.Popen

    def popen(command, *more, **options):
        if any("import work" in str(word) for word in command):
            compilers.append(command)
        return real(command, *more, **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    settings = Settings(device="cpu", dtype="float32", data_dir=tmp_path, compile=True)

    def start() -> tuple[Darkroom, Image]:
        """It with its code loaded, and a picture from before."""
        darkroom = Darkroom(settings)
        list(darkroom.load("demo"))
        plain = picture(darkroom, "night")
        faster = darkroom.manager._residence._resident.faster
        until(lambda: faster.is_compiled or faster._failed)
        return darkroom, plain

    def picture(darkroom: Darkroom, name: str) -> Image:
        (image,) = (event for event in darkroom.generate(switching(name)) if isinstance(event, Image))
        return image

    def weights(darkroom: Darkroom) -> dict[str, bytes]:
        darkroom.manager._residence.loras.switch(())
        unet = darkroom.manager._residence.model.components["backbone"]
        return {name: sha256(weight.numpy().tobytes()).digest() for name, weight in unet.named_parameters()}

    darkroom, plain = start()
    before = weights(darkroom)
    switched, installed = 0, WeightCache._install

    def install(cache, key, target):
        nonlocal switched
        switched += 1
        installed(cache, key, target)

    monkeypatch.setattr(WeightCache, "_install", install)
    torch._dynamo.utils.counters.clear()
    drawn = [picture(darkroom, name) for name in ("night", "sepia") * 5]
    assert switched >= 200 and all(image.recipe.environment["compiled"] is True for image in drawn)
    assert len(compilers) == 1 and not torch._dynamo.utils.counters, "compiled anew"
    pixels = [image.pixels_sha256 for image in drawn]
    assert pixels == pixels[:2] * 5 and pixels[0] != pixels[1]
    difference = np.asarray(plain.image, np.int16) - np.asarray(drawn[0].image, np.int16)
    assert abs(difference).max() <= 3, "the plain picture within rounding"
    assert weights(darkroom) == before
    again, _ = start()
    assert [picture(again, name).pixels_sha256 for name in ("night", "sepia")] == pixels[:2]
    assert len(compilers) == 1
