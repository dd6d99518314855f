"""Writes a dict of numpy arrays in the safetensors format: header length, JSON header, raw little-endian values."""

import json

import numpy as np

DTYPES = {"float64": "F64", "float32": "F32", "int64": "I64"}


def write(path, tensors, metadata):
    header, blobs, end = {"__metadata__": {k: str(v) for k, v in metadata.items()}}, [], 0
    for name, array in tensors.items():
        array = np.asarray(array)  # ascontiguousarray would turn a scalar into a vector
        start, end = end, end + array.nbytes
        header[name] = {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape), "data_offsets": [start, end]}
        blobs.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))
    print(f"{path}: {len(tensors)} tensors, {8 + len(text) + end} bytes")
