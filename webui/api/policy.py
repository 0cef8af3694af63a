"""What the browser may do on our pages: scripts of this server alone, nothing from elsewhere, no frame of others.

Gradio 6.31 makes functions of texts (each ``js=`` of an event), which takes ``unsafe-eval``, and styles elements in
place, which takes ``unsafe-inline`` for styles. Its page has inline scripts, which carry a nonce of each answer; ours
are files.
"""

FILES = "; ".join(
    (
        *("default-src 'self'", "style-src 'self' 'unsafe-inline'", "img-src 'self' data: blob:"),
        *("font-src 'self' data:", "media-src 'self' data: blob:", "connect-src 'self' data: blob:"),
        *("worker-src 'self' blob:", "object-src 'none'", "base-uri 'self'", "form-action 'self'"),
        *("frame-src 'none'", "frame-ancestors 'self'"),
    )
)


def policy(content_type: str, nonce: str) -> str:
    """The Content-Security-Policy of one answer; ``nonce`` is what the inline scripts of a page carry. Only pages have
    any."""
    if not content_type.startswith("text/html"):
        return FILES
    return f"script-src 'self' 'unsafe-eval' 'nonce-{nonce}'; {FILES}"
