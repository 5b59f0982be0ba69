"""The door: one port for all clients. Writes an Envoy configuration from the settings and looks after Envoy's life."""
