"""A conformance suite for the Open Inference Protocol (version 2, gRPC) as Triton speaks it, against any server.

* `registry`: what a check is; `checks`: the checks themselves, one module for each section.
* `probe`: what a check holds to talk to the server: calls as bytes, answers with code, text and payload.
* `run`: runs checks; `report`: what came out, for people and programs.
* `reference` and `models`: small models with known answers that a server may be given to be checked further.
* `pytest_plugin` and `suite`: the same checks under pytest.

It knows the protocol (`modelyard.oip`) and nothing of any server, ours included.
"""
