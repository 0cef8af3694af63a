"""What a model file is, from the names and shapes of its tensors; and why another file is none."""

import json
import math

import pytest

from webui.core.settings import Settings
from webui.core.tensor_file import BadFile
from webui.library.checkpoint import read_checkpoint, read_part
from webui.library.library import DEMO_MODEL, find_models, find_vaes

FIRST = "model.diffusion_model.input_blocks.0.0.weight"
PROJECTION = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
LABEL = "model.diffusion_model.label_emb.0.0.weight"
SD1 = {FIRST: (320, 4, 3, 3), PROJECTION: (320, 320, 1, 1), CONTEXT: (320, 768)}
SD2 = {FIRST: (320, 4, 3, 3), PROJECTION: (320, 320), CONTEXT: (320, 1024)}
SDXL = {FIRST: (320, 4, 3, 3), PROJECTION: (640, 640), CONTEXT: (640, 2048), LABEL: (1280, 2816)}
BARE = {key.removeprefix("model.diffusion_model."): shape for key, shape in SD1.items()}
REFINER = {FIRST: (384, 4, 3, 3), PROJECTION: (768, 768), CONTEXT: (768, 1280), LABEL: (1536, 2560)}

ANIMA = {
    "net.blocks.0.adaln_modulation_self_attn.1.weight": (8, 8),
    "net.blocks.0.cross_attn.q_proj.weight": (8, 8),
    "net.llm_adapter.blocks.0.cross_attn.k_proj.weight": (8, 1024),
}


@pytest.fixture
def write(tmp_path):
    """``write({name: shape}, metadata)``: a sparse safetensors file."""

    def write(shapes, metadata=None, name="x.safetensors"):
        header, end = {"__metadata__": metadata or {}}, 0
        for key, shape in shapes.items():
            begin, end = end, end + 2 * math.prod(shape)
            header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with path.open("r+b") as file:
            file.truncate(8 + len(text) + end)
        return path

    return write


@pytest.mark.parametrize(
    ("shapes", "kind", "native_px"),
    [
        (SD1, "SD 1.x", 512),
        (SD1 | {FIRST: (320, 9, 3, 3)}, "SD 1.x, inpaint", 512),
        (SD2, "SD 2.x", 512),
        (SD2 | {FIRST: (320, 9, 3, 3)}, "SD 2.x, inpaint", 512),
        (SDXL, "SDXL", 1024),
        (SDXL | {FIRST: (320, 9, 3, 3)}, "SDXL, inpaint", 1024),
        (SDXL | {"v_pred": (0,)}, "SDXL, v", 1024),
        (SDXL | {"v_pred": (0,), "ztsnr": (0,)}, "SDXL, v, zero SNR", 1024),
        (REFINER, "SDXL refiner", 1024),
    ],
)
def test_the_family_shows_in_the_shapes_whatever_the_name(write, shapes, kind, native_px):
    found = read_checkpoint(write(shapes, name="sdxl-turbo-flux-v2-inpainting.safetensors"))
    assert (found.kind, found.native_px) == (kind, native_px)
    bare = {key.removeprefix("model.diffusion_model."): shape for key, shape in shapes.items()}
    assert read_checkpoint(write(bare, name="bare.safetensors")).kind == kind


@pytest.mark.parametrize("shapes", [SD1, SD2, SDXL, REFINER, ANIMA], ids=["SD 1", "SD 2", "SDXL", "refiner", "Anima"])
def test_shapes_of_no_model_are_an_error_of_that_file_alone(tmp_path, write, shapes):
    (tmp_path / "models/Stable-diffusion").mkdir(parents=True)
    for number, key in enumerate(shapes):
        for sides in range(3):
            odd = shapes | {key: (1,) * sides}
            write(odd, name=f"models/Stable-diffusion/{number}-{sides}.safetensors")
    found = find_models(Settings(data_dir=tmp_path))
    assert len(found) == 1 + 3 * len(shapes) and found["demo"].checkpoint
    assert any("is damaged: its tensors have not the shapes of" in file.problem for file in found.values())


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        (ANIMA, "Anima"),
        ({"model.diffusion_model.double_stream_blocks.0.block.ff_i.shared_experts.w1.weight": (8, 8)}, ""),
        ({"model.diffusion_model.blocks.0.self_attn.q.weight": (8, 8)}, ""),
    ],
)
def test_a_whole_model_is_no_autoencoder_though_it_has_one(write, backbone, kind):
    path = write(backbone | {"vae.decoder.middle.0.residual.0.gamma": (8, 1, 1)})
    assert read_part(path) is None
    if kind:
        assert read_checkpoint(path).family == kind
    else:
        with pytest.raises(BadFile, match="can be used here"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "name"),
    [({"modelspec.prediction_type": "v"}, "v"), ({"modelspec.prediction_type": "epsilon"}, "epsilon")],
)
def test_the_prediction_is_what_the_file_says(write, metadata, name):
    assert read_checkpoint(write(SDXL, metadata)).prediction_name == name


def test_a_unet_that_is_told_the_guidance_wants_few_steps(write):
    found = read_checkpoint(write(SD1 | {"model.diffusion_model.time_embed.cond_proj.weight": (320, 256)}))
    assert found.guides_itself
    assert (found.defaults.steps, found.defaults.guidance, found.defaults.sampler) == (4, 1.0, "LCM")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (
            {"distilled_guidance_layer.in_proj.weight": (1, 1)},
            "is a Chroma model; SD 1.x, SD 2.x, SDXL, SDXL refiner",
        ),
        (
            {"model.diffusion_model.double_stream_blocks.0.block.attn1.to_q.weight": (1, 1)},
            "is a HiDream model",
        ),
        ({"lora_unet_x.lora_down.weight": (1, 1)}, "is a LoRA; it belongs in the folder for LoRAs (models/Lora)"),
        (
            {"decoder.conv_in.weight": (1, 4, 3, 3)},
            "is a VAE; it belongs in the folder for VAEs (models/VAE)",
        ),
        ({"something": (1,)}, "holds no model of SD 1.x, SD 2.x, SDXL, SDXL refiner"),
        ({"emb_params": (4, 768)}, "is an embedding; it belongs in the folder for embeddings"),
        ({}, "holds no weights"),
        (SD1 | {FIRST: (320, 8, 3, 3)}, "has a UNet of 8 input channels; 4, and 9 for inpainting, are known here"),
        ({FIRST: (320, 4, 3, 3)}, "holds a UNet that does not read prompts"),
        (SD1 | {FIRST: (320,)}, "holds a UNet that does not read prompts"),
        (
            SDXL | {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)},
            "was trained with EDM noise, like Playground v2.5",
        ),
        (SDXL | {"edm_vpred.sigma_max": ()}, "was trained with EDM noise, like CosXL, which no sampler here"),
        (SD2 | {LABEL: (1280, 2048), "noise_augmentor.data_mean": (1, 1024)}, "is an unCLIP model of SD 2.x"),
        (SDXL | {f"{CONTEXT}_scale_2": (1,)}, "is quantized as nvfp4, which is not known here"),
        (BARE | {"input_hint_block.0.weight": (16, 3, 3, 3)}, "is a ControlNet; it belongs in the folder for controls"),
        (
            {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3)}
            | {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)},
            "is a ControlNet; it belongs in the folder for controls",
        ),
    ],
)
def test_what_cannot_be_used_says_why(write, shapes, words):
    with pytest.raises(BadFile) as caught:
        read_checkpoint(write(shapes))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "was trained with EDM noise (EDMEulerScheduler), which no sampler here"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "was trained with EDM noise"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "was trained with flow matching"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
    ],
)
def test_a_folder_for_other_noise_is_refused_by_its_schedule(tmp_path, scheduler, words):
    for part in ("unet", "vae", "text_encoder"):
        (tmp_path / part).symlink_to(DEMO_MODEL / part)
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(BadFile) as caught:
        read_checkpoint(tmp_path)
    assert words in str(caught.value)


def test_a_header_of_a_hundred_megabytes_is_refused_unread(tmp_path):
    path = tmp_path / "models/checkpoints/huge.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes((100 * 2**20).to_bytes(8, "little") + b"{")
    with path.open("r+b") as file:
        file.truncate(200 * 2**20)
    model = find_models(Settings(data_dir=tmp_path))["huge"]
    assert model.checkpoint is None and model.problem == "has a header of 100 MiB; 16 MiB are allowed"


class TestPlaces:
    def test_a_file_put_straight_into_a_models_dir_is_found_and_what_is_no_model_is_left_out(self, write, tmp_path):
        write(SD1, name="mine.safetensors")
        write({"lora_unet_x.lora_down.weight": (1, 1)}, name="lora.safetensors")
        assert set(find_models(Settings(data_dir=tmp_path / "data", models_dir=(tmp_path,)))) == {"demo", "mine"}

    @pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE"])
    def test_what_hugging_face_has_downloaded_is_there_under_its_id(self, tmp_path, monkeypatch, variable):
        home = tmp_path / "home"
        hub = home / "hub" if variable == "HF_HOME" else home
        monkeypatch.setenv(variable, str(home))
        repository = hub / "models--some--model"
        for revision in ("aaa", "bbb"):
            (repository / "snapshots" / revision).mkdir(parents=True)
            (repository / "snapshots" / revision / "model_index.json").write_text("{}")
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("aaa")
        models = find_models(Settings(data_dir=tmp_path))
        assert models["some/model"].path == repository / "snapshots/aaa"

    def test_comfyui_s_and_a1111_s_folders_for_vaes(self, tmp_path):
        for place in ("a/models/VAE/one", "c/models/vae/two", "c/models/vae_approx/taesd_decoder"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{place}.safetensors").write_bytes(b"x")
        trees = (tmp_path / "a", tmp_path / "c")
        assert set(find_vaes(Settings(data_dir=tmp_path, models_dir=trees))) == {"one", "two", "taesd_decoder"}
