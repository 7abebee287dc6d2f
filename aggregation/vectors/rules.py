"""Writes rules.json: updates, and what each robust rule makes of them.

Made with Python 3.11, numpy 2.4.6 and flwr 1.42.0:

    python -m venv venv
    venv/bin/pip install numpy==2.4.6 flwr==1.42.0
    venv/bin/python rules.py > rules.json

Median, trimmed mean, Krum, multi-Krum and Bulyan are computed by Flower's own
code, so that two independent programs agree. Geometric median and centred
clipping are written here as their papers have them, on the updates themselves
and in float64; sealfold computes them from inner products.
"""

import json

import numpy as np
from flwr.server.strategy.aggregate import (
    aggregate_bulyan,
    aggregate_krum,
    aggregate_median,
    aggregate_trimmed_avg,
)

VALUES = 40


def geometric_median(updates, shares, smoothing, steps):
    """Pillutla et al. 2022, algorithm 2, from a mean by share and reach."""

    def weighted(distances):
        pulls = shares / np.maximum(smoothing, distances)
        return pulls @ updates / pulls.sum()

    def reach(update):
        distances = np.linalg.norm(updates - update, axis=1)
        # The least radius of a ball that holds more than half of all shares.
        return min(d for d in distances if shares[distances <= d].sum() > shares.sum() / 2)

    point = weighted(np.array([reach(update) for update in updates]))
    for _ in range(steps):
        point = weighted(np.linalg.norm(updates - point, axis=1))
    return point


def centred_clipping(updates, shares, radius, steps):
    """Karimireddy et al. 2021, equation CC, from 0, shares for 1/n."""
    guess = np.zeros(updates.shape[1])
    for _ in range(steps):
        away = updates - guess
        lengths = np.maximum(np.linalg.norm(away, axis=1), 1e-300)
        scales = shares * np.minimum(1, radius / lengths)
        guess = guess + scales @ away
    return guess


def rules(updates, shares, byzantine):
    """Every rule's name, parameters and aggregate."""
    sites = len(updates)

    def flower():
        return [([update], 1) for update in updates]

    trimmed = aggregate_trimmed_avg(flower(), (byzantine + 0.5) / sites)
    multi = aggregate_krum(flower(), byzantine, sites - byzantine - 2)
    bulyan = aggregate_bulyan(flower(), byzantine, aggregate_krum, to_keep=0)
    yield "median", {}, aggregate_median(flower())[0]
    yield "trimmed-mean", {"trim": byzantine}, trimmed[0]
    yield "krum", {"byzantine": byzantine}, aggregate_krum(flower(), byzantine, 0)[0]
    yield "multi-krum", {"byzantine": byzantine, "selected": sites - byzantine - 2}, multi[0]
    yield "bulyan", {"byzantine": byzantine}, bulyan[0]
    for steps in (1, 3, 100):
        yield (
            "geometric-median",
            {"smoothing": 1e-6, "steps": steps},
            geometric_median(updates, shares, 1e-6, steps),
        )
    for radius, steps in ((2.0, 1), (5.0, 4)):
        yield (
            "centred-clipping",
            {"radius": radius, "steps": steps},
            centred_clipping(updates, shares, radius, steps),
        )


def case(seed, byzantine, hostile):
    """Updates around one direction, the last ones made hostile."""
    sites = 4 * byzantine + 3
    random = np.random.Generator(np.random.PCG64(seed))
    updates = random.normal(size=VALUES) + 0.5 * random.normal(size=(sites, VALUES))
    updates[sites - byzantine :] = hostile(updates[sites - byzantine :], random)
    # What a site sends is binary32; the order of the sites means nothing.
    updates = random.permutation(updates).astype(np.float32)
    shares = random.uniform(1, 3, size=sites)
    shares /= shares.sum()
    wide = updates.astype(np.float64)
    return {
        "updates": [update.astype("<f4").tobytes().hex() for update in updates],
        "shares": shares.tolist(),
        "rules": [
            {"rule": name, **parameters, "aggregate": aggregate.tolist()}
            for name, parameters, aggregate in rules(wide, shares, byzantine)
        ],
    }


CASES = [
    case(1, 1, lambda updates, random: -updates),
    case(2, 2, lambda updates, random: 1000 * updates),
    case(3, 3, lambda updates, random: 1e30 * random.normal(size=updates.shape)),
    case(4, 0, lambda updates, random: updates),
]

if __name__ == "__main__":
    print(json.dumps(CASES, indent=1))
