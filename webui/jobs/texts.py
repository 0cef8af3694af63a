"""What a request leaves to chance, drawn for each of its pictures, before anything is queued."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from webui.core.dynamic import may_be_dynamic, scan
from webui.core.request import Request, template_of
from webui.core.wildcards import Wildcards
from webui.library.library import Snapshot

if TYPE_CHECKING:
    from webui.core.draws import Drawer


def draw_pictures(request: Request, library: Snapshot) -> tuple[tuple[Request, ...], tuple[str, ...]]:
    """Each picture of a request as one of its own that says what its seed draws, and lines for people about that.

    The seeds are decided already. No pictures where nothing is left to chance. Raises RequestError for what cannot be
    drawn.
    """
    texts = {place: text for place, text in request.texts.items() if may_be_dynamic(text)}
    if not texts or request.syntax < 3:
        return (), ()
    wildcards = _wildcards(texts.values(), library)
    templates = {place: scan(text, wildcards.is_wildcard, place) for place, text in texts.items()}
    dynamic = [place for place, template in templates.items() if template.forms]
    if not dynamic:
        return (), tuple(line for template in templates.values() for line in template.notices)
    from webui.core.draws import Drawer

    drawer = Drawer(wildcards)
    pictures = tuple(_draw(request.picture(k), dynamic, drawer) for k in range(request.image_count))
    return pictures, tuple(drawer.warnings)


def draw_examples(text: str, seeds: Iterable[int], library: Snapshot) -> tuple[str, ...]:
    """What a prompt says with these seeds; nothing where it always says the same. Raises RequestError."""
    if not may_be_dynamic(text):
        return ()
    wildcards = _wildcards([text], library)
    if not scan(text, wildcards.is_wildcard).forms:
        return ()
    from webui.core.draws import Drawer

    drawer = Drawer(wildcards)
    return tuple(drawer.draw(text, seed) for seed in seeds)


def _wildcards(texts: Iterable[str], library: Snapshot) -> Wildcards:
    """Those that there are, which are looked for only where a text could name one."""
    return Wildcards(library.wildcards if any("__" in text for text in texts) else {})


def _draw(picture: Request, places: Iterable[str], drawer: "Drawer") -> Request:
    drawn: dict[str, str] = {}
    for place in places:
        drawn[template_of(place)] = text = picture.texts[place]
        drawn[place] = drawer.draw(text, picture.seed, place)
    return picture.with_texts(drawn).model_copy(update={"syntax": 2})
