"""The one error of this package."""

from __future__ import annotations


class TensorError(ValueError):
    """A tensor that is not what it says it is. The message says what was expected and what came, for the caller."""
