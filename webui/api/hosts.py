"""The names under which this server is asked for, and who asks: a page of our own, another site's, or a program.

A web page can make its own name point to this machine ("DNS rebinding"), and then its browser takes us for a part of
it; such a request carries the other name in ``Host``. A request that another site's page sends to our true name
carries that site's ``Origin``, and in newer browsers ``Sec-Fetch-Site``. Programs send neither.
"""

import socket
from ipaddress import ip_address

from starlette.datastructures import Headers

from webui.core.settings import Settings, is_loopback, split_netloc

# For containers, the machine that they run on. Nobody can own such a name.
CONTAINER_HOSTS = ("host.docker.internal", "host.containers.internal")
DEFAULT_PORTS = {"http": "80", "https": "443"}


class AllowedHosts:
    """Which names are ours: those of this machine alone, or where others reach it, its addresses and names too.

    An address cannot be made to point elsewhere, nor can a name without a dot be bought. ``--allow-host`` adds names.
    """

    def __init__(self, settings: Settings) -> None:
        self._given = {*settings.allow_host}
        self._is_reached = not is_loopback(settings.host)
        machine = socket.gethostname().lower()
        self._machine = {machine, f"{machine}.local", settings.host.lower()}

    def add(self, name: str) -> None:
        """One more name, as that of a share link."""
        self._given.add(name.lower())

    def allows(self, netloc: str) -> bool:
        """Whether ``name`` or ``name:port`` is ours."""
        name, _ = split_netloc(netloc)
        if name in self._given or name in CONTAINER_HOSTS or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            return ip_address(name).is_loopback or self._is_reached
        except ValueError:
            return bool(name) and self._is_reached and ("." not in name or name in self._machine)

    def find_unknown(self, headers: Headers) -> str | None:
        """The first name that the request came under and that is not ours, of ``Host`` and of what proxies add."""
        said = [*headers.getlist("host"), *(headers.get("x-forwarded-host") or "").split(",")]
        return next((netloc.strip() for netloc in said if netloc.strip() and not self.allows(netloc)), None)

    def is_cross_origin(self, headers: Headers) -> bool:
        """Whether another site's page sends it. Another port of ours is another site, as it is to browsers."""
        site = headers.get("sec-fetch-site")
        if site not in (None, "same-origin", "none"):
            return True
        if (origin := headers.get("origin")) is None:
            return False
        scheme, _, netloc = origin.partition("://")
        name, port = split_netloc(netloc)
        if name in self._given:  # proxies often say another Host
            return False
        asked, asked_port = split_netloc(headers.get("host", ""))
        if not name or name != asked:
            return True
        return site is None and bool(asked_port) and (port or DEFAULT_PORTS.get(scheme)) != asked_port
