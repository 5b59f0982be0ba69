"""Breaks a real cluster on purpose, by chance that can be repeated, and checks from outside that nothing was lost."""

import os

# Programs are started while calls are running: nothing of gRPC goes on in what is forked.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
