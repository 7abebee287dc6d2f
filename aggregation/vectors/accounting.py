#!/usr/bin/env python3
"""Writes accounting.json: figures of dp-accounting for the tests of the
accountant, so that an independent implementation checks ours.

Python 3.11, dp-accounting 0.6.0, numpy 2.4.6, scipy 1.17.1:

    python3 -m venv venv
    venv/bin/pip install dp-accounting==0.6.0 numpy==2.4.6 scipy==1.17.1
    venv/bin/python aggregation/vectors/accounting.py
"""

import json
import math
import pathlib

import dp_accounting
from dp_accounting import pld, rdp

ORDERS = rdp.rdp_privacy_accountant.DEFAULT_RDP_ORDERS
DELTAS = [1e-9, 1e-6, 1e-5, 1e-3]


def event(q, noise):
    gaussian = dp_accounting.GaussianDpEvent(noise)
    return gaussian if q == 1 else dp_accounting.PoissonSampledDpEvent(q, gaussian)


def renyi(accountant, delta):
    """Epsilon at delta, and delta at nine tenths of that epsilon."""
    epsilon = accountant.get_epsilon(delta)
    return {"delta": delta, "epsilon": epsilon, "delta_at_nine_tenths": accountant.get_delta(0.9 * epsilon)}


def gaussians():
    rates = [1e-4, 1e-3, 0.01, 0.1, 0.3, 0.7, 1]
    noises = [0.3, 0.5, 0.8, 1, 1.5, 3, 10, 50]
    settings = [(q, noise) for q in rates for noise in noises]
    for i, (q, noise) in enumerate(settings):
        one = rdp.RdpAccountant().compose(event(q, noise))
        # The moments less 1, from which the costs come. Those below 1e-10 are
        # lost in rounding here, and such a setting would compare noise.
        moments = one.rdp * (one.orders - 1)
        for j, rounds in enumerate([1, 10, 300, 5_000, 100_000]):
            delta = DELTAS[(i + j) % len(DELTAS)]
            accountant = rdp.RdpAccountant().compose(event(q, noise), rounds)
            epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
            if epsilon > 0 and moments[list(ORDERS).index(order)] > 1e-10:
                yield {"q": q, "noise_multiplier": noise, "rounds": rounds, **renyi(accountant, delta)}


def pure():
    """Randomised response with two answers, the worst of all epsilon-DP releases."""
    for epsilon in [0.01, 0.1, 1, 3]:
        for count in [1, 50, 2_000]:
            # With two buckets, p / 2 lies: (1 - p / 2) / (p / 2) = e^epsilon.
            response = dp_accounting.RandomizedResponseDpEvent(2 / (1 + math.exp(epsilon)), 2)
            accountant = rdp.RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
            accountant.compose(response, count)
            yield {"pure_epsilon": epsilon, "count": count, **renyi(accountant, 1e-6)}


def mixed():
    """Training rounds, tables and one summary with a rho, in one account."""
    for q, noise, rounds, rho, tables in [
        (0.01, 1.1, 1_000, 0.05, 0), (0.2, 2.0, 100, 0.001, 3), (1, 12.0, 50, 0.3, 0), (0.001, 0.7, 20_000, 0.01, 1),
    ]:
        accountant = rdp.RdpAccountant()
        accountant.compose(event(q, noise), rounds)
        accountant.compose(event(1, 25.0), tables) if tables else None
        accountant.compose(dp_accounting.dp_event.ZCDpEvent(rho))
        yield {"q": q, "noise_multiplier": noise, "rounds": rounds, "tables": tables,
               "table_noise_multiplier": 25.0, "rho": rho, **renyi(accountant, 1e-6)}


def losses():
    """Privacy loss distributions. The interval is fine enough for the setting
    that a finer one changes epsilon by less than a thousandth."""
    for q, noise, rounds, delta, interval in [
        (1, 1.0, 1, 1e-6, 1e-4), (1, 0.3, 1, 1e-9, 1e-4), (1, 20, 1_000, 1e-3, 1e-4), (1, 50, 1, 1e-5, 1e-5),
        (0.7, 1.0, 10, 1e-6, 1e-4), (0.7, 10, 300, 1e-5, 1e-4), (0.5, 3.0, 1_000, 1e-6, 1e-4), (0.5, 0.6, 1, 1e-5, 1e-4),
        (0.1, 1.0, 1, 1e-6, 1e-4), (0.1, 1.0, 100, 1e-6, 1e-4), (0.1, 1.0, 1_000, 1e-6, 1e-4), (0.1, 5.0, 10_000, 1e-9, 1e-5),
        (0.1, 0.5, 10, 1e-5, 1e-4), (0.01, 0.5, 1_000, 1e-6, 1e-4), (0.01, 0.8, 1_000, 1e-6, 1e-4), (0.01, 1.1, 1, 1e-6, 1e-4),
        (0.01, 1.1, 1_000, 1e-6, 1e-4), (0.01, 1.1, 10_000, 1e-5, 1e-4), (0.01, 4.0, 1_000, 1e-9, 1e-5), (0.01, 0.3, 1, 1e-5, 1e-4),
        (0.001, 0.6, 1_000, 1e-6, 1e-4), (0.001, 0.8, 10_000, 1e-6, 1e-5), (0.001, 1.0, 100_000, 1e-5, 1e-5),
        (0.001, 2.0, 1_000, 1e-6, 1e-6), (1e-4, 0.5, 1_000, 1e-6, 1e-4), (1e-4, 0.7, 100_000, 1e-6, 1e-5), (1e-4, 1.0, 10_000, 1e-6, 1e-5),
        (0.001, 1.0, 1, 1e-6, 1e-6),
    ]:
        accountant = pld.PLDAccountant(value_discretization_interval=interval)
        accountant.compose(event(q, noise), rounds)
        yield {"q": q, "noise_multiplier": noise, "rounds": rounds, "delta": delta,
               "interval": interval, "epsilon": accountant.get_epsilon(delta)}


def main():
    vectors = {
        "gaussians": list(gaussians()), "pure": list(pure()), "mixed": list(mixed()), "losses": list(losses()),
    }
    rows = ",\n".join(
        f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in rows) + "\n]" for name, rows in vectors.items()
    )
    path = pathlib.Path(__file__).with_name("accounting.json")
    path.write_text("{\n" + rows + "\n}\n")
    print({name: len(rows) for name, rows in vectors.items()})


if __name__ == "__main__":
    main()
