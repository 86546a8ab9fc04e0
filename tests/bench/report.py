"""What was measured beside what the issue asks for: a table for people, JSON for machines."""

import json
import statistics
import time

LINE = "{:<46} {:>12} {:>14} {:>7}  {}"


def median(results, key):
    return statistics.median(result[key] for result in results)


def medians(results):
    return {key: median(results, key) for key in results[0]}


class Report:
    def __init__(self, path, settings):
        self.path = path
        self.document = {"settings": settings, "begun": time.strftime("%Y-%m-%dT%H:%M:%SZ",
                                                                      time.gmtime()),
                         "machine": {}, "lines": [], "cases": {}, "failed": {}}
        print(LINE.format("", "target", "measured", "ratio", ""), flush=True)

    def heading(self, text):
        print(f"-- {text}", flush=True)

    def note(self, text, **values):
        """Something worth knowing that has no target."""
        self.document["lines"].append({"name": text, **values})
        shown = "  ".join(f"{k} {v:,.4g}" for k, v in values.items())
        print(f"{text:<46} {shown}", flush=True)

    def machine(self, **values):
        self.document["machine"].update(values)
        for name, value in values.items():
            print(f"{name:<46} {value}", flush=True)

    def _line(self, name, target, value, unit, met, sign):
        ratio = value / target if target else 0
        self.document["lines"].append({"name": name, "target": target, "measured": value,
                                       "unit": unit, "ratio": ratio, "ok": met})
        print(LINE.format(name, f"{sign}{target:,.4g}", f"{value:,.4g} {unit}", f"{ratio:.2f}",
                          "OK" if met else "MISS"), flush=True)

    def at_most(self, name, target, value, unit=""):
        self._line(name, target, value, unit, value <= target, "<= ")

    def at_least(self, name, target, value, unit=""):
        self._line(name, target, value, unit, value >= target, ">= ")

    def keep(self, name, rounds):
        """Every round's figures, for the JSON. Gives the medians."""
        middle = medians(rounds)
        self.document["cases"][name] = {"median": middle, "rounds": rounds}
        return middle

    def case(self, name, rounds):
        """The same, and print the medians."""
        middle = self.keep(name, rounds)
        print(f"{name:<46} {middle['per_s']:>9,.0f}/s {middle['mb_s']:>8,.1f} MB/s  CPU "
              f"{middle['cpu_us']:,.2f} us  p50 {middle['p50_us'] / 1000:,.2f} ms  p99 "
              f"{middle['p99_us'] / 1000:,.2f} ms  max {middle['max_us'] / 1000:,.1f} ms",
              flush=True)
        return middle

    def failed(self, name, error):
        self.document["failed"][name] = str(error)
        print(f"{name}: FAILED: {error}", flush=True)

    def write(self):
        lines = [line for line in self.document["lines"] if "ok" in line]
        met = sum(line["ok"] for line in lines)
        self.path.write_text(json.dumps(self.document, indent=1) + "\n")
        print(f"\n{met} of {len(lines)} targets met; all figures: {self.path}")
        for line in lines:
            if not line["ok"]:
                print(f"  MISS  {line['name']}: {line['measured']:,.4g} {line['unit']}, target "
                      f"{line['target']:,.4g}")
