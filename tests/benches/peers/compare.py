"""Runs the same aggregation through the peers and through ours, in turn, and
writes what each needed."""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import contest
import report
import updates

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[2] / "target" / "bench"


@dataclass(frozen=True)
class Rule:
    """A rule: our manifest's aggregation section for it, and who else has it."""

    aggregation: str
    peers: tuple[str, ...]


RULES = {
    "mean": Rule(
        f'rule = "weighted-mean"\nnorm_limit = {updates.LIMIT}',
        ("flower", "flower_older", "flare", "plain", "ckks"),
    ),
    "median": Rule('rule = "median"', ("flower", "flower_older", "plain")),
    "trimmed mean": Rule(
        f'rule = "trimmed-mean"\ntrim = {updates.TRIM}', ("flower", "flower_older", "plain")
    ),
    "krum": Rule(
        f'rule = "krum"\nbyzantine = {updates.BYZANTINE}',
        ("flower", "flower_older", "plain"),
    ),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__)
    parser.add_argument("--ours", type=Path, required=True, help="our side's program")
    parser.add_argument("--parameters", type=int, default=25_000_000, help="values of an update")
    parser.add_argument("--rounds", type=int, default=5, help="measured runs of each")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of our enclave")
    chosen = parser.parse_args()
    unit = updates.TENSORS * updates.COLUMNS
    if chosen.parameters < unit or chosen.parameters % unit or chosen.rounds < 1:
        parser.error(f"expected a multiple of {unit} parameters and at least 1 round")
    return chosen


def check_memory(parameters: int) -> None:
    """All peers of a rule hold their received bytes at once, and one works."""
    needed = 10 * updates.SITES * parameters * 4
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) * 1024 < needed:
            raise SystemExit(
                f"error: {line}, expected at least {needed >> 20} MiB\n"
                "  next: free some memory, or make the updates smaller with --parameters"
            )


def run(chosen: argparse.Namespace, folder: Path) -> dict:
    """Each rule's contest, in folders that go when it is over."""
    inputs = folder / "inputs"
    inputs.mkdir()
    report.say(f"making {updates.SITES} updates of {chosen.parameters:,} float32")
    updates.make(inputs, chosen.parameters)
    results = {}
    for name in chosen.rules:
        rule = RULES[name]
        wanted = folder / "expected"
        updates.expected(inputs, name, wanted)
        commands = {
            "ours": [
                chosen.ours,
                "--aggregation", rule.aggregation,
                "--inputs", inputs,
                "--store", folder / "store",
                "--weights", ",".join(map(str, updates.WEIGHTS)),
                "--parameters", chosen.parameters,
                "--threads", chosen.threads,
            ]
        }
        for peer in rule.peers:
            commands[peer] = [sys.executable, HERE / "contestant.py", peer, name, inputs]
        results[name] = contest.hold(name, commands, wanted, folder / "found", chosen.rounds)
    return results


def main() -> None:
    chosen = arguments()
    check_memory(chosen.parameters)
    before = os.getloadavg()[0]
    TARGET.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="peers-", dir=TARGET) as folder:
        results = run(chosen, Path(folder))
    summary = report.summary(chosen, results, before)
    report.show(summary)
    (TARGET / "peers.json").write_text(json.dumps(summary, indent=2) + "\n")
    print("\nfigures: target/bench/peers.json")


if __name__ == "__main__":
    main()
