"""The door: one port for all clients.

Writes an Envoy configuration from the settings and looks after Envoy's life. On its direct lane it has the port itself
and sends predictions straight to the pods.
"""
