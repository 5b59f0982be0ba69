"""The inference pod: serves what the registry says should be served, over the Open Inference Protocol."""
