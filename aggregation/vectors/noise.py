"""Writes noise.json: the noise's tables and samples, computed a second time.

Nothing is shared with the Rust code: ChaCha20 from RFC 8439, exponentials from
mpmath with 400 bits, and every decision on exact numbers.

    pip install mpmath==1.3.0 && python noise.py > noise.json
"""

import json
import struct
import sys

from mpmath import chebyfit, exp, floor, ln, mp, mpf, nint

mp.prec = 400
# (degree, numerator, denominator): P(z) ~ exp(-|z|^degree * numerator / denominator)


def gaussian(sigma):
    return 2, mpf(1), 2 * mpf(sigma) ** 2


def laplace(sensitivity, epsilon):
    return 1, mpf(epsilon), mpf(sensitivity)


def density(law, z):
    degree, numerator, denominator = law
    return exp(-(mpf(z) ** degree) * numerator / denominator)


def shift(law):
    """Steps: a Gaussian is 2 to 4 of them wide, a Laplace 1 to 2."""
    degree, numerator, denominator = law
    width = denominator / numerator if degree == 1 else (denominator / numerator / 2) ** mpf("0.5")
    bits = int(floor(width)).bit_length()
    return max(bits - degree, 0)


def thresholds(law):
    weights = []
    while (weight := density(law, len(weights) << shift(law))) >= mpf(2) ** -132:
        weights.append(weight)
    total = sum(weights)
    return [int(floor(sum(weights[:m]) / total * 2**128)) for m in range(1, len(weights))]


def keystream(key, nonce, blocks):
    def quarter(s, a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) % 2**32
            s[z] = ((s[z] ^ s[x]) << n | (s[z] ^ s[x]) >> (32 - n)) % 2**32

    out = b""
    for counter in range(blocks):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
        start += [*struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
        s = list(start)
        for _ in range(10):
            for i in range(4):
                quarter(s, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        out += struct.pack("<16I", *((a + b) % 2**32 for a, b in zip(s, start)))
    return out


def samples(law, key, label, row):
    """The samples of the first two batches of 256 candidates."""
    nonce = struct.pack("<IQ", label, row)
    stream = keystream(key, nonce, 128)
    table, low_bits, kept = thresholds(law), shift(law), []
    for batch in range(2):
        words = struct.unpack_from("<512Q", stream, 4096 * batch)
        for first, second in zip(words[:256], words[256:]):
            step = sum(first >= t >> 64 for t in table)
            assert all(first != t >> 64 for t in table), "a tie: take another seed"
            low = second % 2**low_bits
            magnitude = (step << low_bits) + low
            survival = density(law, magnitude) / density(law, step << low_bits) * 2**24
            uniform = second >> 39 & (2**24 - 1)
            assert not uniform < survival < uniform + 1, "undecided: take another seed"
            if uniform < survival and not (second >> 63 and magnitude == 0):
                kept.append(-magnitude if second >> 63 else magnitude)
    return kept


def power_of_two():
    """2^s on [0, 1]: degree 6, coefficients in 2^-31, and the largest error."""
    coefficients = [int(nint(c * 2**31)) for c in chebyfit(lambda s: mpf(2) ** s, [0, 1], 7)]
    error = 0
    for i in range(4097):
        s, value = mpf(i) / 4096, mpf(0)
        for c in coefficients:
            value = value * s + mpf(c) / 2**31
        error = max(error, abs(value - mpf(2) ** s))
    return {"coefficients": coefficients, "log2_error": float(ln(error) / ln(2))}


GAUSSIANS = (0.25, 0.3, 1.0, 3.99, 4.0, 10.0, 1000.1, 3e4, 400000.0, 1e6, 1e9, 2.0**40)
LAPLACES = ((1, 64.0), (1, 1.0), (3, 0.1), (1000, 0.125), (1, 2.0**-39))


def main():
    key, label, row = bytes(range(32)), 1, 2**32 + 5
    laws = [{"sigma": s, "law": gaussian(s)} for s in GAUSSIANS]
    laws += [{"sensitivity": s, "epsilon": e, "law": laplace(s, e)} for s, e in LAPLACES]
    for entry in laws:
        law = entry.pop("law")
        entry["shift"] = shift(law)
        entry["thresholds"] = [f"{t:032x}" for t in thresholds(law)]
        entry["samples"] = samples(law, key, label, row)[:200]
    out = {
        "seed": key.hex(),
        "label": label,
        "row": row,
        "power_of_two": power_of_two(),
        "laws": laws,
    }
    json.dump(out, sys.stdout, separators=(",", ":"))
    print()


main()
