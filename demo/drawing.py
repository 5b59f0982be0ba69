"""Tables and pictures for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from foreign_client import Answer
from numpy.typing import NDArray
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

_SHADES = " ░▒▓█"


def truth_table(predictions: Sequence[float], truth: NDArray[np.float64]) -> Table:
    """Predictions beside the truth."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column("  patient", justify="right")
    table.add_column("predicted", justify="right")
    table.add_column("measured", justify="right")
    for number, (predicted, measured) in enumerate(zip(predictions, truth, strict=True), 1):
        table.add_row(str(number), f"{predicted:.1f}", f"{measured:.1f}")
    return table


def provenance_lines(answer: Answer) -> str:
    """Where the numbers came from, as the pod says."""
    names = ("version", "training_job", "dataset", "dataset_digest", "digest")
    known = answer.parameters | {"version": answer.version}
    return "\n".join(f"  [dim]{name:<15}[/] {known[name]}" for name in names if name in known)


def draw_digit(image: NDArray[np.float32], logits: NDArray[np.float64], truth: int) -> Columns:
    """The image in characters, and a bar for each class's probability."""
    levels = np.clip(image / 16 * len(_SHADES), 0, len(_SHADES) - 1).astype(int)
    picture = Text("\n".join("    " + "".join(_SHADES[level] * 2 for level in row) for row in levels))
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    bars = Table(box=None, padding=(0, 1), show_header=False)
    for digit, probability in enumerate(probabilities):
        style = "bold green" if digit == probabilities.argmax() else "dim"
        bars.add_row(f"{digit}", "█" * round(20 * probability), f"{probability:.3f}", style=style)
    verdict = Text(f"\n  predicted {probabilities.argmax()}, truth {truth}", style="bold")
    return Columns([picture, bars, verdict])
