"""The registry: models, versions, aliases, datasets and the blobs under them. Tells inference pods what to serve."""
