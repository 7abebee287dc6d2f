"""One rule's contest: a process for each contestant, all with their received
bytes ready, which run in turn, so that whatever else the machine does hits all
alike."""

import json
import statistics
import subprocess
from pathlib import Path

import report
import updates

# How far an aggregate may be from the one calculated in float64. What CKKS
# adds is noise by design.
TOLERANCE = 1e-5
CKKS_TOLERANCE = 1e-2


class Contestant:
    """A process that says what each of its runs needed."""

    def __init__(self, name: str, command: list) -> None:
        self.name = name
        self.runs: list[dict] = []
        self.first: dict = {}
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.start = self.reply()

    def reply(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.name} ended early, exit code {self.process.wait()}")
        return json.loads(line)

    def run(self, target: Path | None = None) -> dict:
        self.process.stdin.write(f"run {target}\n" if target else "run\n")
        self.process.stdin.flush()
        return self.reply()

    def check(self, wanted: Path, found: Path) -> None:
        """Runs once, to see that it does the work in question, and how much
        memory that adds; its time is not counted."""
        self.first = self.run(found)
        allowed = CKKS_TOLERANCE if self.name == "ckks" else TOLERANCE
        far = updates.difference(found, wanted, 1 / self.start.get("scale", 1))
        if not far <= allowed:
            raise SystemExit(
                f"error: {self.name}: the aggregate is {far} from the expected one at some place, "
                f"expected at most {allowed}"
            )
        found.unlink()

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def figures(self) -> dict:
        """What it needed, scaled to the whole work: the median and the least of
        its times; the peak of its resident memory in any run; and how much the
        first run added to what was resident before it, received bytes included."""
        scale = self.start.get("scale", 1)
        figures = {"runs": len(self.runs), "scaled_by": scale}
        for key in sorted(key for key in self.first if key.endswith("seconds")):
            times = [run[key] * scale for run in self.runs]
            figures[key] = statistics.median(times)
            figures["least_" + key] = min(times)
        added = self.first["peak_bytes"] - self.first["resident_bytes"]
        figures["received_bytes"] = round(self.start["received_bytes"] * scale)
        figures["added_bytes"] = round(added * scale)
        # The interpreter's memory does not grow with the work, so a peak is not
        # scaled.
        if scale == 1:
            figures["peak_bytes"] = max(run["peak_bytes"] for run in [self.first, *self.runs])
        return figures


def hold(rule: str, commands: dict, wanted: Path, found: Path, rounds: int) -> dict:
    """Figures of each contestant, or why it has none."""
    contestants, results = [], {}
    try:
        for name, command in commands.items():
            report.say(f"{rule}: {report.NAMES[name]} makes its received bytes ready")
            contestant = Contestant(name, command)
            if "refused" in contestant.start:
                results[name] = {"not_in_this_build": contestant.start["refused"]}
                contestant.stop()
                continue
            contestants.append(contestant)
            contestant.check(wanted, found)
        for turn in range(rounds):
            report.say(f"{rule}: round {turn + 1} of {rounds}")
            # Whoever was first is last in the next round.
            first = turn % len(contestants)
            for contestant in contestants[first:] + contestants[:first]:
                contestant.runs.append(contestant.run())
        return results | {contestant.name: contestant.figures() for contestant in contestants}
    finally:
        for contestant in contestants:
            contestant.stop()
