"""Modelyard: submit a training job over gRPC, have its ONNX result served by every pod seconds later.

```python
import modelyard

with modelyard.Client() as client:
    client.datasets.upload("diabetes.csv")
    job = client.training.submit(spec)
    client.training.wait(job.name)
    client.predict("diabetes", {"input": rows})
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.client import Client as Client
    from modelyard.client import Prediction as Prediction
    from modelyard.client import RemoteError as RemoteError

__version__ = "0.1.0"
__all__ = ["Client", "Prediction", "RemoteError"]


def __getattr__(name: str) -> Any:
    # The services import this package too; they must not pay for the client.
    if name in __all__:
        return getattr(importlib.import_module("modelyard.client"), name)
    raise AttributeError(f"module 'modelyard' has no attribute {name!r}")
