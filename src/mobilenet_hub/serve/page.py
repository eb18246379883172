"""The page at /: one file, put together from its parts; it asks this server alone, and its policy holds it to that."""

import base64
import hashlib
import json
from pathlib import Path

from mobilenet_hub.images.names import SUFFIXES
from mobilenet_hub.serve.limits import Answer
from mobilenet_hub.serve.state import Call, State

_PARTS = Path(__file__).parent / "page"
_SCRIPTS = ("classify.js", "teach.js")


class Page:
    """The page, as `GET /` answers it."""

    def __init__(self, state: State, *, similar: bool, teach: bool):
        """Read the parts.

        Args:
            state: what is served, listed anew for each request.
            similar: whether there is an index of photos.
            teach: whether the page may teach.
        """
        self._state, self._similar, self._teach = state, similar, teach
        text = (_PARTS / "index.html").read_text(encoding="utf-8")
        style = (_PARTS / "style.css").read_text(encoding="utf-8")
        script = "\n".join((_PARTS / name).read_text(encoding="utf-8") for name in _SCRIPTS)
        self._text = text.replace("{{style}}", style).replace("{{script}}", script)
        self._policy = "; ".join(
            [
                "default-src 'none'",
                f"script-src {_digest(script)}",
                f"style-src {_digest(style)}",
                "img-src blob: data:",
                "media-src blob:",
                "connect-src 'self'",
                "form-action 'none'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ]
        )

    async def __call__(self, call: Call) -> Answer:
        """Answer GET /."""
        modules = [
            {"name": served.name, "classifier": served.classifier is not None}
            for served in self._state.modules.by_name.values()
        ]
        about = json.dumps(
            {"modules": modules, "similar": self._similar, "teach": self._teach, "suffixes": sorted(SUFFIXES)}
        )
        body = self._text.replace("{{server}}", about.replace("<", "\\u003c"))
        headers = {
            "Content-Security-Policy": self._policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
        }
        return Answer(body.encode(), content_type="text/html; charset=utf-8", headers=headers)


def _digest(text: str) -> str:
    """Return how a policy allows exactly this script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
