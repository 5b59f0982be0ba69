"""What the documentation says of the metrics, to be held against what is told."""

from __future__ import annotations

import re
from pathlib import Path

from .scraping import Scrape

ROOT = Path(__file__).parent.parent.parent
_ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)
_OF_THE_LIBRARY = ("process_", "python_")


def documented() -> dict[str, str]:
    """Every metric of docs/observability.md with its type."""
    return dict(_ROW.findall((ROOT / "docs/observability.md").read_text()))


def types_told(scrape: Scrape) -> dict[str, str]:
    """Every metric of an exposition with its type, without those of the client library itself."""
    types = dict(line.split()[2:] for line in scrape.text.splitlines() if line.startswith("# TYPE "))
    return {name: kind for name, kind in types.items() if not name.startswith(_OF_THE_LIBRARY)}
