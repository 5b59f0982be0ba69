"""Reads content that somebody uploaded: tables (CSV, Parquet, NPZ) and ONNX graphs.

Uploaded bytes are hostile until they are read. So they are read in a process of its own with bounded memory and time
(`sandbox`, the only module here that the service imports); what it finds comes back as JSON (`messages`).
"""
