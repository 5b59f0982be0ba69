"""A whole cluster on one machine: what `modelyard up` runs, and how others on the machine find it."""
