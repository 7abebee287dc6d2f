#!/usr/bin/env python3
"""Writes optimisers.json: server optimisers, computed with numpy.

    python optimisers.py            # needs numpy
    python optimisers.py --flower   # also compares with Flower (pip install flwr)

Written from the papers, not from the Rust code: FedAvgM (Hsu, Qi and Brown,
2019, arXiv:1909.06335) and Algorithm 2 of Reddi et al. (2021,
arXiv:2003.00295). All operations are IEEE 754 binary64, state and model are
rounded to binary32, so the Rust code must give the same bytes.

Flower computes in another precision and order, starts v at 0 and corrects the
bias of FedAdam; with v started at tau^2 and the correction divided out it must
agree to a relative 1e-6.
"""

import json
import pathlib
import struct
import sys

import numpy as np

VALUES, ROUNDS = 48, 6
CASES = [
    ("fed-avg", dict(learning_rate=0.7)),
    ("fed-avg-m", dict(learning_rate=0.3, momentum=0.9)),
    ("fed-adagrad", dict(learning_rate=0.1, beta1=0.0, beta2=0.0, tau=1e-3)),
    ("fed-yogi", dict(learning_rate=0.01, beta1=0.9, beta2=0.99, tau=1e-3)),
    ("fed-adam", dict(learning_rate=0.01, beta1=0.9, beta2=0.99, tau=1e-3)),
    # A tau that matters, and moments that forget quickly.
    ("fed-yogi", dict(learning_rate=1.0, beta1=0.5, beta2=0.3, tau=0.1)),
    ("fed-adam", dict(learning_rate=1.0, beta1=0.0, beta2=0.3, tau=0.1)),
]


def aggregates():
    """Float32 updates of several sizes, some of them 0 and some subnormal."""
    random = np.random.default_rng(20210503)
    scale = 10.0 ** random.integers(-6, 1, VALUES)
    deltas = random.normal(0.0, 1.0, (ROUNDS, VALUES)) * scale
    deltas[:, 0], deltas[:, 1] = 0.0, 1e-40
    return random.normal(0.0, 1.0, VALUES).astype(np.float32), deltas.astype(np.float32)


def float32(values):
    return values.astype(np.float32).astype(np.float64)


def run(kind, p, base, deltas):
    """The model and the state after each round."""
    x = base.astype(np.float64)
    m = np.zeros(VALUES)
    v = float32(np.full(VALUES, np.float64(p.get("tau", 0.0)) ** 2))
    after = []
    for delta in deltas.astype(np.float64):
        if kind == "fed-avg":
            step, state = p["learning_rate"] * delta, np.zeros((VALUES, 0))
        elif kind == "fed-avg-m":
            m = float32(p["momentum"] * m + delta)
            step, state = p["learning_rate"] * m, m[:, None]
        else:
            m = float32(p["beta1"] * m + (1.0 - p["beta1"]) * delta)
            square = delta * delta
            if kind == "fed-adagrad":
                v = float32(v + square)
            elif kind == "fed-yogi":
                v = float32(v - ((1.0 - p["beta2"]) * square) * np.sign(v - square))
            else:
                v = float32(p["beta2"] * v + (1.0 - p["beta2"]) * square)
            step = (p["learning_rate"] * m) / (np.sqrt(v) + p["tau"])
            state = np.stack([m, v], axis=1)
        x = float32(x + step)
        after.append((x, state))
    return after


def flower(kind, p, base, deltas):
    """The model after each round as Flower has it, in binary64."""
    from flwr.common import Code, FitRes, Status
    from flwr.common import ndarrays_to_parameters as pack
    from flwr.common import parameters_to_ndarrays as unpack
    from flwr.server import strategy as s

    x = base.astype(np.float64)
    if kind in ("fed-avg", "fed-avg-m"):
        strategy = s.FedAvgM(
            initial_parameters=pack([x]),
            server_learning_rate=p["learning_rate"],
            server_momentum=p.get("momentum", 0.0),
        )
    else:
        which = {"fed-adagrad": s.FedAdagrad, "fed-yogi": s.FedYogi, "fed-adam": s.FedAdam}[kind]
        strategy = which(initial_parameters=pack([x]), eta=p["learning_rate"], tau=p["tau"])
        strategy.beta_1, strategy.beta_2 = p["beta1"], p["beta2"]
        strategy.v_t = [np.full(VALUES, p["tau"] ** 2)]
    models = []
    for number, delta in enumerate(deltas, 1):
        if kind == "fed-adam":
            correction = np.sqrt(1 - p["beta2"] ** (number + 1)) / (1 - p["beta1"] ** (number + 1))
            strategy.eta = p["learning_rate"] / correction
        result = FitRes(Status(Code.OK, ""), pack([x + delta]), 1, {})
        x = unpack(strategy.aggregate_fit(number, [(None, result)], [])[0])[0]
        models.append(x)
    return models


def bits(value):
    return struct.pack(">d", value).hex()


def hexes(values):
    return values.astype("<f4").tobytes().hex()


def main():
    base, deltas = aggregates()
    cases = []
    for kind, p in CASES:
        after = run(kind, p, base, deltas)
        if "--flower" in sys.argv:
            theirs = flower(kind, p, base, deltas)
            worst = max(np.max(np.abs(a[0] - b) / (np.abs(b) + 1e-3)) for a, b in zip(after, theirs))
            print(f"{kind:12} {p}: Flower differs by a relative {worst:.1e}")
            assert worst < 1e-6
        rounds = [
            {"aggregate": hexes(d), "next": hexes(x), "state": hexes(s)}
            for d, (x, s) in zip(deltas, after)
        ]
        parameters = {name: bits(value) for name, value in p.items()}
        cases.append({"optimiser": kind, **parameters, "base": hexes(base), "rounds": rounds})
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(cases, indent=1) + "\n")


main()
