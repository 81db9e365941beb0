"""State files that no server gives out, though their checksum is right. Needs the library xxhash."""
import ctypes
import ctypes.util
import json
import struct

FOUND = ctypes.util.find_library("xxhash")


def xxh3(data, seed=0):
    function = ctypes.CDLL(FOUND).XXH3_64bits_withSeed
    function.restype, function.argtypes = ctypes.c_uint64, (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    return function(data, len(data), seed)


def remake(state, length=None, first_number=None):
    """The state after so many tokens, or with another first number in each tensor (docs/formats.md)."""
    size = struct.unpack("<Q", state[:8])[0]
    header, data = json.loads(state[8:8 + size]), bytearray(state[8 + size:])
    metadata = header["__metadata__"]
    metadata["length"] = metadata["length"] if length is None else str(length)
    total = xxh3(b"%s %s" % (metadata["length"].encode(), metadata["model"].encode()))
    for name in [name for name in header if name != "__metadata__"]:
        begin, end = header[name]["data_offsets"]
        if first_number is not None:
            data[begin:begin + 4] = struct.pack("<f", first_number)
        total = xxh3(bytes(data[begin:end]), total)
    metadata["checksum"] = "%016x" % total
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)
