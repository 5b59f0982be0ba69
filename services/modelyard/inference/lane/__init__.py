"""The express lane: the pod as an Envoy process that hosts Python, in which ModelInfer needs no gRPC library.

`express` is what happens to a prediction, `hosted` what runs inside Envoy, `program` the process around it.
"""
