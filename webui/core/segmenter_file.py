"""Which files are Segment Anything's, told by what goes in and comes out, and which two of them belong together.

Signatures as these programs export them: Meta's ``segment_anything/utils/onnx.py`` and samexporter (SAM and MobileSAM,
with preparation in the file or without), samexporter and onnxruntime's ``models/sam2`` (SAM 2), Hugging Face's optimum
(SAM and SlimSAM). A decoder takes what its encoder gives under the same names.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from webui.core.errors import show
from webui.core.files import AnnotatorFile
from webui.core.finder_file import EXTRA, FLOATS, MAX_SIDE_PX, MIN_SIDE_PX, RUNTIME, words_of
from webui.core.onnx_file import OnnxFile, Port, read_safe
from webui.core.tensor_file import BadFile

EXAMPLES = "mobile_sam.encoder.onnx and sam_vit_h_4b8939.decoder.onnx"
EMBEDDINGS = ("image_embeddings", "image_embed")
PLACES = "image_positional_embeddings"
POINTS, LABELS = ("point_coords", "input_points"), ("point_labels", "input_labels")
PRIOR, HAS_PRIOR = ("mask_input", "input_masks"), ("has_mask_input", "has_input_masks")
SIZE = ("orig_im_size", "original_image_size")
MASKS, SCORES = ("low_res_masks", "pred_masks", "masks"), ("iou_predictions", "iou_scores")
STRIDE = 16
"""Pixels a side of one place of the embeddings."""
USUAL_SIDE_PX = 1024
NAMED_SO = re.compile(r"(?<!fast)sam(?![a-z])|encoder|decoder")
ROLE = re.compile(r"[._\- ]*(image|vision|mask|prompt)?[._\- ]*(encoder|decoder)", re.IGNORECASE)


@dataclass(frozen=True)
class Encoder:
    """Sees a picture: float (1, 3, h, w), or (h, w, 3) where it prepares the picture itself. ``features`` it gives."""

    file: AnnotatorFile
    picture: Port
    features: tuple[Port, ...]


@dataclass(frozen=True)
class Decoder:
    """Finds a thing in ``features`` by points on it and beside it. ``masks`` and ``scores`` name what it gives."""

    file: AnnotatorFile
    points: Port
    labels: Port
    prior: Port | None
    has_prior: Port | None
    size: Port | None
    features: tuple[Port, ...]
    masks: str
    scores: str

    @property
    def is_second(self) -> bool:
        """Whether it is SAM 2, which sees finer features too, of a picture that is squeezed into a square."""
        return any(port.name not in (*EMBEDDINGS, PLACES) for port in self.features)

    def fits(self, encoder: Encoder) -> bool:
        """Whether it takes what that one gives."""
        given = {port.name: port.shape for port in encoder.features}
        return all(port.name in given and _agree(port.shape, given[port.name]) for port in self.features)


@dataclass(frozen=True)
class Segmenter:
    """Both halves, and the side in px of the square that the encoder sees."""

    name: str
    encoder: Encoder
    decoder: Decoder
    side_px: int


def is_named_so(name: str) -> bool:
    """Whether a file of this name says that it is Segment Anything's."""
    return NAMED_SO.search(name.casefold()) is not None


def read_part(file: AnnotatorFile) -> Encoder | Decoder:
    """What the file is; BadFile with the reason where it is neither or cannot be run."""
    if file.problem:
        raise BadFile(file.problem)
    found = read_safe(file.path)
    if _first(found.inputs, POINTS):
        return _read_decoder(file, found)
    if not _first(found.outputs, EMBEDDINGS) or len(found.inputs) != 1:
        raise BadFile(
            "is not Segment Anything, neither the encoder nor the decoder:"
            f" it takes {words_of(found.inputs)} and gives {words_of(found.outputs)}"
        )
    picture = found.inputs[0]
    sides = _sides(picture)
    if sides is None or picture.dtype not in FLOATS:
        raise BadFile(f"takes {words_of(found.inputs)}, not one picture of three colours as Segment Anything's encoder")
    if sides[0] != sides[1]:
        raise BadFile(f"wants pictures of {sides[1] or 'any'} x {sides[0] or 'any'} px; squares are given")
    return Encoder(file, picture, found.outputs)


def find_segmenters(files: Mapping[str, AnnotatorFile]) -> tuple[Segmenter, ...]:
    """All that can be used, by name; BadFile, with what to get and where it goes, where there is none."""
    if find_spec(RUNTIME) is None:
        raise BadFile(f"needs {EXTRA}")
    parts: list[Encoder | Decoder] = []
    trouble = ""
    for file in files.values():
        try:
            parts.append(read_part(file))
        except BadFile as error:
            if is_named_so(file.path.stem):
                trouble = trouble or f"{show(file.path.name)} {error}"
    found = tuple(sorted(_pairs(parts), key=lambda one: one.name))
    if found:
        return found
    if trouble:
        raise BadFile(f"needs Segment Anything, but {trouble}")
    if parts:
        other = "decoder" if isinstance(parts[0], Encoder) else "encoder"
        name = show(parts[0].file.path.name)
        raise BadFile(f"needs Segment Anything's {other} that belongs to {name}, as an ONNX file in models/annotators")
    raise BadFile(f"needs Segment Anything as two ONNX files in models/annotators, such as {EXAMPLES}")


def _pairs(parts: Iterable[Encoder | Decoder]) -> Iterator[Segmenter]:
    """Those of the same name; what is left of each kind where it is only one: MobileSAM has the decoder of another."""
    encoders = {_key(part.file): part for part in parts if isinstance(part, Encoder)}
    decoders = {_key(part.file): part for part in parts if isinstance(part, Decoder)}
    for key in encoders.keys() & decoders.keys():
        yield from _pair(encoders.pop(key), decoders.pop(key))
    if len(encoders) == len(decoders) == 1:
        yield from _pair(encoders.popitem()[1], decoders.popitem()[1])


def _pair(encoder: Encoder, decoder: Decoder) -> Iterator[Segmenter]:
    if not decoder.fits(encoder):
        return
    sides = _sides(encoder.picture)
    (embedding,) = (port for port in decoder.features if port.name in EMBEDDINGS)
    places = embedding.shape[-1] if embedding.shape else None
    side_px = sides and sides[0] or (STRIDE * places if places else USUAL_SIDE_PX)
    if MIN_SIDE_PX <= side_px <= MAX_SIDE_PX:
        folder, name = _key(encoder.file)
        yield Segmenter(name or folder.rpartition("/")[2] or encoder.file.name, encoder, decoder, side_px)


def _key(file: AnnotatorFile) -> tuple[str, str]:
    """Its folder, and its name without what says which half it is."""
    folder, _, name = (file.place or file.path.stem).rpartition("/")
    return folder, ROLE.sub("", name).strip("._- ")


def _read_decoder(file: AnnotatorFile, found: OnnxFile) -> Decoder:
    points, labels, *more = (_first(found.inputs, names) for names in (POINTS, LABELS, PRIOR, HAS_PRIOR, SIZE))
    features = tuple(port for port in found.inputs if port not in (points, labels, *more))
    masks, scores = _first(found.outputs, MASKS), _first(found.outputs, SCORES)
    embeddings = sum(port.name in EMBEDDINGS for port in features)
    if points is None or labels is None or masks is None or scores is None or embeddings != 1:
        raise BadFile("takes points as Segment Anything's decoder does, but its other inputs and outputs are not its")
    prior, has_prior, size = more
    decoder = Decoder(file, points, labels, prior, has_prior, size, features, masks.name, scores.name)
    if masks.name == MASKS[-1] and not decoder.is_second:
        raise BadFile(f"does not give {MASKS[0]} as Segment Anything's decoder does: export it as Meta's script does")
    return decoder


def _first(ports: Iterable[Port], names: Iterable[str]) -> Port | None:
    known = {port.name: port for port in ports}
    return next((known[name] for name in names if name in known), None)


def _sides(port: Port) -> tuple[int | None, int | None] | None:
    """(height, width) of a picture, None for what is free; None for what is no picture."""
    shape = port.shape or ()
    if len(shape) == 4 and shape[0] in (1, None) and shape[1] == 3:
        return shape[2], shape[3]
    return (None, None) if shape[2:] == (3,) and shape[:2] == (None, None) else None


def _agree(one: tuple[int | None, ...] | None, other: tuple[int | None, ...] | None) -> bool:
    if one is None or other is None:
        return True
    return len(one) == len(other) and all(a == b or None in (a, b) for a, b in zip(one, other, strict=True))
