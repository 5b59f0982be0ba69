"""Two real data sets that come inside scikit-learn, written the way a user would have them.

`python demo/demo_data.py FOLDER` writes both, to try things out with.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_digits


@dataclass(frozen=True)
class Table:
    """A file, and its rows to look predictions up beside the truth."""

    path: Path
    rows: NDArray[np.float32]
    """Inputs as a client sends them, raw: `[rows, …]`."""
    truth: NDArray[np.float64]
    """`[rows]`."""


def write_diabetes(folder: Path) -> Table:
    """442 patients, ten measurements in their own units, disease progression after a year. A CSV file."""
    data = load_diabetes(scaled=False)
    path = folder / "diabetes.csv"
    header = ",".join([*data.feature_names, "target"])
    np.savetxt(path, np.column_stack([data.data, data.target]), delimiter=",", header=header, comments="", fmt="%.10g")
    return Table(path, data.data.astype(np.float32), data.target)


def write_digits(folder: Path) -> Table:
    """1797 grey images of 8 by 8 pixels, values 0 to 16, and the digit on each. A NumPy archive."""
    data = load_digits()
    path = folder / "digits.npz"
    images = data.images.astype(np.float32)
    np.savez_compressed(path, image=images, digit=data.target.astype(np.int64))
    return Table(path, images, data.target)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    print(write_diabetes(folder).path, write_digits(folder).path, sep="\n")
