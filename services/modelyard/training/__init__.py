"""What gateway and workers both need to know about a training spec: checks, defaults, shapes, digest, recipes.

Nothing in here needs torch.
"""

from .digest import canonical_json, spec_digest
from .layers import PlannedLayer, Shape
from .metrics import METRICS
from .network import NetworkPlan
from .validation import CheckedSpec, check_spec

__all__ = [
    "METRICS",
    "CheckedSpec",
    "NetworkPlan",
    "PlannedLayer",
    "Shape",
    "canonical_json",
    "check_spec",
    "spec_digest",
]
