"""Load on a server, and the check that what it answers is right."""

from .target import Load, Measured, Target
from .verification import Answer, WrongAnswer, sample_request, verify

__all__ = ["Answer", "Load", "Measured", "Target", "WrongAnswer", "sample_request", "verify"]
