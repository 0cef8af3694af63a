"""Segment Anything itself with random weights, exported in Meta's signature: its own masks, pixel for pixel."""

import numpy as np
import pytest
import torch
from PIL import Image as PilImages
from PIL.Image import Resampling

from webui.core.files import AnnotatorFile
from webui.core.onnx_file import read_safe
from webui.core.segmenter import Eye
from webui.core.segmenter_file import find_segmenters

pytestmark = pytest.mark.slow
SIDE, WIDTH = 256, 32


@pytest.fixture(scope="module")
def model():
    from transformers import SamConfig, SamModel

    shared = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 64}
    seen = {"image_size": SIDE, "patch_size": 16}
    vision = shared | seen | {"output_channels": WIDTH, "window_size": 4, "num_pos_feats": WIDTH // 2}
    config = SamConfig(
        vision_config=vision | {"global_attn_indexes": [1]},
        prompt_encoder_config=seen | {"hidden_size": WIDTH},
        mask_decoder_config=shared | {"iou_head_hidden_dim": WIDTH},
    )
    torch.manual_seed(0)
    model = SamModel(config).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.15)
    return model


class Encoder(torch.nn.Module):
    def __init__(self, sam):
        super().__init__()
        self.sam = sam

    def forward(self, picture):
        return self.sam.get_image_embeddings(picture)


class Decoder(Encoder):
    """What ``SamOnnxModel`` computes: points and the end of them, no mask of before, all four masks."""

    def forward(self, embeddings, points, labels, prior, has_prior, size):
        prompts, kind = self.sam.prompt_encoder, labels.unsqueeze(-1)
        sparse = self.sam.shared_image_embedding(((points + 0.5) / SIDE).unsqueeze(1)).squeeze(1) * (kind != -1)
        for number, weight in (
            (-1, prompts.not_a_point_embed),
            (0, prompts.point_embed[0]),
            (1, prompts.point_embed[1]),
        ):
            sparse = sparse + weight.weight * (kind == number)
        dense = has_prior * prompts.mask_embed(prior) + (1 - has_prior) * prompts.no_mask_embed.weight.reshape(
            1, -1, 1, 1
        )
        shown = {
            **{"image_embeddings": embeddings, "dense_prompt_embeddings": dense},
            "image_positional_embeddings": self.sam.get_image_wide_positional_embeddings(),
            "sparse_prompt_embeddings": sparse.unsqueeze(1),
        }
        found = [self.sam.mask_decoder(multimask_output=many, **shown) for many in (False, True)]
        masks, scores = (torch.cat([one[part][:, 0] for one in found], dim=1) for part in (0, 1))
        return masks + 0 * size.sum(), scores


@pytest.fixture(scope="module")
def segmenter(model, tmp_path_factory):
    folder, low = tmp_path_factory.mktemp("annotators"), SIDE // 4
    paths = [folder / f"sam_tiny.{half}.onnx" for half in ("encoder", "decoder")]
    picture, number = torch.zeros(1, 3, SIDE, SIDE), torch.zeros(1)
    embeddings = torch.zeros(1, WIDTH, SIDE // 16, SIDE // 16)
    points = torch.rand(1, 5, 2) * SIDE, torch.tensor([[1.0, 0.0, 1.0, 1.0, -1.0]])
    prompts = *points, torch.zeros(1, 1, low, low), number, torch.tensor([150.0, 225.0])
    names = ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"]
    with torch.no_grad():
        torch.onnx.export(
            Encoder(model),
            (picture,),
            paths[0],
            input_names=["x"],
            output_names=names[:1],
            opset_version=17,
            dynamo=False,
        )
        torch.onnx.export(
            Decoder(model),
            (embeddings, *prompts),
            paths[1],
            input_names=names,
            output_names=["low_res_masks", "iou_predictions"],
            dynamic_axes={name: {1: "points"} for name in names[1:3]},
            opset_version=17,
            dynamo=False,
        )
    for path in paths:
        read_safe(path)
    (found,) = find_segmenters({path.stem: AnnotatorFile(path.stem, path) for path in paths})
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(300, 200), (120, 260), (256, 256), (900, 640)])
@pytest.mark.parametrize("places", [((0.3, 0.4),), ((0.3, 0.4), (0.7, 0.6))])
def test_masks_are_those_of_transformers(model, segmenter, size, places):
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    low = SIDE // 4
    sides = {"size": {"longest_edge": SIDE}, "mask_size": {"longest_edge": low}}
    padded = {"pad_size": {"height": SIDE, "width": SIDE}, "mask_pad_size": {"height": low, "width": low}}
    processor = SamImageProcessorPil(**sides, **padded)
    levels = np.random.default_rng(1).integers(0, 255, (12, 12, 3), np.uint8)
    picture = PilImages.fromarray(levels).resize(size, Resampling.BICUBIC)
    points = [(x * size[0], y * size[1]) for x, y in places]
    ours = np.asarray(Eye().find(segmenter, picture, points, [1] * len(points))) > 0
    shown = processor(picture, return_tensors="pt")
    scale = np.array(shown["reshaped_input_sizes"][0])[::-1] / size
    with torch.no_grad():
        given = model(
            pixel_values=shown["pixel_values"].float(),
            input_points=torch.tensor(np.array(points) * scale, dtype=torch.float32)[None, None],
            input_labels=torch.ones(1, 1, len(points), dtype=torch.int),
            multimask_output=len(points) == 1,
        )
    masks = processor.post_process_masks(given.pred_masks, shown["original_sizes"], shown["reshaped_input_sizes"])[0][0]
    theirs = masks[int(given.iou_scores.flatten().argmax())].numpy()
    assert 0.1 < theirs.mean() < 0.9 and (ours == theirs).mean() > 0.9999


class Encoder2(Encoder):
    def forward(self, picture):
        return tuple(self.sam.get_image_embeddings(picture))


class Decoder2(Encoder):
    """What samexporter's ``SAM2ImageDecoder`` computes."""

    def forward(self, embeddings, fine, middle, points, labels, prior, has_prior):
        prompts = self.sam.prompt_encoder
        dense = has_prior * prompts.mask_embed(prior)
        dense = dense + (1 - has_prior) * prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        masks, scores, *_ = self.sam.mask_decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompts._embed_points(points.unsqueeze(1), labels.unsqueeze(1).long(), pad=True),
            dense_prompt_embeddings=dense,
            multimask_output=True,
            high_resolution_features=[fine, middle],
        )
        return masks[:, 0], scores[:, 0]


@pytest.fixture(scope="module")
def model2():
    from transformers import Sam2Config, Sam2Model

    widths = [16, 32, 64, 128]
    backbone = {
        **{"model_type": "sam2_hiera_det_model", "hidden_size": 16, "image_size": [SIDE, SIDE]},
        **{"blocks_per_stage": [1] * 4, "embed_dim_per_stage": widths, "num_attention_heads_per_stage": [1, 2, 4, 8]},
        **{"window_size_per_stage": [8, 4, 4, 4], "global_attention_blocks": []},
    }
    sizes = [[SIDE // step] * 2 for step in (4, 8, 16)]
    vision = {"backbone_config": backbone, "backbone_channel_list": widths[::-1], "backbone_feature_sizes": sizes}
    decoder = {"hidden_size": WIDTH, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": WIDTH}
    config = Sam2Config(
        vision_config=vision | {"fpn_hidden_size": WIDTH},
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIDE},
        mask_decoder_config=decoder,
    )
    torch.manual_seed(0)
    model = Sam2Model(config).eval()
    for weights in model.parameters():
        if weights.ndim > 1:
            torch.nn.init.normal_(weights, std=0.1)
    return model


@pytest.fixture(scope="module")
def segmenter2(model2, tmp_path_factory):
    folder, picture = tmp_path_factory.mktemp("annotators"), torch.zeros(1, 3, SIDE, SIDE)
    paths = [folder / f"sam2_tiny.{half}.onnx" for half in ("encoder", "decoder")]
    names = ["high_res_feats_0", "high_res_feats_1", "image_embed"]
    asked = ["point_coords", "point_labels", "mask_input", "has_mask_input"]
    shared = {"opset_version": 17, "dynamo": False}
    with torch.no_grad():
        fine, middle, embeddings = Encoder2(model2)(picture)
        torch.onnx.export(Encoder2(model2), (picture,), paths[0], input_names=["image"], output_names=names, **shared)
        points = torch.rand(1, 5, 2) * SIDE, torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]])
        torch.onnx.export(
            Decoder2(model2),
            (embeddings, fine, middle, *points, torch.zeros(1, 1, SIDE // 4, SIDE // 4), torch.zeros(1)),
            paths[1],
            input_names=["image_embed", *names[:2], *asked],
            output_names=["masks", "iou_predictions"],
            dynamic_axes={name: {0: "things", 1: "points"} for name in asked[:2]},
            **shared,
        )
    (found,) = find_segmenters({path.stem: AnnotatorFile(path.stem, path) for path in paths})
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(300, 200), (120, 260), (900, 640)])
@pytest.mark.parametrize("places", [((0.3, 0.4),), ((0.3, 0.4), (0.7, 0.6))])
def test_masks_are_those_of_transformers_sam2(model2, segmenter2, size, places):
    levels = np.random.default_rng(1).integers(0, 255, (12, 12, 3), np.uint8)
    picture = PilImages.fromarray(levels).resize(size, Resampling.BICUBIC)
    points = [(x * size[0], y * size[1]) for x, y in places]
    ours = np.asarray(Eye().find(segmenter2, picture, points, [1] * len(points))) > 0
    shown = np.asarray(picture.resize((SIDE, SIDE), Resampling.BILINEAR), np.float32) / 255
    shown = ((shown - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None]
    with torch.no_grad():
        given = model2(
            pixel_values=torch.tensor(shown).float(),
            input_points=torch.tensor([[[(x * SIDE, y * SIDE) for x, y in places]]]),
            input_labels=torch.ones(1, 1, len(points), dtype=torch.long),
        )
        masks = torch.nn.functional.interpolate(given.pred_masks[:, 0], size[::-1], mode="bilinear")[0] > 0
    theirs = masks[int(given.iou_scores.flatten().argmax())].numpy()
    assert 0.1 < theirs.mean() < 0.9 and (ours == theirs).mean() > 0.9999
