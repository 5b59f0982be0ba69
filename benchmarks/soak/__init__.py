"""Millions of requests, a part of them cancelled or expired: is every other one answered right, and memory flat?"""

from .run import SoakPlan, soak, soak_report
from .verdict import Outcome, problems_in_log

__all__ = ["Outcome", "SoakPlan", "problems_in_log", "soak", "soak_report"]
