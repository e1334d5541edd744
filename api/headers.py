"""Header fields of every answer: what a browser may do with it, and nothing of the server."""

from __future__ import annotations

from flask import Flask, Response

#: For pages, which are files of the installed package: scripts and styles of this service alone, no frame around them.
_PAGE_POLICY = "; ".join(
    [
        "default-src 'self'", "img-src 'self' data:", "style-src 'self' 'unsafe-inline'", "worker-src 'self' blob:",
        "object-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]
)  # fmt: skip
#: Anything else is data: a browser that shows it shall run nothing in it.
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_FIELDS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # What one caller may see is kept in no cache but his own, and not believed without asking.
    "Cache-Control": "private, no-cache",
    # The server would put its name there.
    "Server": "",
}


def install(app: Flask) -> None:
    """Add the fields to every answer that does not set them itself."""

    @app.after_request
    def add_fields(response: Response) -> Response:
        headers = response.headers
        for name, value in _FIELDS.items():
            headers.setdefault(name, value)
        headers.setdefault(
            "Content-Security-Policy", _PAGE_POLICY if response.mimetype == "text/html" else _DATA_POLICY
        )
        return response
