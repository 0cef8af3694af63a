"""The embedded reference: without a prompt, pictures become like one that is shown, under every memory plan."""

import base64
import io

import numpy as np
from PIL import Image as PilImages

from webui.core.events import Image
from webui.core.memory import PLANS
from webui.core.request import Request
from webui.core.settings import Settings
from webui.darkroom import Darkroom

NAME, STEPS = "demo-reference", 8
SHOWN = "a red apple, flat style, on a blue background", "a panda, 3d style, on a yellow background"


def pixels(data: bytes) -> np.ndarray:
    picture = PilImages.open(io.BytesIO(data)).convert("RGB").resize((32, 32), PilImages.Resampling.BOX)
    return np.asarray(picture).astype(float)


def test_it_is_always_listed_and_its_encoder_is_no_control(server):
    names = {one["name"]: one for one in server.client.get("/api/controls?model=demo").json()}
    assert names[NAME]["form"] == "IP-Adapter" and not names[NAME]["problem"] and not names[NAME]["misfit"]
    assert not any("encoder" in name for name in names)


def test_a_job_over_http_is_like_its_picture_and_not_like_another(server):
    def draw(**fields) -> bytes:
        asked = {"prompt": "", "steps": STEPS, "seed": 6} | fields
        job = server.client.post("/api/jobs", json=asked).json()["id"]
        server.client.get(f"/api/jobs/{job}/events").read()
        return server.client.get(f"/api/jobs/{job}/images/0").content

    shown = [draw(prompt=prompt) for prompt in SHOWN]
    like = [draw(controls=[{"model": NAME, "image": base64.b64encode(one).decode()}]) for one in shown]
    wanted, found = ([pixels(one) for one in pictures] for pictures in (shown, like))
    without = pixels(draw())
    for number in (0, 1):
        near, far = (np.abs(found[number] - wanted[place]).mean() for place in (number, 1 - number))
        assert near < min(far, np.abs(without - wanted[number]).mean()) / 2


def test_every_memory_plan_draws_the_same_bits_with_a_lora(tmp_path):
    picture = PilImages.linear_gradient("L").convert("RGB")
    control = {"model": NAME, "image": picture}
    asked = Request(prompt="<lora:night:0.6>", steps=2, width=64, height=64, seed=1, controls=(control,))
    drawn = set()
    for memory in PLANS:
        darkroom = Darkroom(Settings(memory=memory, data_dir=tmp_path))
        for _ in range(2 if memory == PLANS[0] else 1):
            drawn |= {event.image.tobytes() for event in darkroom.generate(asked) if isinstance(event, Image)}
    assert len(drawn) == 1
