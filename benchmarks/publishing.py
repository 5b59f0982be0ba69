"""Puts a run's table of bars into benchmarks/README.md, between two markers."""

from __future__ import annotations

from pathlib import Path

from . import report, workshop
from .results import Results

README = workshop.REPOSITORY / "benchmarks/README.md"
BEGIN, END = "<!-- begin of the latest measurements -->", "<!-- end of the latest measurements -->"


def publish(results: Results, readme: Path = README) -> None:
    """Replaces what stands between the markers. Raises ValueError if they are not there."""
    folder = results.folder.resolve()
    if not folder.is_relative_to(readme.parent.resolve()):
        raise ValueError(f"{folder} is not below {readme.parent}: what is published must be in the repository")
    place = folder.relative_to(readme.parent.resolve()).as_posix()
    machine = results.machine
    introduction = (
        f"Measured {machine['time'][:10]} at commit {machine['commit']} on {machine['cores']} shared cores "
        f"({machine['processor']}): [the report]({place}/{report.REPORT})."
    )
    before, begin, rest = readme.read_text().partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme} lacks the markers {BEGIN} and {END}")
    table = report.bars_table(results)
    chart = f"![rates and times]({place}/{report.CHART})"
    readme.write_text(f"{before}{BEGIN}\n\n{introduction}\n\n{table}\n\n{chart}\n\n{END}{after}")
