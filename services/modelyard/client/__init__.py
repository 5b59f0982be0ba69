"""The Python client: thin, typed, blocking. Everything it does is one or a few RPCs that any language can make."""

from modelyard.core.errors import FieldViolation, RemoteError

from .client import Client
from .predictions import Prediction

__all__ = ["Client", "FieldViolation", "Prediction", "RemoteError"]
