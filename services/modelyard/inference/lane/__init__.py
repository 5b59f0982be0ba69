"""The fast lanes: ModelInfer reaches Python as bytes, many calls at a time, and needs no gRPC library.

`express` is what happens to a prediction on both. On the direct lane (`direct`) it comes by the pod's own
`http2_server`. On the express lane it comes by a `crossing` from an Envoy that hosts Python: `hosted` is what runs
inside Envoy, `program` the process around it. `arrivals` is what the two ways in have in common.
"""
