"""The Open Inference Protocol (version 2, gRPC, as Triton speaks it): messages, service, tensors.

* `open_inference_pb2`: the messages of `protos/inference`, from a descriptor pool of their own.
* `service`: the service's handlers for a server, stubs for a client.
* `tensors`: between messages and NumPy arrays.

Both the inference pods and the Python client build on this package; it knows neither.
"""
