"""Start latents from seeds, and what a mask lets go."""

import pytest
import torch

from webui.core.samplers import SAMPLERS
from webui.engine.latents import Hold, make_draw, make_generators, prepare
from webui.engine.noise import make_noise

CPU = torch.device("cpu")


@pytest.fixture
def start(model):
    """``start(seed, count, ...)``: the start latents of such a job."""

    def start(seed, count, width=64, height=64, sampler="Euler"):
        generators = make_generators(range(seed, seed + count))
        noise = make_noise(sampler, "Default", model.scheduler_config, "auto", 10, 1.0, generators, CPU)
        return prepare(model, noise, (width, height), make_draw(generators), CPU).latents, noise.scheduler

    return start


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_picture_k_of_a_batch_starts_from_the_noise_of_its_own_seed_alone(start, sampler):
    batch, _ = start(100, 3, sampler=sampler)
    for k in range(3):
        alone, _ = start(100 + k, 1, sampler=sampler)
        assert torch.equal(batch[k : k + 1], alone)
    assert not torch.equal(batch[0], batch[1])


def test_the_noise_is_torch_s_cpu_noise_of_that_seed_at_the_scheduler_s_level(start, model):
    latents, scheduler = start(5, 1, width=128, height=72)
    noise = torch.randn((1, 4, 72 // model.latent_scale, 128 // model.latent_scale), generator=torch.manual_seed(5))
    assert torch.equal(latents, noise * scheduler.init_noise_sigma)
    assert latents.dtype == torch.float32


def test_other_random_numbers_in_the_process_change_nothing(start):
    torch.manual_seed(1)
    first, _ = start(9, 1)
    torch.manual_seed(2)
    torch.randn(1000)
    second, _ = start(9, 1)
    assert torch.equal(first, second)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**53 - 1])
def test_every_allowed_seed_gives_noise_of_its_own(start, seed):
    assert not torch.equal(start(seed, 1)[0], start(max(seed - 1, 1), 1)[0])


def steps_let_go(level: int, steps: int, greys: bool) -> int:
    """For how many of the last steps a place of this level is what was drawn, not what was kept."""

    class Levels:
        def __len__(self):
            return steps

        def add(self, kept, _noise, _index):
            return kept

    kept, drawn = torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1)
    hold = Hold(torch.full((1, 1, 1, 1), level / 255), kept, kept, greys)
    free = [bool(hold.apply(Levels(), drawn, index).all()) for index in range(1, steps + 1)]
    assert free == sorted(free), "once let go, it stays so"
    return sum(free)


@pytest.mark.parametrize(
    ("level", "steps", "let_go"),
    [(0, 20, 0), (1, 20, 0), (1, 4, 0), (17, 4, 0), (64, 4, 1), (128, 4, 2), (192, 4, 3), (64, 20, 5), (128, 20, 10)]
    + [(128, 1, 1), (127, 1, 0), (250, 20, 20), (255, 1, 1), (255, 20, 20)],
)
def test_a_grey_is_let_go_for_its_share_of_the_steps_to_the_nearest(level, steps, let_go):
    assert steps_let_go(level, steps, greys=True) == let_go


@pytest.mark.parametrize(("level", "let_go"), [(0, 0), (1, 1), (128, 11), (254, 20), (255, 20)])
def test_the_soft_edge_of_a_white_mask_is_let_go_a_part_of_a_step_earlier(level, let_go):
    assert steps_let_go(level, 20, greys=False) == let_go
