"""What guests and the owner are known by: the owner's key, and the secret that cookies are signed with."""

import hashlib
import hmac
import ipaddress
import json
import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from webui.core.disk import temporary_file
from webui.core.visitor import OWNER, Visitor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keys:
    """Whoever sends ``owner_key`` is the owner. ``secret`` never leaves this machine."""

    owner_key: str
    secret: bytes

    @property
    def guest_cookie(self) -> str:
        """The cookie's name, which another server under the same host name does not use."""
        return f"darkroom-guest-{self._short_name}"

    @property
    def owner_cookie(self) -> str:
        """The same for the owner's."""
        return f"darkroom-owner-{self._short_name}"

    @property
    def owner_token(self) -> str:
        """What the owner's cookie holds; another one once the key is another."""
        return self._sign(f"owner {self.owner_key}")

    def is_owner_key(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.owner_key.encode())

    def new_token(self) -> str:
        """What a new guest's cookie holds: 128 bits of chance, and their signature."""
        chance = secrets.token_hex(16)
        return f"{chance}.{self._sign(f'guest {chance}')}"

    def guest(self, token: str, is_new: bool = False) -> Visitor | None:
        """The guest with this cookie; None where it was not signed here. The id does not tell the cookie."""
        chance, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._sign(f"guest {chance}").encode()):
            return None
        return Visitor(hashlib.sha256(chance.encode()).hexdigest()[:32], is_new=is_new)

    def named_guest(self, name: str) -> Visitor:
        """The guest of an account of their own."""
        return Visitor(self._sign(f"account {name}")[:32])

    def find_owner(self, authorization: str, cookies: Mapping[str, str]) -> Visitor | None:
        """The owner, where the request has the key (``Authorization: Bearer KEY``) or the owner's cookie."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() == "bearer" and self.is_owner_key(key.strip()):
            return OWNER
        held = cookies.get(self.owner_cookie, "")
        return OWNER if hmac.compare_digest(held.encode(), self.owner_token.encode()) else None

    def _sign(self, text: str) -> str:
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def origin(self, address: str) -> str:
        """What stands for the address that somebody came from, and does not tell it; "" where that says nothing.

        All who come through a tunnel or a proxy here come from this machine. Of IPv6 a whole /64 is one person's.
        """
        try:
            known = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return ""
        if isinstance(known, ipaddress.IPv6Address) and (mapped := known.ipv4_mapped):
            known = mapped
        if known.is_loopback:
            return ""
        network = ipaddress.ip_network((known, 64 if known.version == 6 else 32), strict=False)
        return self._sign(f"origin {network}")[:16]

    @property
    def _short_name(self) -> str:
        return hashlib.sha256(b"name " + self.secret).hexdigest()[:8]


def read_keys(path: Path, owner_key: str | None = None) -> Keys:
    """The keys kept in this file, which is made where there is none; ``owner_key`` goes before the kept one.

    Where nothing can be kept they hold for this run.
    """
    kept = _read(path) or _make(path)
    return Keys(owner_key or kept.owner_key, kept.secret)


def _read(path: Path) -> Keys | None:
    try:
        held = json.loads(path.read_text("utf-8"))
        return Keys(str(held["owner_key"]), bytes.fromhex(held["secret"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is made anew: %s", path, error)
        return None


def _make(path: Path) -> Keys:
    keys = Keys(secrets.token_urlsafe(24), secrets.token_bytes(32))
    data = json.dumps({"owner_key": keys.owner_key, "secret": keys.secret.hex()}).encode()
    try:
        with temporary_file(path.parent, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:  # another server of this folder was faster, or the file is damaged
                if found := _read(path):
                    return found
                os.replace(temporary, path)
            except OSError:  # a file system without hard links
                os.replace(temporary, path)
    except OSError as error:
        log.warning("the owner's key cannot be kept and holds for this run: %s", error.strerror)
    return keys
