"""Files from https addresses, read from any place in them, and from the public network alone.

Each name is looked up once and that address is connected to, so that no name can point elsewhere in between; whatever
an address redirects to is looked at in the same way.
"""

import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import certifi

TIMEOUT_S = 30.0
MAX_REDIRECTS = 6
MAX_TEXT_BYTES = 4 * 2**20
REDIRECTS = (301, 302, 303, 307, 308)
NAT64 = IPv6Network("64:ff9b::/96")
AGENT = "Darkroom"
IN_ADDRESS = "/%:=&?~+!$,;'@()*[]"


class WebError(Exception):
    """What came of an address; the message is for people, and holds nothing that is secret."""


class Cut(WebError):
    """The connection broke off, or there was none; later it may work."""


@dataclass
class Answer:
    """An answer whose body is still to be read. ``passed`` are the headers of the redirects that led to it."""

    url: str
    status: int
    headers: Mapping[str, str]
    passed: list[Mapping[str, str]]
    _response: http.client.HTTPResponse = field(repr=False)
    _socket: ssl.SSLSocket = field(repr=False)

    def read(self, most_bytes: int) -> bytes:
        """The next bytes, empty at the end; raises Cut."""
        try:
            return self._response.read1(most_bytes)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Cut(f"The connection to {host_of(self.url)} broke off: {_reason(error)}.") from None

    def close(self) -> None:
        """Ends the connection, also while another thread waits for it."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._response.close()
        self._socket.close()


def find_public(host: str, port: int) -> str:
    """An address of the host; WebError where any of them is not of the public network."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Cut(f"{host} cannot be found: is the address right, and this machine online?") from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if inner := next((address for address in addresses if not is_public(address)), None):
        raise WebError(f"{host} is {inner}, which is in a private network: nothing is fetched from there.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether it is an address of the public network, also where it holds one of version 4."""
    ip: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.ipv4_mapped or ip.sixtofour
        if inner is not None:
            ip = inner
        elif ip.teredo or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def certificates() -> ssl.SSLContext:
    """What servers are known by: the system's list and certifi's, since some systems have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


class Web:
    """``tokens`` are sent to their own hosts alone. ``find`` gives the address of a host and port."""

    def __init__(
        self,
        tokens: Mapping[str, str] | None = None,
        find: Callable[[str, int], str] = find_public,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._tokens, self._find, self._context = tokens or {}, find, context

    def open(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer to a GET, behind all redirects; raises WebError."""
        passed: list[Mapping[str, str]] = []
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._ask(url, headers or {}, passed)
            location = answer.headers.get("location", "")
            if answer.status not in REDIRECTS or not location:
                return answer
            answer.close()
            passed.append(answer.headers)
            url = urljoin(url, location)
        raise WebError(f"{host_of(url)} redirects in a circle.")

    def read_text(self, url: str) -> str:
        """A short text, as of an API; raises WebError."""
        answer = self.open(url, {"Accept": "application/json"})
        try:
            if answer.status != 200:
                raise WebError(f"{host_of(url)} answers with {answer.status}.")
            data = b""
            while len(data) <= MAX_TEXT_BYTES and (part := answer.read(2**16)):
                data += part
            return data[:MAX_TEXT_BYTES].decode("utf-8", "replace")
        finally:
            answer.close()

    def _ask(self, url: str, headers: Mapping[str, str], passed: list[Mapping[str, str]]) -> Answer:
        parts = check_address(url)
        host, port = (parts.hostname or "").encode("idna").decode("ascii"), parts.port or 443
        address = self._find(host, port)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", "Connection": "close", **headers}
        sent |= token_for(self._tokens, host, port)
        self._context = self._context or certificates()
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S)
        try:
            plain = socket.create_connection((address, port), TIMEOUT_S)
            with suppress(OSError):
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            secured = connection.sock = self._context.wrap_socket(plain, server_hostname=host)
            way = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            connection.request("GET", quote(way, IN_ADDRESS), headers=sent)
            response = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise WebError(f"The certificate of {host} is not valid: {error.verify_message}.") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Cut(f"{host} does not answer: {_reason(error)}.") from None
        told = {name.lower(): value for name, value in response.headers.items()}
        return Answer(url, response.status, told, passed, response, secured)


def token_for(tokens: Mapping[str, str], host: str, port: int) -> dict[str, str]:
    """The header with the token that is for this host, and for no other."""
    token = tokens.get(host, "") if port == 443 else ""
    return {"Authorization": f"Bearer {token}"} if token else {}


def check_address(url: str) -> SplitResult:
    """The parts of an https address; WebError where it is none that is fetched."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except (ValueError, UnicodeError):
        raise WebError("This address cannot be read.") from None
    if parts.scheme != "https":
        raise WebError(f"Only https addresses are fetched, and {parts.scheme or 'this'} is none.")
    if not host or parts.username is not None or any(ord(letter) < 33 for letter in url):
        raise WebError("This is not the address of a file: it needs a host, and no name or password in it.")
    return parts


def host_of(url: str) -> str:
    """The host alone, for people: the rest may hold something secret."""
    with suppress(ValueError):
        return urlsplit(url).hostname or "the server"
    return "the server"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)[:120]
