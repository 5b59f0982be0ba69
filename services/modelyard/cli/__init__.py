"""The `modelyard` command: everything a person or a script does with a cluster, built on the Python client."""
