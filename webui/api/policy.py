"""What the browser may do on our pages: scripts of this server alone, nothing from elsewhere, no frame of others.

Gradio 6.31 makes functions of texts (each ``js=`` of an event), which takes ``unsafe-eval``, and styles elements in
place, which takes ``unsafe-inline`` for styles. Its page has inline scripts, which carry a nonce of each answer, and it
runs ours out of its configuration, which are known by their hashes.
"""

import base64
import hashlib
from collections.abc import Iterable

FILES = "; ".join(
    (
        *("default-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:"),
        *("font-src 'self' data:", "media-src 'self' data: blob:", "connect-src 'self' data: blob:"),
        *("worker-src 'self' blob:", "object-src 'none'", "base-uri 'self'", "form-action 'self'"),
        *("frame-src 'none'", "frame-ancestors 'self'"),
    )
)


class Policy:
    """The Content-Security-Policy of a server whose own inline scripts are ``scripts``."""

    def __init__(self, scripts: Iterable[str] = ()) -> None:
        self._hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)

    def header(self, content_type: str, nonce: str) -> str:
        """That of one answer; ``nonce`` is what the inline scripts of a page carry. Only pages have any."""
        if not content_type.startswith("text/html"):
            return FILES
        return f"script-src 'self' 'unsafe-eval' 'nonce-{nonce}' {self._hashes}; {FILES}"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
