"""Shows an explanation in a browser: one page that needs nothing else, and a short form for notebooks.

render(Inheritance) -> page: tree, picture of sizes, search, what is left behind
render_inline(Inheritance) -> nested <details>, without scripts
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from bequest.explain.nodes import Inheritance, Node
from bequest.explain.text import duration, size, summary

_TEMPLATE = Path(__file__).with_name("page.html")
_OPEN_SHARE = 0.25  # of the whole; larger nodes are open when a notebook shows them


def render(explained: Inheritance, title: str = "") -> str:
    """Return the page, with `title` (by default, what was explained) as its heading."""
    title = title or _title(explained)
    data = json.dumps(_data(explained.root), separators=(",", ":")).replace("<", "\\u003c")
    page = _TEMPLATE.read_text(encoding="utf-8")
    fields = {"TITLE": html.escape(title), "SUMMARY": html.escape(summary(explained)), "DATA": data}
    for name, value in fields.items():  # the data last: they may contain anything
        page = page.replace(f"@{name}@", value)
    return page


def _title(explained: Inheritance) -> str:
    for node in explained.walk():
        if node.label.startswith("target"):
            return node.path
    return explained.root.children[0].label if explained.root.children else explained.method


def _data(node: Node) -> dict[str, Any]:
    """Return a node as the page's script reads it; what is empty is left out."""
    found: dict[str, Any] = {
        "n": node.number,
        "l": node.label,
        "p": node.path,
        "t": node.type,
        "c": node.crosses,
        "o": node.own_bytes,
        "b": node.total_bytes,
        "h": node.beside_bytes,
        "u": round(node.own_us, 1),
        "v": round(node.total_us, 1),
        "d": node.detail,
        "f": node.folded,
        "r": node.read_at,
        "s": node.same_as,
        "w": node.reason,
        "m": node.remedy,
        "x": node.is_refused,
        "g": [f"{r.scope} {r.name}: {r.file}:{r.line}" for r in node.reads],
        "k": [_data(child) for child in node.children],
    }
    return {key: value for key, value in found.items() if value or key in ("n", "l", "b")}


def render_inline(explained: Inheritance) -> str:
    """Return what a notebook shows."""
    head = f"<div style='font-family:monospace'><b>{html.escape(summary(explained))}</b>"
    return head + _details(explained.root, explained.total_bytes) + "</div>"


def _details(node: Node, whole: int) -> str:
    color = "#b00" if node.crosses == "left behind" else "#06c"
    line = (
        f"<b>{html.escape(node.label)}</b> <span style='opacity:.6'>{html.escape(node.type)}</span> "
        f"<span style='color:{color}'>{node.crosses}</span> {size(node.total_bytes)} "
        f"<span style='opacity:.6'>{duration(node.total_us)} {html.escape(node.detail)}</span>"
    )
    if node.reason:
        line += f" <span style='color:#b00'>{html.escape(node.reason)}. {html.escape(node.remedy)}.</span>"
    if not node.children:
        return f"<div style='margin-left:1.5em'>{line}</div>"
    opened = " open" if node.total_bytes >= whole * _OPEN_SHARE else ""
    inner = "".join(_details(c, whole) for c in sorted(node.children, key=lambda child: -child.total_bytes))
    return f"<details style='margin-left:1em'{opened}><summary>{line}</summary>{inner}</details>"
