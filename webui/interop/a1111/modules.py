"""Forge's additional modules: a VAE and text encoders, in one list."""

import re
from typing import Any

from webui.core.catalog import Catalog
from webui.core.errors import RequestError, show
from webui.core.names import find_file


def find_modules(names: Any, catalog: Catalog) -> dict[str, str]:
    """What a list of Forge's additional modules, as names or paths, means by our fields: a VAE where it names one, and
    a text encoder, or none."""
    field, found = "forge_additional_modules", {"text_encoder": ""}
    if not isinstance(names, list):
        raise RequestError(f"{field} must be a list", field=field)
    known = {"vae": catalog.vaes, "text_encoder": catalog.text_encoders}
    for name in names:
        plain = re.split(r"[/\\]", str(name))[-1]
        meant = ((ours, here) for ours, files in known.items() if (here := find_file(plain, files)))
        ours, here = next(meant, ("", ""))
        if not here:
            raise RequestError(f"{field}: “{show(plain)}” is not here", field=field)
        found[ours] = here
    return found
