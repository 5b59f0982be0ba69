"""The Open Inference Protocol as the pod speaks it: reads requests, writes answers, knows the extensions."""
