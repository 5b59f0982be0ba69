"""Envoy, which is the door and hosts the pods: its configuration's common parts and its life as a process."""
