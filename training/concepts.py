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


def indefinite_article(words: str) -> str:
    """ "a" or "an", by the first letter."""
    return "an" if words[0] in "aeiou" else "a"


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
    # Beyond this line are the things that the first version did not know; only they have held-out pairs.
    # food
    Concept("pear", "pear"),
    Concept("peach", "peach"),
    Concept("tangerine", "tangerine"),
    Concept("kiwi", "kiwi-fruit"),
    Concept("coconut", "coconut"),
    Concept("blueberries", "blueberries", ""),
    Concept("tomato", "tomato"),
    Concept("eggplant", "eggplant", "an"),
    Concept("corn", "ear-of-corn", ""),
    Concept("broccoli", "broccoli", ""),
    Concept("chili pepper", "hot-pepper"),
    Concept("bread", "bread", ""),
    Concept("croissant", "croissant"),
    Concept("pretzel", "pretzel"),
    Concept("pancakes", "pancakes", ""),
    Concept("cheese", "cheese-wedge", ""),
    Concept("hot dog", "hot-dog"),
    Concept("taco", "taco"),
    Concept("french fries", "french-fries", ""),
    Concept("popcorn", "popcorn", ""),
    Concept("sushi", "sushi", ""),
    Concept("cookie", "cookie"),
    Concept("lollipop", "lollipop"),
    Concept("cupcake", "cupcake"),
    Concept("egg", "egg", "an"),
    Concept("coffee", "hot-beverage", ""),
    Concept("green apple", "green-apple"),
    Concept("teapot", "teapot"),
    # animals
    Concept("monkey", "monkey-face"),
    Concept("bear", "bear"),
    Concept("polar bear", "polar-bear"),
    Concept("cow", "cow-face"),
    Concept("horse", "horse-face"),
    Concept("mouse", "mouse-face"),
    Concept("hamster", "hamster"),
    Concept("wolf", "wolf"),
    Concept("raccoon", "raccoon"),
    Concept("elephant", "elephant", "an"),
    Concept("giraffe", "giraffe"),
    Concept("zebra", "zebra"),
    Concept("sheep", "ewe"),
    Concept("hedgehog", "hedgehog"),
    Concept("bat", "bat"),
    Concept("flamingo", "flamingo"),
    Concept("peacock", "peacock"),
    Concept("parrot", "parrot"),
    Concept("swan", "swan"),
    Concept("duck", "duck"),
    Concept("eagle", "eagle", "an"),
    Concept("rooster", "rooster"),
    Concept("shark", "shark"),
    Concept("dolphin", "dolphin"),
    Concept("jellyfish", "jellyfish"),
    Concept("lobster", "lobster"),
    Concept("snail", "snail"),
    Concept("snake", "snake"),
    Concept("crocodile", "crocodile"),
    Concept("dragon", "dragon-face"),
    Concept("dinosaur", "t-rex"),
    Concept("bee", "honeybee"),
    Concept("spider", "spider"),
    # plants
    Concept("tulip", "tulip"),
    Concept("cherry blossom", "cherry-blossom"),
    Concept("hibiscus", "hibiscus"),
    Concept("palm tree", "palm-tree"),
    Concept("pine tree", "evergreen-tree"),
    Concept("tree", "deciduous-tree"),
    Concept("clover", "four-leaf-clover"),
    Concept("maple leaf", "maple-leaf"),
    Concept("potted plant", "potted-plant"),
    # faces
    Concept("crying face", "crying-face"),
    Concept("laughing face", "face-with-tears-of-joy"),
    Concept("thinking face", "thinking-face"),
    Concept("winking face", "winking-face"),
    Concept("cowboy", "cowboy-hat-face"),
    Concept("clown", "clown-face"),
    Concept("nerd", "nerd-face"),
    Concept("devil", "smiling-face-with-horns"),
    Concept("santa claus", "santa-claus"),
    # vehicles
    Concept("taxi", "taxi"),
    Concept("police car", "police-car"),
    Concept("ambulance", "ambulance", "an"),
    Concept("fire truck", "fire-engine"),
    Concept("truck", "delivery-truck"),
    Concept("tractor", "tractor"),
    Concept("racing car", "racing-car"),
    Concept("motorcycle", "motorcycle"),
    Concept("bicycle", "bicycle"),
    Concept("locomotive", "locomotive"),
    Concept("helicopter", "helicopter"),
    Concept("ship", "ship"),
    Concept("speedboat", "speedboat"),
    # buildings and places
    Concept("church", "church"),
    Concept("factory", "factory"),
    Concept("tent", "tent"),
    Concept("ferris wheel", "ferris-wheel"),
    Concept("mountain", "snow-capped-mountain"),
    Concept("volcano", "volcano"),
    Concept("island", "desert-island", "an"),
    Concept("hut", "hut"),
    Concept("school", "school"),
    # weather and sky
    Concept("snowflake", "snowflake"),
    Concept("lightning", "high-voltage", ""),
    Concept("rain cloud", "cloud-with-rain"),
    Concept("storm cloud", "cloud-with-lightning"),
    Concept("tornado", "tornado"),
    Concept("comet", "comet"),
    Concept("planet", "ringed-planet"),
    Concept("wave", "water-wave"),
    Concept("earth", "globe-showing-europe-africa", ""),
    # objects
    Concept("guitar", "guitar"),
    Concept("drum", "drum"),
    Concept("violin", "violin"),
    Concept("trumpet", "trumpet"),
    Concept("camera", "camera"),
    Concept("television", "television"),
    Concept("laptop", "laptop"),
    Concept("alarm clock", "alarm-clock", "an"),
    Concept("hourglass", "hourglass-not-done"),
    Concept("key", "key"),
    Concept("lock", "locked"),
    Concept("hammer", "hammer"),
    Concept("scissors", "scissors", ""),
    Concept("wrench", "wrench"),
    Concept("magnet", "magnet"),
    Concept("anchor", "anchor", "an"),
    Concept("bomb", "bomb"),
    Concept("candle", "candle"),
    Concept("lantern", "red-paper-lantern"),
    Concept("red book", "closed-book"),
    Concept("pencil", "pencil"),
    Concept("bell", "bell"),
    Concept("ring", "ring"),
    Concept("top hat", "top-hat"),
    Concept("t-shirt", "t-shirt"),
    Concept("backpack", "backpack"),
    Concept("soccer ball", "soccer-ball"),
    Concept("teddy bear", "teddy-bear"),
    Concept("chair", "chair"),
    Concept("money bag", "money-bag"),
    Concept("die", "game-die"),
    Concept("paint palette", "artist-palette"),
)

HELD_OUT_FROM = 72
"""Things before this one were known to the first version in every style, so their pairs cannot be held out."""


def pair_held_out(concept: int, style: int) -> bool:
    """Whether this thing is never trained in this style: one style of every sixth new thing."""
    turn, rest = divmod(concept - HELD_OUT_FROM, 6)
    return turn >= 0 and rest == 3 and turn % len(STYLES) == style


def held_out(concept: int, style: int, colour: int) -> bool:
    """Whether this combination is never trained: a held-out pair on any colour, or one of two colours of any other."""
    return pair_held_out(concept, style) or (concept + 3 * style + colour) % (len(COLOURS) // 2) == 0


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
    "tangerine": ("mandarin",),
    "eggplant": ("aubergine",),
    "corn": ("maize",),
    "chili pepper": ("chili",),
    "bread": ("loaf of bread",),
    "french fries": ("fries",),
    "coffee": ("cup of coffee",),
    "dinosaur": ("t-rex",),
    "bee": ("honeybee",),
    "pine tree": ("fir tree",),
    "laughing face": ("face with tears of joy",),
    "locomotive": ("steam train", "train"),
    "truck": ("lorry",),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "island": ("desert island",),
    "earth": ("globe",),
    "television": ("tv",),
    "alarm clock": ("clock",),
    "die": ("dice",),
    "soccer ball": ("football",),
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
