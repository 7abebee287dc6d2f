"""Computes the folds of fold.json again, from the sites' bytes on.

It shares no code with the library, and needs nothing but Python:

    python fold.py

Python's integers are exact, and its floats are binary64 with the same rounding.
"""

import json
import math
import pathlib
import struct


def binary64(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]


def bits(value):
    return struct.pack(">d", value).hex()


def binary32s(values):
    """Little-endian and in hex; packing rounds to nearest, ties to even."""
    return struct.pack(f"<{len(values)}f", *values).hex()


def from_binary32s(text):
    return struct.unpack(f"<{len(text) // 8}f", bytes.fromhex(text))


def integers(text, width):
    sent = bytes.fromhex(text)
    places = range(0, len(sent), width)
    return [int.from_bytes(sent[at : at + width], "little", signed=True) for at in places]


def fold(of):
    """Checks one fold, number by number."""
    width = int(of["format"].removeprefix("int")) // 8
    total, bound = sum(site["weight"] for site in of["sites"]), 1 << (8 * width - 1)
    sums = [0] * len(of["sums"])
    for site in of["sites"]:
        values = integers(site["sent"], width)
        assert values == site["integers"]
        squares = sum(value * value for value in values)
        norm = math.sqrt(squares)
        assert (str(squares), bits(norm)) == (site["sum_of_squares"], site["norm"])
        if of["clip"] is None:
            assert site["factor"] is None
        else:
            clip = binary64(of["clip"]) / binary64(of["step"])
            factor = 1.0 if norm <= clip else clip / norm
            assert bits(factor) == site["factor"]
            # Python's round takes ties to even.
            values = [round(factor * value) for value in values]
        sums = [sum + site["weight"] * value for sum, value in zip(sums, values)]
    words = 32 if total * bound < 1 << 31 else 64
    assert total * bound <= 1 << 62 and words == of["words"]
    assert sums == of["sums"]
    written = [sum.to_bytes(words // 8, "little", signed=True) for sum in sums]
    assert b"".join(written).hex() == of["written"]
    scale = binary64(of["step"]) / total
    assert bits(scale) == of["scale"]
    assert binary32s([float(sum) * scale for sum in sums]) == of["aggregate"]
    rate, deltas = binary64(of["learning_rate"]), from_binary32s(of["aggregate"])
    stepped = [x + rate * delta for x, delta in zip(from_binary32s(of["base"]), deltas)]
    assert binary32s(stepped) == of["next"]


def norm(of):
    times = {"int8": 1, "int16": 262, "int32": 17_000_000}[of["format"]]
    squares = sum((times * (31 * i % 251 - 125)) ** 2 for i in range(of["count"]))
    assert (str(squares), bits(math.sqrt(squares))) == (of["sum_of_squares"], of["norm"])


if __name__ == "__main__":
    vectors = json.loads(pathlib.Path(__file__).with_name("fold.json").read_text())
    for each in vectors["folds"]:
        fold(each)
    for each in vectors["norms"]:
        norm(each)
    print(f"{len(vectors['folds'])} folds and {len(vectors['norms'])} norms agree")
