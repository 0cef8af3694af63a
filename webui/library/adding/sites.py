"""Addresses of model sites: which file a page's address means, and what the site says of it."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from webui.library.adding.web import Web, WebError, check_address

HUGGING_FACE = ("huggingface.co", "www.huggingface.co", "hf.co")
CIVITAI = ("civitai.com", "www.civitai.com")
TOKENS = {"HF_TOKEN": HUGGING_FACE, "CIVITAI_API_TOKEN": CIVITAI}
"""Which sites the token in an environment variable is for."""
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True)
class Source:
    """Where a file is fetched from, and the SHA-256 of files there by their names, as far as the site tells."""

    url: str
    known: Mapping[str, str]

    def sha256(self, name: str) -> str:
        """What the site says of the file of this name, or of the only one; empty where it says nothing."""
        return self.known.get(name) or (next(iter(self.known.values())) if len(self.known) == 1 else "")


def tokens_from(environment: Mapping[str, str]) -> dict[str, str]:
    """Tokens by the hosts that they are for."""
    found = {name: environment.get(name, "").strip() for name in TOKENS}
    return {host: token for name, token in found.items() if token for host in TOKENS[name]}


def find_source(url: str, web: Web) -> Source:
    """The file that an address means, which may be that of its page; raises WebError."""
    parts = check_address(url)
    if parts.hostname in HUGGING_FACE:
        way = parts.path.split("/")
        if "blob" in way[2:4]:
            way[way.index("blob", 2)] = "resolve"
        elif "resolve" not in way[2:4]:
            raise WebError("This is a page of Hugging Face with several files: choose one there and copy its address.")
        return Source(urlunsplit(parts._replace(path="/".join(way), fragment="")), {})
    if parts.hostname in CIVITAI:
        return _of_civitai(url, web)
    return Source(urlunsplit(parts._replace(fragment="")), {})


def _of_civitai(url: str, web: Web) -> Source:
    parts = urlsplit(url)
    asked = parse_qs(parts.query)
    download = re.fullmatch(r"/api/download/models/(\d+)/?", parts.path)
    page = re.match(r"/models/(\d+)", parts.path)
    if download:
        version = download[1]
    elif "modelVersionId" in asked and asked["modelVersionId"][0].isdecimal():
        version = asked["modelVersionId"][0]
    elif page:
        versions = _ask(web, f"https://civitai.com/api/v1/models/{page[1]}").get("modelVersions") or [{}]
        version = str(versions[0].get("id", ""))
        if not version.isdecimal():
            raise WebError("Civitai names no file for this page: copy the address of its download button.")
    else:
        raise WebError(
            "This is not the page of a model on Civitai: copy the address of a model or of its download button."
        )
    try:
        known = _hashes(_ask(web, f"https://civitai.com/api/v1/model-versions/{version}"))
    except WebError:  # the file itself may be there all the same
        known = {}
    return Source(url if download else f"https://civitai.com/api/download/models/{version}", known)


def _ask(web: Web, url: str) -> dict[str, Any]:
    try:
        found = json.loads(web.read_text(url))
    except (ValueError, RecursionError):
        raise WebError("Civitai's answer cannot be read.") from None
    return found if isinstance(found, dict) else {}


def _hashes(version: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of a version's files by their names, as far as they are told."""
    known = {}
    for file in version.get("files") or ():
        hashes = file.get("hashes") if isinstance(file, dict) else None
        sha256 = str((hashes or {}).get("SHA256", ""))
        if SHA256.fullmatch(sha256):
            known[str(file.get("name", ""))] = sha256.lower()
    return known
