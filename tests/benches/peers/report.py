"""What was found: ratios, aims, a table for people, JSON for machines."""

import argparse
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import updates

NAMES = {
    "ours": "sealfold",
    "flower": f"Flower {version('flwr')}",
    "flower_older": f"Flower {version('flwr')}, older strategies",
    "flare": f"NVIDIA FLARE {version('nvflare')}",
    "plain": f"numpy {version('numpy')}, cache-blocked",
    "ckks": f"TenSEAL {version('tenseal')}, CKKS",
}
PLAIN_TEXT = ("flower", "flower_older", "flare", "plain")
FLOWER = ("flower", "flower_older")

# What is aimed at: a peer's seconds are at least so many times ours.
FASTER_THAN_FLOWER = {"mean": 3, "median": 20, "krum": 20}
LESS_MEMORY_THAN_FLOWER = 20


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def add_ratios(result: dict) -> None:
    """To each peer, how many times what we needed: seconds beside admission and
    fold, and beside the fold alone; memory that it added beside all of ours."""
    ours = result["ours"]
    for name, figures in result.items():
        if name == "ours" or "peak_bytes" not in ours:
            continue
        figures["times_our_seconds"] = figures["seconds"] / ours["seconds"]
        figures["times_our_fold_seconds"] = figures["seconds"] / ours["fold_seconds"]
        figures["times_our_memory"] = figures["added_bytes"] / ours["peak_bytes"]


def aims(results: dict) -> list[dict]:
    """Each aim with what was found. Of two peers the one counts that needed
    less."""
    found = []

    def aim(what: str, peers: tuple[str, ...], figure: str, least: float) -> None:
        values = [result[peer][figure] for peer in peers if figure in result.get(peer, {})]
        if values:
            met = min(values) >= least
            found.append({"aim": what, "least": least, "found": min(values), "met": met})

    for rule, result in results.items():
        for work, figure in (
            ("admission and fold", "times_our_seconds"),
            ("the fold alone", "times_our_fold_seconds"),
        ):
            aim(f"{rule}: faster than every plain-text peer, {work}", PLAIN_TEXT, figure, 1)
            if rule in FASTER_THAN_FLOWER:
                least = FASTER_THAN_FLOWER[rule]
                aim(f"{rule}: {least} times as fast as Flower, {work}", FLOWER, figure, least)
        least = LESS_MEMORY_THAN_FLOWER
        aim(f"{rule}: 1/{least} of Flower's memory", FLOWER, "times_our_memory", least)
    return found


def summary(chosen: argparse.Namespace, results: dict, load_before: float) -> dict:
    for result in results.values():
        add_ratios(result)
    described = {
        rule: {
            "ours": result["ours"],
            "peers": {NAMES[name]: figures for name, figures in result.items() if name != "ours"},
        }
        for rule, result in results.items()
    }
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": machine() | {"load_before": load_before, "load_after": os.getloadavg()[0]},
        "work": {
            "sites": updates.SITES,
            "parameters": chosen.parameters,
            "rounds": chosen.rounds,
            "our_threads": chosen.threads,
        },
        "rules": described,
        "aims": aims(results),
    }


def machine() -> dict:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def show(summary: dict) -> None:
    work, host = summary["work"], summary["machine"]
    print(
        f"\n{summary['date']}; {host['processor']}, {host['cores']} cores, "
        f"{host['memory_bytes'] / 2**30:.0f} GiB, Linux {host['kernel']}; load "
        f"{host['load_before']:.1f} before, {host['load_after']:.1f} after\n"
        f"{work['sites']} sites x {work['parameters']:,} float32, {work['rounds']} rounds, "
        f"our enclave with {work['our_threads']} threads"
    )
    for rule, result in summary["rules"].items():
        print(f"\n{rule:<40}{'seconds':>9}{'least':>9}{'cpu':>9}{'x':>7}{'x fold':>8}"
              f"{'peak MiB':>10}{'added':>7}{'x':>7}")
        ours = result["ours"]
        if "not_in_this_build" in ours:
            print(f"  sealfold: not in this build ({ours['not_in_this_build']})")
        else:
            row("sealfold: admission and fold", ours, "seconds")
            row("sealfold: the fold alone", ours, "fold_seconds")
            row("limit: each byte read and opened once", ours, "limit_seconds")
        for name, figures in result["peers"].items():
            row(name, figures, "seconds")
    print()
    for aim in summary["aims"]:
        met = "met" if aim["met"] else "missed"
        print(f"{aim['aim']:<64}{aim['found']:>8.2f}  {met}")


def row(name: str, figures: dict, seconds: str) -> None:
    def cell(key: str, width: int, digits: int, unit: float = 1) -> str:
        return f"{figures[key] / unit:.{digits}f}".rjust(width) if key in figures else " " * width

    print(
        f"  {name:<38}{cell(seconds, 9, 3)}{cell('least_' + seconds, 9, 3)}"
        f"{cell('processor_' + seconds, 9, 3)}"
        f"{cell('times_our_seconds', 7, 1)}{cell('times_our_fold_seconds', 8, 1)}"
        f"{cell('peak_bytes', 10, 0, 2**20)}{cell('added_bytes', 7, 0, 2**20)}"
        f"{cell('times_our_memory', 7, 1)}"
    )
