"""What the owner chooses while the server runs: how pictures become files, and what pages begin with."""

import json
import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError, field_validator

from webui.core.disk import replace_file
from webui.core.errors import RequestError, explain
from webui.core.filenames import FILENAME, FileFormat, check_filename
from webui.core.settings import Settings
from webui.core.values import Value

PAGES = ("txt2img", "img2img", "inpaint", "grid", "upscale")
MOST_FIELDS = 400
MAX_TEXT = 8000
FLAGS = ("format", "filename")
"""Of the preferences those that the command line can set, which then holds."""

log = logging.getLogger(__name__)
Fields = Mapping[str, str | bool | int | float | None]


class Preferences(Value):
    """``quality`` is that of JPEG and WebP, None for what suits each. ``metadata``: whether the owner's own pictures
    hold how they were made. ``pages`` are fields that a page begins with in a new browser, by page.
    """

    format: FileFormat = "png"
    quality: Annotated[int, Field(ge=50, le=100)] | None = None
    filename: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_filename)] = FILENAME
    metadata: bool = True
    pages: dict[str, dict[str, str | bool | int | float | None]] = Field(default_factory=dict)

    @field_validator("pages")
    @classmethod
    def _bounded(cls, pages: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for page, fields in pages.items():
            if page not in PAGES:
                raise ValueError(f"{page[:40]!r} is not a page")
            if len(fields) > MOST_FIELDS or any(
                isinstance(one, str) and len(one) > MAX_TEXT for one in fields.values()
            ):
                raise ValueError(f"the fields of {page} are more than a page has")
        return pages


class PreferenceStore:
    """Those that hold now, kept in ``path`` for the next start. What flags say holds, whatever was chosen."""

    def __init__(self, settings: Settings, path: Path | None = None) -> None:
        self._path = path
        self.fixed = {name: getattr(settings, name) for name in FLAGS if name in settings.model_fields_set}
        self._chosen = _read(path) if path else Preferences()
        self._lock = threading.Lock()

    @property
    def now(self) -> Preferences:
        """What holds; another value once it changes."""
        return self._chosen.model_copy(update=self.fixed)

    def change(self, values: Mapping[str, Any]) -> Preferences:
        """Sets what ``values`` names, a page's fields as a whole and none for None.

        Raises RequestError naming the field, and then nothing has changed.
        """
        if held := next((name for name in values if name in self.fixed), None):
            raise RequestError(f"The command line has set it: --{held} {self.fixed[held]}.", field=held)
        with self._lock:
            wanted = self._chosen.model_dump() | dict(values)
            pages = values.get("pages")
            if isinstance(pages, Mapping):
                both = self._chosen.pages | dict(pages)
                wanted["pages"] = {page: fields for page, fields in both.items() if fields is not None}
            try:
                chosen = Preferences.model_validate(wanted)
            except ValidationError as error:
                raise RequestError(explain(error), field=str(error.errors()[0]["loc"][0])) from None
            if self._path:
                try:
                    replace_file(self._path, chosen.model_dump_json(indent=1, exclude_defaults=True).encode())
                except OSError as error:
                    raise RequestError(f"The settings could not be kept: {error.strerror}.") from None
            self._chosen = chosen
        return self.now


def _read(path: Path) -> Preferences:
    try:
        return Preferences.model_validate(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be read, so the settings are those of a new server: %s", path, error)
    return Preferences()
