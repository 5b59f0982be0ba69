"""HTTP/2 without a thread: a server in C, upon nghttp2, that an event loop lets have its turns.

Pods take calls by it (`modelyard.inference.lane.http2_server`), the door sends predictions on (`modelyard.door.front`).
"""
