"""What the demo model can draw: concepts, styles, background colours, sizes and places."""

from typing import NamedTuple

IMAGE_SIZE = 128
"""Side of a training image in pixels; the latents are an eighth of it."""


class Concept(NamedTuple):
    """One thing to draw: the caption's words and the icon of that thing in every icon set."""

    words: str
    icon: str
    article: str = "a"

    @property
    def phrase(self) -> str:
        """The noun with its article, as it stands in a caption."""
        return f"{self.article} {self.words}".strip()


class Style(NamedTuple):
    """One named style and the npm package whose icons are drawn in it."""

    name: str
    package: str
    version: str


STYLES = (
    Style("3d", "@iconify-json/fluent-emoji", "1.2.7"),
    Style("flat", "@iconify-json/fluent-emoji-flat", "1.2.6"),
    Style("cartoon", "@iconify-json/noto", "1.2.9"),
)

CONCEPTS = (
    # food
    Concept("red apple", "red-apple"),
    Concept("banana", "banana"),
    Concept("strawberry", "strawberry"),
    Concept("grapes", "grapes", ""),
    Concept("watermelon", "watermelon"),
    Concept("pineapple", "pineapple"),
    Concept("lemon", "lemon"),
    Concept("cherries", "cherries", ""),
    Concept("avocado", "avocado", "an"),
    Concept("carrot", "carrot"),
    Concept("mushroom", "mushroom"),
    Concept("hamburger", "hamburger"),
    Concept("pizza", "pizza"),
    Concept("donut", "doughnut"),
    Concept("ice cream", "soft-ice-cream", "an"),
    Concept("birthday cake", "birthday-cake"),
    # animals
    Concept("dog", "dog-face"),
    Concept("cat", "cat-face"),
    Concept("panda", "panda"),
    Concept("fox", "fox"),
    Concept("lion", "lion"),
    Concept("tiger", "tiger-face"),
    Concept("pig", "pig-face"),
    Concept("frog", "frog"),
    Concept("koala", "koala"),
    Concept("rabbit", "rabbit-face"),
    Concept("chick", "front-facing-baby-chick"),
    Concept("penguin", "penguin"),
    Concept("owl", "owl", "an"),
    Concept("unicorn", "unicorn"),
    Concept("fish", "tropical-fish"),
    Concept("octopus", "octopus", "an"),
    Concept("whale", "spouting-whale"),
    Concept("butterfly", "butterfly"),
    Concept("ladybug", "lady-beetle"),
    Concept("turtle", "turtle"),
    Concept("crab", "crab"),
    # faces
    Concept("happy face", "grinning-face"),
    Concept("angry face", "angry-face", "an"),
    Concept("face with sunglasses", "smiling-face-with-sunglasses"),
    Concept("robot", "robot"),
    Concept("alien", "alien", "an"),
    Concept("ghost", "ghost"),
    Concept("skull", "skull"),
    Concept("pumpkin", "jack-o-lantern"),
    # vehicles and buildings
    Concept("car", "automobile"),
    Concept("rocket", "rocket"),
    Concept("bus", "bus"),
    Concept("sailboat", "sailboat"),
    Concept("airplane", "airplane", "an"),
    Concept("ufo", "flying-saucer"),
    Concept("castle", "castle"),
    Concept("house", "house"),
    # weather and plants
    Concept("sun", "sun"),
    Concept("cloud", "cloud"),
    Concept("rainbow", "rainbow"),
    Concept("snowman", "snowman"),
    Concept("star", "star"),
    Concept("moon", "crescent-moon"),
    Concept("fire", "fire", ""),
    Concept("christmas tree", "christmas-tree"),
    Concept("cactus", "cactus"),
    Concept("rose", "rose"),
    Concept("sunflower", "sunflower"),
    # objects
    Concept("heart", "red-heart"),
    Concept("balloon", "balloon"),
    Concept("gift", "wrapped-gift"),
    Concept("trophy", "trophy"),
    Concept("crown", "crown"),
    Concept("light bulb", "light-bulb"),
    Concept("umbrella", "umbrella", "an"),
    Concept("basketball", "basketball"),
)

SYNONYMS = {
    "red apple": ("apple",),
    "donut": ("doughnut",),
    "hamburger": ("burger",),
    "ladybug": ("ladybird",),
    "rabbit": ("bunny",),
    "happy face": ("smiley", "smiling face"),
    "pumpkin": ("halloween pumpkin",),
    "ufo": ("flying saucer",),
    "airplane": ("plane",),
    "fire": ("flame",),
    "gift": ("present",),
    "cat": ("kitten",),
    "dog": ("puppy",),
    "heart": ("red heart",),
    "moon": ("crescent moon",),
}
"""Other words for a concept, used in a part of its captions."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (140, 144, 150),
    "black": (22, 22, 26),
    "red": (214, 48, 49),
    "orange": (245, 140, 40),
    "yellow": (250, 214, 64),
    "green": (72, 168, 80),
    "teal": (24, 140, 140),
    "blue": (48, 104, 216),
    "sky blue": (140, 205, 245),
    "purple": (128, 72, 184),
    "pink": (248, 160, 192),
    "brown": (124, 84, 56),
    "beige": (236, 218, 186),
}
"""Background colours: name to sRGB bytes."""


class Placement(NamedTuple):
    """Where the object stands: the side of its square and the square's middle, in pixels."""

    size: int
    centre_x: int
    centre_y: int
    phrase: str
    """What a caption says of it; empty for the medium, centred object."""


MEDIUM = Placement(100, 64, 64, "")
PLACEMENTS = (
    MEDIUM,
    Placement(124, 64, 64, "large"),
    Placement(56, 64, 64, "small"),
    Placement(56, 32, 64, "small, on the left"),
    Placement(56, 96, 64, "small, on the right"),
    Placement(56, 64, 32, "small, at the top"),
    Placement(56, 64, 96, "small, at the bottom"),
)
PLACEMENT_SHARE = (0.60, 0.12, 0.10, 0.045, 0.045, 0.045, 0.045)
"""How often the training draws each placement."""
