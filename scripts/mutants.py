#!/usr/bin/env python3
"""Mutation testing of one source file: change it in small ways, and see whether a test notices.

usage: mutants.py MUTATE BUILD COMPILE LINK LIBS FILE [COUNT [SEED]]

universalmutator (MUTATE) makes the mutants. Those that do not compile, or compile to the object code
of the original, are none; nor are those of an assertion: it can only fail where something else is
wrong. Of the rest COUNT (0: all) are drawn by SEED. Each is compiled alone and linked before the
library, whose own object of that name is then not taken, and the tests below run until one fails.
What survives is printed, as a difference, and the score at the end.
"""
import concurrent.futures
import difflib
import hashlib
import os
import pathlib
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

# Which tests see a file, the quick ones first.
JOURNAL = ["journal_test", "journal_upkeep_test", "journal_fault_test", "compact_test"]
TESTS = {
    "api/peer_fill.c": ["peer_fill_test"],
    "api/cache_source.c": ["peer_fill_test"],
    "cluster/wire.c": ["wire_test", "wire_refusal_test"],
    "cluster/wire_body.c": ["wire_test", "wire_refusal_test"],
    "cluster/wire_fields.c": ["wire_test", "wire_refusal_test"],
    "cluster/wire_inquiry.c": ["wire_test", "wire_refusal_test"],
    "cluster/wire_probe.c": ["wire_test", "wire_refusal_test"],
    "cluster/wire_sync.c": ["wire_test", "wire_refusal_test"],
    "cluster/members.c": ["members_test"],
    "cluster/notes.c": ["notes_test"],
    "cluster/probe.c": ["probe_test", "probe_sim_test"],
    "cluster/probe_hear.c": ["probe_test", "probe_sim_test"],
    "cluster/probe_say.c": ["probe_test", "probe_sim_test"],
    "cluster/probe_view.c": ["probe_test", "probe_sim_test"],
    "journal/decide.c": ["decide_test"],
    "journal/merge.c": ["merge_test", "journal_test"],
    "journal/fold.c": ["fold_test", "journal_test"],
    "journal/event.c": ["event_test", "merge_test", "journal_test"],
    "journal/hlc.c": ["hlc_test", "journal_test"],
    "journal/object.c": ["object_test", "merge_test", "db_test"],
    "journal/pack.c": ["pack_test", "event_test"],
    "journal/pending.c": ["pending_test"],
    "journal/snapshot.c": ["snapshot_test"],
    "journal/ulid.c": ["ulid_test"],
    "journal/unpack.c": ["unpack_test", "event_test"],
    "journal/usermeta.c": ["usermeta_test"],
    "journal/condition.c": ["condition_test", "decide_test"],
    "storage/segment.c": ["segment_test", "log_test", "log_recover_test"],
    "storage/disk_cache.c": ["disk_cache_test", "peer_fill_test"],
    "storage/log_scan.c": ["log_scan_test", "log_recover_test"],
    "storage/log_recover.c": ["log_recover_test"],
    "storage/log_clean.c": ["log_clean_test", "log_recover_test"],
    "storage/ram_locations.c": ["ram_locations_test", "ram_test"],
    "storage/ram_region.c": ["ram_region_test", "ram_test"],
}
# Most of their time these wait for the disk to sync; files in memory do as well.
IN_MEMORY = {"log_recover_test", "log_clean_test"}
# A test that takes this much longer than with the original hangs.
TIMEOUT_S, TIMEOUT_FACTOR = 10, 5


def run(command, **more):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, **more)


class Campaign:
    def __init__(self, mutate, build, compile_, link, libs, source):
        self.mutate, self.build, self.source = mutate, pathlib.Path(build), source
        self.compile, self.link, self.libs = map(shlex.split, (compile_, link, libs))
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="mutants-"))
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.memory = pathlib.Path(tempfile.mkdtemp(prefix="mutants-", dir=memory))
        stem = pathlib.Path(source).stem
        names = TESTS.get(source, [])
        if not names:
            own = f"{stem}_test"
            names = ([own] if pathlib.Path(f"tests/unit/{own}.c").exists() else []) + JOURNAL
        self.tests = dict.fromkeys(names)  # the seconds each takes with the original
        self.original = pathlib.Path(source).read_text().splitlines()

    def object_of(self, path, target):
        """Compile PATH as if it stood where the source does; the code's hash, or None."""
        # Without line numbers in assertions: a mutant that only moves lines is the original.
        done = run([*self.compile, "-g0", "-w", "-D__LINE__=0", '-D__FILE__=""', "-I.", "-c", "-o", str(target), str(path)])
        if done.returncode:
            return None
        return hashlib.sha256(target.read_bytes()).hexdigest()

    def mutants(self):
        made = self.work / "made"
        made.mkdir()
        done = run([self.mutate, self.source, "c", "--mutantDir", str(made), "--noCheck"])
        if done.returncode:
            sys.exit(f"universalmutator failed: {done.stdout[-500:]!r} {done.stderr[-500:]!r}")
        paths = sorted(made.glob("*.c"), key=lambda p: int(p.stem.rsplit(".", 1)[1]))
        return [path for path in paths if not self.is_assertion(path)]

    def is_assertion(self, path):
        lines = path.read_text().splitlines()
        changed = [a for a, b in zip(self.original, lines) if a != b]
        return len(lines) == len(self.original) and all("assert(" in line for line in changed)

    def notices(self, obj, where):
        """The test that fails with OBJ in place of the original, or None."""
        for name, usual_s in self.tests.items():
            program = where / name
            parts = [str(self.build / f"obj/tests/unit/{name}.o"), str(obj), str(self.build / "libobjstore.a")]
            linked = run([*self.link, "-o", str(program), *parts, "-lcmocka", *self.libs])
            if linked.returncode:
                return "the linker"
            limit_s = None if usual_s is None else TIMEOUT_S + TIMEOUT_FACTOR * usual_s
            env = {**os.environ, "TMPDIR": str(self.memory)} if name in IN_MEMORY else None
            begun = time.monotonic()
            try:
                if run([str(program)], timeout=limit_s, env=env).returncode:
                    return name
            except subprocess.TimeoutExpired:
                return f"{name} (hangs)"
            if usual_s is None:
                self.tests[name] = time.monotonic() - begun
        return None

    def judge(self, path, seen, original):
        where = self.work / path.stem
        where.mkdir()
        # The same name for all, so that assertions and the code do not differ by it.
        source, obj = where / pathlib.Path(self.source).name, where / "mutant.o"
        shutil.copy(path, source)
        code = self.object_of(source, obj)
        try:
            if code is None:
                return "invalid", None
            if code == original or code in seen:
                return "equivalent", None
            seen.add(code)
            by = self.notices(obj, where)
            return ("killed", by) if by else ("survived", None)
        finally:
            shutil.rmtree(where)

    def difference(self, path):
        lines = difflib.unified_diff(self.original, path.read_text().splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++")))


def main():
    mutate, build, compile_, link, libs, source, *rest = sys.argv[1:]
    count, seed = (int(rest[0]) if rest else 150), (int(rest[1]) if len(rest) > 1 else 1)
    campaign = Campaign(mutate, build, compile_, link, libs, source)
    try:
        first = campaign.work / pathlib.Path(source).name
        shutil.copy(source, first)
        original = campaign.object_of(first, campaign.work / "original.o")
        if original is None:
            sys.exit(f"{source} does not compile")
        by = campaign.notices(campaign.work / "original.o", campaign.work)
        if by:
            sys.exit(f"{by} fails without any mutant")
        paths = campaign.mutants()
        random.Random(seed).shuffle(paths)
        seen, results = {original}, {"killed": 0, "survived": 0, "invalid": 0, "equivalent": 0}
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            todo = iter(paths)
            running = {}
            while True:
                while len(running) < os.cpu_count() and (
                        not count or results["killed"] + results["survived"] + len(running) < count):
                    path = next(todo, None)
                    if path is None:
                        break
                    running[pool.submit(campaign.judge, path, seen, original)] = path
                if not running:
                    break
                for done in concurrent.futures.wait(running, return_when="FIRST_COMPLETED").done:
                    path = running.pop(done)
                    result, _ = done.result()
                    results[result] += 1
                    if result == "survived":
                        print(campaign.difference(path), flush=True)
        judged = results["killed"] + results["survived"]
        score = 100 * results["killed"] / judged if judged else 0
        print(f"{source}: {judged} mutants, {results['killed']} killed, {results['survived']} survived: {score:.0f} %  "
              f"(not counted: {results['invalid']} do not compile, {results['equivalent']} compile to the same)")
    finally:
        shutil.rmtree(campaign.work)
        shutil.rmtree(campaign.memory)


main()
