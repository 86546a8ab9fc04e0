"""Planting bugs into a simulator, or a unit test: what the lists of them (mutants.py here, in
cluster_sim and in unit) share.

A mutant is (name, what is wrong, file, text, its replacement), where need be with more threes of
these: source files with a piece of text replaced. They are compiled alone and linked before the
library, whose own objects of these names are then not taken. A text that does not stand in its file
exactly once is an error: the list follows the source.
"""
import glob
import os
import shlex
import subprocess
import sys
import time

TIMEOUT_S = 600


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **more)


def run_for(command):
    """(what it printed, whether it failed); a run that does not end has not failed."""
    try:
        done = run(command, timeout=TIMEOUT_S)
        return done.stdout, done.returncode != 0
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(), False


def build_step(name, command):
    done = run(command)
    if done.returncode:
        raise SystemExit(f"{name}: does not build\n{done.stdout}")


def build(where, mutant, compile_with, link_with, libs, objects, library):
    """The simulator with MUTANT in it; its path."""
    name = mutant[0]
    stem = os.path.join(where, name)
    changed = []
    for at in range(2, len(mutant), 3):
        path, old, new = mutant[at:at + 3]
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if text.count(old) != 1:
            raise SystemExit(f"{name}: its text stands {text.count(old)} times in {path}, not once")
        source = f"{stem}.{at}.c"
        with open(source, "w", encoding="utf-8") as file:
            file.write(f'#line 1 "{path}"\n' + text.replace(old, new))
        changed.append(source[:-1] + "o")
        build_step(name, compile_with + ["-w", "-c", "-o", changed[-1], source])
    build_step(name, link_with + ["-o", stem] + changed + objects + [library] + libs)
    return stem


def plant(title, all_mutants, object_globs, try_out):
    """Plant each, and end with 0 where TRY_OUT(program) has caught all: it gives (caught, the cost
    in words, what told of it). OBJECT_GLOBS, below BUILD: what is linked with it; a list, or a
    function of the mutant that gives one. The arguments are those of the script."""
    build_dir, compile_with, link_with, libs = sys.argv[1:5]
    only = sys.argv[5] if len(sys.argv) > 5 else ""
    where = os.path.join(build_dir, "mutants")
    os.makedirs(where, exist_ok=True)
    library = os.path.join(build_dir, "libobjstore.a")
    mutants = [mutant for mutant in all_mutants if only in mutant[0]]
    caught_all = 0
    for mutant in mutants:
        globs = object_globs(mutant) if callable(object_globs) else object_globs
        objects = sorted(path for pattern in globs
                         for path in glob.glob(os.path.join(build_dir, pattern)))
        program = build(where, mutant, shlex.split(compile_with), shlex.split(link_with),
                        shlex.split(libs), objects, library)
        began = time.monotonic()
        caught, cost, told = try_out(os.path.abspath(program))
        caught_all += caught
        print(f"{'caught' if caught else 'MISSED':6}  {mutant[0]:22} {cost}"
              f" {time.monotonic() - began:6.1f} s  {told[:110]}", flush=True)
        for path in glob.glob(os.path.join(where, mutant[0] + "*")):
            os.unlink(path)
    print(f"{title}: {caught_all} of {len(mutants)} caught")
    sys.exit(caught_all != len(mutants) or not mutants)
