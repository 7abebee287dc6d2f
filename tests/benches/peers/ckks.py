"""TenSEAL: updates encrypted under CKKS, which a server adds without a key.

Each site multiplies its update by its share before it encrypts, so that the
server only adds. What sites do, and who decrypts the sum, is not counted. Only
a part of the update is encrypted; time and memory are scaled, which is exact in
that every ciphertext is treated alike.
"""

from pathlib import Path

import numpy as np
import tenseal

import updates
from peer import Peer

# 128 bits of security with room for additions (SEAL's own table for this degree
# allows moduli of up to 218 bits).
DEGREE = 8192
MODULI = [60, 40, 40]
SCALE = 2.0**40
SLOTS = DEGREE // 2
MOST_VALUES = 1_000_000


def prepare(rule: str, inputs: Path) -> Peer:
    if rule != "mean":
        raise SystemExit(f"addition of ciphertexts gives the rule mean, not {rule}")
    secret = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=DEGREE, coeff_mod_bit_sizes=MODULI
    )
    secret.global_scale = SCALE
    public = tenseal.context_from(secret.serialize(save_secret_key=False))

    def encrypt(site: int) -> list[bytes]:
        values = np.fromfile(updates.path(inputs, site), "<f4", MOST_VALUES)
        scaled = values.astype(np.float64) * updates.shares()[site]
        parts = range(0, scaled.size, SLOTS)
        return [tenseal.ckks_vector(secret, scaled[i : i + SLOTS]).serialize() for i in parts]

    received = [encrypt(site) for site in range(updates.SITES)]
    parameters = updates.path(inputs, 0).stat().st_size // 4

    def aggregate() -> list:
        total = [tenseal.ckks_vector_from(public, data) for data in received[0]]
        for site in received[1:]:
            for place, data in enumerate(site):
                total[place] += tenseal.ckks_vector_from(public, data)
        return total

    def opened(total: list) -> list[np.ndarray]:
        key = secret.secret_key()
        return [np.array(vector.decrypt(key)) for vector in total]

    return Peer(
        aggregate=aggregate,
        opened=opened,
        received=sum(len(data) for site in received for data in site),
        scale=parameters / min(parameters, MOST_VALUES),
    )
