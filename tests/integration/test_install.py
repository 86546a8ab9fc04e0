"""What make install puts where, and that the programs are built as the release is to be."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

from harness import OBJCTL, OBJSTORE, TOP, run, sanitized

COMMANDS = ("put", "get", "meta", "rm", "stats", "cluster", "node", "cloud", "journal", "verify", "backup")
HARDENED = TOP / "scripts" / "hardened.sh"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A staged installation of the programs under test."""
    stage = tmp_path_factory.mktemp("stage")
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")}
    done = subprocess.run(  # -o: the programs are those under test, and not made again
        ["make", "-C", str(TOP), "-o", "build", "install", f"DESTDIR={stage}", "PREFIX=/usr",
         f"BUILD={pathlib.Path(OBJSTORE).parent}"],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    assert done.returncode == 0, done.stdout
    return stage / "usr"


def test_install(installed):
    """Programs that run, man pages and completions; nothing else, nothing outside the stage."""
    modes = {str(p.relative_to(installed)): p.stat().st_mode & 0o777 for p in installed.rglob("*") if p.is_file()}
    assert modes == {"bin/objstore": 0o755, "bin/objctl": 0o755,
                     "share/man/man1/objstore.1": 0o644, "share/man/man1/objctl.1": 0o644,
                     "share/bash-completion/completions/objctl": 0o644, "share/zsh/site-functions/_objctl": 0o644}
    for name, program in (("objstore", OBJSTORE), ("objctl", OBJCTL)):
        done = run([installed / "bin" / name, "--version"])
        assert done.returncode == 0 and re.match(name + r" \d", done.stdout)
        assert (installed / "bin" / name).read_bytes() == pathlib.Path(program).read_bytes()


@pytest.mark.parametrize("page", ["objstore.1", "objctl.1"])
def test_man_pages(installed, page):
    """The pages are set without a warning, and know every long option of their program's help."""
    formatter = ["man", "-l", "--warnings"] if shutil.which("man") else ["groff", "-man", "-Tutf8", "-ww"]
    if not shutil.which(formatter[0]):
        pytest.skip("neither man nor groff is there")
    done = run([*formatter, installed / "share" / "man" / "man1" / page],
               env={"LC_ALL": "C.UTF-8", "MANPAGER": "cat", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""})
    assert done.returncode == 0 and done.stderr == "" and "NAME" in done.stdout, done
    text = re.sub(r".\x08|\x1b\[[0-9;]*m", "", done.stdout).replace("‐", "-").replace("−", "-")
    program = installed / "bin" / page.removesuffix(".1")
    shown = run([program, "--help"]).stdout
    if page == "objctl.1":
        for command in COMMANDS:
            shown += run([program, command, "--help"]).stdout
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", shown)) - {"--version", "--usage"}
    assert len(options) > 10
    missing = {option for option in options if option not in text}
    assert not missing


def test_completions(installed):
    """The shells take them, and bash's completes commands, options and verbs."""
    completion = installed / "share" / "bash-completion" / "completions" / "objctl"
    assert run(["bash", "-n", completion]).stderr == ""
    if shutil.which("zsh"):
        assert run(["zsh", "-n", installed / "share" / "zsh" / "site-functions" / "_objctl"]).stderr == ""

    def complete(*words):
        """What is offered for the last of WORDS."""
        script = (f"source {completion}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1};"
                  f" _objctl {shlex.join([words[0], words[-1], words[-2]])}; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        done = run(["bash", "-c", script])
        assert done.returncode == 0 and done.stderr == "", done
        return set(done.stdout.split())

    assert set(COMMANDS) <= complete("objctl", "") and complete("objctl", "jo") == {"journal"}
    assert complete("objctl", "journal", "") == {"verify", "dump", "compact", "rebuild", "new-node-id"}
    assert complete("objctl", "put", "--level", "") == {"local", "s3", "full"}
    for command in COMMANDS:
        shown = run([OBJCTL, command, "--help"]).stdout
        assert complete("objctl", command, "--") == set(re.findall(r"^ .{,5}(--[a-z-]+)", shown, re.M)), command


def test_hardened():
    """The release build has what hardening there is."""
    data = pathlib.Path(OBJSTORE).read_bytes()
    if sanitized() or b".gcda" in data:
        pytest.skip("not a release build")
    done = run([HARDENED, OBJSTORE, OBJCTL])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("without,says", [
    (["-no-pie", "-fno-pie"], "position-independent"), (["-Wl,-z,norelro"], "RELRO"), (["-Wl,-z,lazy"], "lazily"),
    (["-Wl,-z,execstack"], "executable stack"), (["-fno-stack-protector"], "stack protector"),
    (["-U_FORTIFY_SOURCE"], "checked functions"), ([], None)])
def test_the_hardening_check_can_fail(tmp_path, without, says):
    """Each thing left out is found, and that alone; with all of it there is nothing to say."""
    source = tmp_path / "program.c"
    source.write_text("#include <stdio.h>\nint main(int c, char **v) "
                      "{ char b[32]; snprintf(b, (unsigned)c * 8, \"%s\", v[0]); return puts(b); }\n")
    compiler = next(c for c in ("cc", "gcc", "clang") if shutil.which(c))
    done = run([compiler, "-O2", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fPIE", "-pie",
                "-Wl,-z,relro,-z,now", *without, "-o", tmp_path / "program", source])
    assert done.returncode == 0, done.stderr
    done = run([HARDENED, tmp_path / "program"])
    lines = [line for line in done.stdout.splitlines() if not line.startswith("hardened:")]
    assert done.returncode == (1 if says else 0) and len(lines) == (1 if says else 0), done
    assert not says or says in lines[0]
