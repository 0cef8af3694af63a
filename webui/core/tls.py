"""A certificate and its key: whether a server can use them, in words for people."""

import ssl
from pathlib import Path

from webui.core.errors import RequestError


def check_certificate(cert: Path, key: Path) -> None:
    """Raises RequestError naming the flag and the file that a server could not use."""
    for field, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise _error(field, path, f"cannot be read: {error.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cert)
    except ssl.SSLError:
        raise _error("tls_cert", cert, "holds no certificate in PEM form") from None
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except PermissionError:
        raise _error("tls_key", key, "has a passphrase, which nobody is here to type: give one without") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise _error("tls_key", key, f"does not belong to the certificate {cert}") from None
        if error.reason in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):
            raise _error("tls_cert", cert, "is too weak for browsers of today") from None
        raise _error("tls_key", key, "holds no private key in PEM form") from None


def _no_passphrase() -> str:
    raise PermissionError


def _error(field: str, path: Path, reason: str) -> RequestError:
    return RequestError(f"--{field.replace('_', '-')} {path} {reason}", field=field)
