"""objctl, the client tool, as users call it."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import socket
import sqlite3
import subprocess
import threading
import time

import pytest
import xxhash

import wire
from harness import INLINE, OBJCTL, PATIENCE_S, TOP, clean_environment, free_port, noise, run, sha256, ulid, wait_for

ID = r"[0-7][0-9A-HJKMNP-TV-Z]{25}"


def ids_of(done):
    assert done.returncode == 0, done
    lines = done.stdout.split()
    assert lines and all(re.fullmatch(ID, line) for line in lines), done
    return lines


@pytest.fixture
def files(tmp_path):
    """Some files of different sizes, by name."""
    contents = {"empty": b"", "small.txt": b"hello\n", "mid.bin": noise(100000, 1), "edge.bin": noise(INLINE + 1, 2),
                "large.bin": noise(3 << 20, 3), "blänk näme.txt": b"umlaut"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    return {tmp_path / name: data for name, data in contents.items()}


def test_put_and_get(node, http, files, tmp_path):
    """put prints one id a line, in order; the names are the files'; get brings the bytes, to a file
    and to stdout."""
    done = node.ctl("put", *files)
    ids = ids_of(done)
    assert len(ids) == len(files) and done.stderr == ""
    for object_id, (path, data) in zip(ids, files.items()):
        document = http.meta(object_id).json()
        assert document["name"] == path.name and document["sha256"] == sha256(data)
        target = tmp_path / "out"
        assert node.ctl("get", object_id, "-o", target).returncode == 0
        assert target.read_bytes() == data
        assert node.ctl("get", object_id, encoding=None).stdout == data
    assert not list(tmp_path.glob("out.*")), "no temporary file is left"


def test_put_from_stdin(node, http):
    """'-' reads standard input, of a length that is not known."""
    body = noise(1 << 20, 4)
    done = node.ctl("put", "-", input=body, encoding=None)
    object_id = done.stdout.decode().strip()
    assert done.returncode == 0 and http.get(object_id).body == body
    named = ids_of(node.ctl("put", "--name", "piped.json", "-", input="{}"))[0]
    assert http.get(named).header("Content-Type") == "application/json"


def test_put_options(node, http, files):
    """--id, --name, --type, --level and --meta arrive."""
    path = next(p for p in files if p.name == "small.txt")
    object_id = ulid()
    done = node.ctl("put", path, "--id", object_id, "--name", "näme", "--type", "image/x-mine", "--meta", "a=b=c",
                    "--meta", "k=ü", "--level", "s3")
    assert ids_of(done) == [object_id]
    document = http.meta(object_id).json()
    assert document["name"] == "näme" and document["level"] == 1
    assert document["user_meta"] == {"a": "b=c", "k": "ü"}
    assert http.get(object_id).header("Content-Type") == "image/x-mine"
    again = node.ctl("put", path, "--id", object_id, "-q")
    assert again.returncode == 0
    other = next(p for p in files if p.name == "mid.bin")
    refused = node.ctl("put", other, "--id", object_id)
    assert refused.returncode == 76 and refused.stdout == "" and refused.stderr.startswith("objctl: ")


def test_meta(node, http):
    """meta shows the document, and changes name, user meta and level."""
    document = http.stored(b"x", name="before")
    object_id = document["id"]
    done = node.ctl("meta", object_id)
    assert done.returncode == 0 and json.loads(done.stdout) == document
    done = node.ctl("meta", object_id, "--name", "after", "--meta", "a=b", "--level", "1")
    assert done.returncode == 0
    changed = json.loads(done.stdout)
    assert (changed["name"], changed["user_meta"], changed["level"]) == ("after", {"a": "b"}, 1)
    assert http.meta(object_id).json() == changed
    assert node.ctl("meta", object_id, "--level", "0").returncode == 76
    assert node.ctl("meta", ulid()).returncode == 66


def test_rm(node, http):
    """rm deletes, several at once and from stdin; what is deleted is not found by get."""
    ids = [http.stored(f"{i}".encode())["id"] for i in range(6)]
    assert node.ctl("rm", ids[0]).returncode == 0
    assert node.ctl("rm", *ids[1:3]).returncode == 0
    listed = "".join(f"{i}  some/path\n" for i in ids[3:5])
    assert node.ctl("rm", "-", input=listed).returncode == 0
    for object_id in ids[:5]:
        assert http.get(object_id).header("X-Meta-Deleted") == "true"
    assert http.get(ids[5]).status == 200
    gone = node.ctl("get", ids[0])
    assert gone.returncode == 66 and gone.stdout == "" and gone.stderr.startswith("objctl: ")


def test_stats(node, http):
    """stats prints a table; --json the node's own document."""
    http.stored(b"counted")
    table = node.ctl("stats")
    assert table.returncode == 0
    for word in ("disk", "objects", "journal", "memory", http.stats()["node"]["id"]):
        assert word in table.stdout
    as_json = json.loads(node.ctl("stats", "--json").stdout)
    assert as_json["objects"] == http.stats()["objects"]


def test_trees(node, http, tmp_path):
    """put -r stores every file below, prints 'ID  PATH' lines, and rm takes that list."""
    contents = {}
    for i in range(120):
        path = tmp_path / "tree" / f"d{i % 7}" / ("e" if i % 2 else "") / f"file {i}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[path] = noise(i * 997 % 50000, i)
        path.write_bytes(contents[path])
    (tmp_path / "tree" / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "tree" / "pipe")
    done = node.ctl("put", "-r", tmp_path / "tree")
    assert done.returncode == 0, done
    stored = dict(re.fullmatch(rf"({ID})  (.+)", line).group(2, 1) for line in done.stdout.splitlines())
    assert set(stored) == {str(p) for p in contents}
    for path, data in contents.items():
        got = http.get(stored[str(path)])
        assert got.body == data and http.meta(stored[str(path)]).json()["name"].endswith(path.name)
    assert node.ctl("rm", "-", input=done.stdout).returncode == 0
    assert all(http.get(object_id).status == 404 for object_id in stored.values())


def test_a_tree_through_a_kill(nodes, tmp_path):
    """The node is killed in the middle of put -r and started again: objctl goes on by itself, and
    everything it printed is there, equal by checksum."""
    contents = {}
    for i in range(400):
        path = tmp_path / f"d{i % 9}" / f"f{i}"
        path.parent.mkdir(exist_ok=True)
        contents[str(path)] = noise(i * 1999 % 300000, i)
        path.write_bytes(contents[str(path)])
    node = nodes.start()
    env = clean_environment({"OBJSTORE_ADDR": f"127.0.0.1:{node.port}"})
    put = subprocess.Popen([OBJCTL, "put", "-r", "--retry", "60s", str(tmp_path)], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, env=env, text=True)
    try:
        wait_for(lambda: node.stats()["objects"]["count"] > 60 or put.poll() is not None, "some of the tree")
        node.kill()
        node.start()
        out, err = put.communicate(timeout=120)
    finally:
        put.kill()
        put.wait()
    assert put.returncode == 0, err
    lines = [re.fullmatch(rf"({ID})  (.+)", line) for line in out.splitlines()]
    assert {line[2] for line in lines} == set(contents)
    for line in lines:
        assert sha256(node.http.get(line[1]).body) == sha256(contents[line[2]])
    assert node.stats()["objects"]["count"] == len(contents)


def test_get_keeps_what_was_there(node, http, tmp_path):
    """A get that fails leaves an existing output file as it is."""
    target = tmp_path / "precious"
    target.write_bytes(b"precious")
    assert node.ctl("get", ulid(), "-o", target).returncode == 66
    assert target.read_bytes() == b"precious" and [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_progress_is_for_terminals(node, tmp_path):
    """With stderr no terminal nothing is drawn; on one a bar is; -q silences it."""
    path = tmp_path / "large.bin"
    path.write_bytes(noise(5 << 20, 6))
    assert node.ctl("put", path).stderr == ""

    def on_terminal(*more, until=None):
        """Feed an upload piece by piece until the terminal shows UNTIL, or for a while."""
        master, slave = pty.openpty()
        env = clean_environment({"OBJSTORE_ADDR": f"127.0.0.1:{node.port}", "TERM": "xterm"})
        process = subprocess.Popen([OBJCTL, "put", "--name=piped.bin", *more, "-"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=slave, env=env)
        os.close(slave)
        shown = b""

        def show():
            nonlocal shown
            while select.select([master], [], [], 0.02)[0]:
                try:
                    part = os.read(master, 65536)
                except OSError:  # the other side has closed it
                    return
                shown += part

        end = time.monotonic() + (PATIENCE_S if until else 0.7)
        while time.monotonic() < end and (not until or until not in shown):
            process.stdin.write(noise(70000, 8))
            process.stdin.flush()
            show()
        out = process.communicate(timeout=PATIENCE_S)[0]
        show()
        os.close(master)
        assert process.returncode == 0 and re.fullmatch(ID + r"\n", out.decode())
        return shown

    assert b"\r" in on_terminal(until=b"piped.bin")
    assert on_terminal("-q") == b""


@pytest.mark.parametrize("quiet", [False, True], ids=["shown", "quiet"])
def test_progress_of_trees(node, tmp_path, quiet):
    """put -r counts files and bytes on a terminal as they are stored, and takes the line away; the
    ids on stdout are not touched by it."""
    for i in range(60):
        (tmp_path / f"f{i}").write_bytes(noise(1000, i))
    master, slave = pty.openpty()
    env = clean_environment({"OBJSTORE_ADDR": f"127.0.0.1:{node.port}", "TERM": "xterm"})
    shown, lines = b"", []
    # Whether a line is drawn depends on time alone: the tree is put until one was.
    end = time.monotonic() + (PATIENCE_S if not quiet else 1)
    while time.monotonic() < end and b"files, " not in shown:
        done = subprocess.run([OBJCTL, "put", "-r", "-j1", *(["-q"] if quiet else []), *[str(tmp_path)] * 20],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave, env=env)
        assert done.returncode == 0
        lines = done.stdout.decode().splitlines()
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 65536)
    os.close(slave)
    os.close(master)
    assert len(lines) == 20 * 60 and all(re.fullmatch(rf"{ID}  .+", line) for line in lines)
    if quiet:
        assert shown == b""
        return
    drawn = re.findall(rb"\rput  (\d+) files, (\S+ \S+), \S+ \S+/s\x1b\[K", shown)
    assert drawn and all(0 < int(count) <= 1200 for count, _ in drawn), shown
    assert b"\r\x1b[K" in shown[shown.rindex(b"/s"):], "the line is taken away at the end"


@pytest.mark.parametrize("arguments,code", [
    ([], 64), (["nonsense"], 64), (["put"], 64), (["get"], 64), (["get", "x"], 64), (["get", "a", "b"], 64),
    (["put", "--no-such", "x"], 64), (["put", "--level", "9", "x"], 64), (["put", "/no/such/file"], 66),
    (["rm"], 64), (["rm", "x"], 64), (["meta"], 64), (["journal"], 64), (["journal", "sing"], 64), (["backup"], 64),
    (["stats", "x"], 64), (["cluster", "x"], 64), (["cluster", "watch", "x"], 64),
    (["put", "--id", "x", "/dev/null"], 64), (["put", "--meta", "novalue", "/dev/null"], 64),
    (["put", "--id", "01BRNMMS1DK3CBD4ZZM2TQ8C5B", "a", "b"], 64)])
def test_wrong_calls(node, arguments, code):
    """Each wrong call ends with its exit code and says why on stderr, stdout empty."""
    done = node.ctl(*arguments)
    assert done.returncode == code, done
    assert done.stdout == "" and done.stderr.strip()


COMMANDS = {"put": ["/dev/null"], "get": [ulid()], "meta": [ulid()], "rm": [ulid()], "stats": [], "cluster": [],
            "journal": ["verify"], "verify": [], "backup": ["/no/such/directory/backup"]}
ON_NODES, ON_DIRECTORIES = {"put", "get", "meta", "rm", "stats", "cluster"}, {"journal", "verify", "backup"}
ALL_OPTIONS = {("--addr", "x"): ON_NODES, ("--state-dir", "x"): ON_DIRECTORIES | {"cluster"}, ("--files-dir", "x"): ON_DIRECTORIES,
           ("--json",): {"stats"}, ("--recursive",): {"put"}, ("-r",): {"put"}, ("--jobs", "2"): {"put"}, ("-j2",): {"put"},
           ("--id", ulid()): {"put"}, ("--type", "a/b"): {"put"}, ("--retry", "1s"): {"put"},
           ("--name", "x"): {"put", "meta"}, ("--level", "1"): {"put", "meta"}, ("--meta", "a=b"): {"put", "meta"},
           ("--output", "x"): {"get"}, ("-o", "x"): {"get"}, ("--fetch",): {"get"}, ("--purge",): {"rm"}}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_where_they_mean_nothing(command):
    """Each option is known to the commands it means something to, and refused by all others with 64;
    each command's help names exactly its own."""
    env = {"OBJSTORE_ADDR": f"127.0.0.1:{free_port()}", "OBJSTORE_STATE_DIR": "/no/such", "OBJSTORE_FILES_DIR": "/no/such"}
    shown = run([OBJCTL, command, "--help"]).stdout
    for option, commands in ALL_OPTIONS.items():
        done = run([OBJCTL, command, *option, *COMMANDS[command]], env=env)
        if command not in commands:
            assert done.returncode == 64 and "option" in done.stderr and done.stdout == "", (option, done)
        else:
            assert "option" not in done.stderr, (option, done)
        named = re.search(rf"(^|\s){re.escape(option[0][:2] if option[0][1] != '-' else option[0])}\b", shown)
        assert bool(named) == (command in commands), (option, shown)
    completion = (TOP / "deploy" / "objctl.bash").read_text()
    common = re.search(r"common='(.*)'", completion)[1].split()
    assert run([OBJCTL, "put", "-j2", "/dev/null"], env=env).returncode == 64
    assert set(common) == {"--quiet", "--help"}


def test_nobody_answers():
    """No node at the address: 69, for each command that needs one."""
    env = {"OBJSTORE_ADDR": f"127.0.0.1:{free_port()}"}
    for arguments in (["put", "/dev/null"], ["put", "-r", str(TOP / "docs")], ["get", ulid()], ["meta", ulid()],
                      ["rm", ulid()], ["stats"], ["cluster"], ["cluster", "watch"]):
        done = run([OBJCTL, *arguments], env=env)
        assert done.returncode == 69 and done.stderr.startswith("objctl: "), done


def test_help_and_version():
    """Help on stdout for all and for each command, with every option of the issue."""
    shown = run([OBJCTL, "--help"])
    assert shown.returncode == 0 and shown.stderr == ""
    for command in ("put", "get", "meta", "rm", "stats", "journal", "verify", "backup"):
        assert command in shown.stdout
        one = run([OBJCTL, command, "--help"])
        assert one.returncode == 0 and "Usage: objctl " + command in one.stdout
    assert "--addr" in shown.stdout and "OBJSTORE_ADDR" in shown.stdout
    assert re.match(r"objctl \d+\.\d+\.\d+\n$", run([OBJCTL, "--version"]).stdout)


def test_addr_wins_over_the_environment(node, http, tmp_path):
    """--addr before $OBJSTORE_ADDR."""
    path = tmp_path / "f"
    path.write_bytes(b"x")
    done = run([OBJCTL, "put", f"--addr=127.0.0.1:{node.port}", str(path)],
               env={"OBJSTORE_ADDR": "127.0.0.1:1"})
    assert http.get(ids_of(done)[0]).body == b"x"


def test_completion(node):
    """The completion file is shell that bash takes, and knows every command."""
    found = [p for p in (TOP / "deploy").glob("**/*") if p.is_file() and "objctl" in p.name and "bash" in p.name]
    assert found, "no bash completion under deploy/"
    assert run(["bash", "-n", str(found[0])]).returncode == 0
    text = found[0].read_text()
    for command in ("put", "get", "meta", "rm", "stats", "journal", "verify", "backup"):
        assert command in text


# ---- The journal, and backups ----


def filled(nodes, *options):
    node = nodes.start(*options)
    kept = {node.http.stored(noise(size, 7), name=f"{size}", user_meta={"s": str(size)}, level=1)["id"]: noise(size, 7)
            for size in (0, 10, 70000, INLINE + 9, 2 << 20)}
    gone = node.http.stored(b"gone")["id"]
    node.http.delete(gone)
    return node, kept, gone


def test_journal_verify_and_dump(nodes):
    """verify checks the chains, running or stopped; dump prints every event as one line of JSON;
    what needs the node stopped says so while it runs."""
    node, kept, gone = filled(nodes)
    events = node.stats()["journal"]["events"]
    assert node.ctl("journal", "verify").returncode == 0
    for arguments in (("journal", "dump"), ("journal", "rebuild"), ("verify",)):
        assert node.ctl(*arguments).returncode == 75, arguments
    node.stop()
    assert node.ctl("journal", "verify").returncode == 0
    done = node.ctl("journal", "dump")
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == events
    text = done.stdout
    assert all(object_id in text for object_id in (*kept, gone))


def sum_pages(path):
    """Give every page of a database the checksum that the node's VFS expects of it."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 4096):
        data[at + 4088:at + 4096] = xxhash.xxh3_64_intdigest(data[at:at + 4088], at).to_bytes(8, "little")
    path.write_bytes(data)


def test_journal_verify_finds_a_break(nodes):
    """Events cannot be changed or deleted in the database as it is; one that was changed all the same
    breaks the chain: verify says so, exit 1."""
    node, _, _ = filled(nodes)
    node.stop()
    with contextlib.closing(sqlite3.connect(node.state / "journal.db")) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(events)")]
        (rowid, raw), = db.execute("SELECT rowid, raw FROM events ORDER BY rowid LIMIT 1 OFFSET 2").fetchall() \
            if "raw" in names else [(0, b"")]
        assert raw, f"which column holds the event? {names}"
        for change in ("UPDATE events SET raw = x'00'", "DELETE FROM events"):
            with pytest.raises(sqlite3.DatabaseError):
                db.execute(change)
        db.rollback()
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f'DROP TRIGGER "{name}"')
        db.execute("UPDATE events SET raw = ? WHERE rowid = ?", (raw[:-1] + bytes([raw[-1] ^ 1]), rowid))
        db.commit()
    done = node.ctl("journal", "verify")
    assert done.returncode != 0 and "damaged" in done.stderr + done.stdout, done  # no checksums by Python's SQLite
    sum_pages(node.state / "journal.db")
    done = node.ctl("journal", "verify")
    assert done.returncode == 1 and "objctl: " in done.stderr, done


def test_rebuild_leaves_one_database(nodes):
    """After a rebuild the new database and the old one are there, and nothing else of either."""
    node, kept, _ = filled(nodes)
    node.stop()
    done = node.ctl("journal", "rebuild")
    assert done.returncode == 0, done
    names = {p.name for p in node.state.iterdir() if p.name.startswith("journal.db")}
    assert {"journal.db", "journal.db.old"} <= names <= {"journal.db", "journal.db.old", "journal.db.old-wal"}
    node.start()
    assert all(node.http.get(object_id).body == body for object_id, body in kept.items())


def test_verify_names_files(nodes):
    """A damaged large body is reported with its path below the files directory."""
    node, kept, _ = filled(nodes)
    large = node.large_files()
    node.stop()
    for path in large:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    done = node.ctl("verify")
    assert done.returncode == 1, done
    lines = [re.fullmatch(rf"({ID})  (\S+)  (.+)", line) for line in done.stdout.splitlines()]
    assert len(large) == 2 and {node.files / line[2] for line in lines} == set(large)
    assert all(line[1] in kept for line in lines)


def check_manifest(target, stats):
    """The manifest and the tree below TARGET tell of the same files."""
    manifest = json.loads((target / "manifest.json").read_text())
    listed = {entry["path"]: entry for entry in manifest["files"]}
    there = {str(p.relative_to(target)): p for p in target.rglob("*") if p.is_file() and p.name != "manifest.json"}
    assert len(listed) == len(manifest["files"]) and set(listed) == set(there)
    assert {path: entry["bytes"] for path, entry in listed.items()} == {k: p.stat().st_size for k, p in there.items()}
    copied = {"state/journal.db", "state/NODE_ID", "state/STORE", "files/STORE"}
    assert {path for path, entry in listed.items() if "sha256" in entry} == copied
    for path in copied:
        assert listed[path]["sha256"] == sha256(there[path].read_bytes()), path
    assert manifest["count"] == len(there) and manifest["bytes"] == sum(p.stat().st_size for p in there.values())
    assert manifest["version"] == 1 and manifest["node"] == stats["node"]["id"]
    assert manifest["position"] >= stats["journal"]["position"] - 512
    assert re.fullmatch(r"[0-9a-f]{32}", manifest["store"])
    assert bytes.fromhex(manifest["store"]) in there["state/STORE"].read_bytes()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest["time"])
    assert not [p for p in target.rglob("*") if p.is_dir() and not any(p.iterdir())], "empty directories"


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_backup(nodes, running):
    """backup DIR makes a copy on which a node starts and serves everything of its moment, also when
    it was moved; the original goes on; the manifest lists what is there, byte by byte."""
    node, kept, gone = filled(nodes, "--segment-bytes=1MiB")
    before = node.stats()
    made = nodes.base / "new" / "backup"
    if not running:
        node.stop()
    done = node.ctl("backup", made)
    assert done.returncode == 0, done
    again = node.ctl("backup", made)
    assert again.returncode == 73 and "there already" in again.stderr, "a backup never writes over another"
    target = made.rename(nodes.base / "moved")
    check_manifest(target, before)
    if not running:
        node.start()
    later = node.http.stored(b"after the backup")["id"]
    other = nodes.start(state=target / "state", files=target / "files")
    assert other.stats()["journal"]["digest"] == before["journal"]["digest"]
    assert other.stats()["objects"] == before["objects"]
    for object_id, body in kept.items():
        got = other.http.get(object_id)
        assert got.status == 200 and got.body == body
        assert node.http.get(object_id).body == body
    assert other.http.get(gone).header("X-Meta-Deleted") == "true"
    assert other.http.get(later).status == 404 and node.http.get(later).status == 200
    assert other.http.put(b"goes on").status == 200
    other.stop()
    for verb in (("verify",), ("journal", "verify"), ("journal", "rebuild")):
        assert other.ctl(*verb).returncode == 0, verb
    # Hard links: what happens to the copy leaves the original's bytes alone.
    shutil.rmtree(target)
    node.restart()
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body


def test_journal_compact(nodes):
    """compact removes the events, running or stopped, and no fact: objects, tombstones and digest stay,
    the chains verify, a rebuild starts from the snapshot, and a deleted id stays deleted."""
    node, kept, gone = filled(nodes)
    before = node.stats()
    done = node.ctl("journal", "compact")
    assert done.returncode == 0 and f"{before['journal']['events']} events" in done.stderr + done.stdout, done
    after = node.stats()
    assert after["journal"]["events"] == 0 and after["journal"]["snapshots"] == 1
    assert after["journal"]["digest"] == before["journal"]["digest"] and after["objects"] == before["objects"]
    assert node.ctl("journal", "verify").returncode == 0
    kept[node.http.stored(b"later")["id"]] = b"later"
    node.stop()
    for verb in ("compact", "verify", "dump", "rebuild", "verify"):
        done = node.ctl("journal", verb)
        assert done.returncode == 0, (verb, done)
    node.start()
    for object_id, body in kept.items():
        assert node.http.get(object_id).body == body
    assert node.http.get(gone).header("X-Meta-Deleted") == "true"
    assert node.http.put(b"again", id=gone).status == 410


def test_backup_after_a_refused_change(nodes):
    """A change that was refused leaves nothing behind that a backup of the running node trips over."""
    node = nodes.start()
    document = node.http.stored(b"first")
    assert node.ctl("backup", nodes.base / "before").returncode == 0
    assert node.http.put(b"other bytes", id=document["id"]).status == 409
    wait_for(lambda: node.stats()["commit"]["pending"] == 0, "the applier to be done")
    assert node.http.put(b"other bytes", id=document["id"]).status == 409
    done = node.ctl("backup", nodes.base / "after")
    assert done.returncode == 0, done
    assert node.http.get(document["id"]).body == b"first" and node.http.put(b"goes on").status == 200
    copy = nodes.start(state=nodes.base / "after" / "state", files=nodes.base / "after" / "files")
    assert copy.http.get(document["id"]).body == b"first"


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_backup_that_fails_can_be_made_again(nodes, running):
    """Nothing stays of a backup that failed, and what was there stays: 73 for a place that is taken,
    another code for a failure, then the same call succeeds."""
    node, _, _ = filled(nodes)
    target = nodes.base / "a" / "b" / "backup"
    node_id = node.state / "NODE_ID"
    if not running:
        node.stop()
    text = node_id.read_bytes()
    if running:  # a start needs it; a running node's backup misses it at its very end
        node_id.unlink()
        failed = node.ctl("backup", target)
        assert failed.returncode == 76 and failed.stderr.startswith("objctl: "), failed
        assert not (nodes.base / "a").exists()
        target.mkdir(parents=True)  # an empty one will do
        assert node.ctl("backup", target).returncode == 76
        assert target.exists() and not any(target.iterdir())
        node_id.write_bytes(text)
    assert node.ctl("backup", target).returncode == 0
    for taken in (target, target / "manifest.json", node.state):
        before = sorted(p for p in taken.rglob("*") if "control" not in p.name)
        done = node.ctl("backup", taken)
        assert done.returncode == 73 and "there already" in done.stderr, done
        assert sorted(p for p in taken.rglob("*") if "control" not in p.name) == before


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"],
                         ids=["ends", "busy"])
def test_only_an_unconnected_socket_means_stopped(nodes, answer):
    """A node that ends in the middle of a call, or is busy, is not taken for a stopped one: objctl
    says 69 and leaves the directories alone."""
    node, _, _ = filled(nodes)
    node.stop()
    path = node.state / "control.sock"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            for _ in range(3):
                connection = listener.accept()[0]
                connection.recv(65536)
                connection.sendall(answer)
                connection.close()

        server = threading.Thread(target=serve)
        server.start()
        generation = (node.state / "STORE").read_bytes()
        done = [node.ctl("backup", nodes.base / "backup"), node.ctl("journal", "verify"), node.ctl("journal", "compact")]
        server.join()
    assert [d.returncode for d in done] == [69, 69, 69], done
    assert not (nodes.base / "backup").exists() and (node.state / "STORE").read_bytes() == generation
    assert node.ctl("backup", nodes.base / "backup").returncode == 0, "nobody listens any more"


def test_backup_under_load(nodes):
    """A backup while clients put: everything acknowledged before it began is in it."""
    node, kept, _ = filled(nodes, "--segment-bytes=1MiB")
    stop, failures = threading.Event(), []

    def client(seed):
        http = wire.Client(node.address)
        number = 0
        while not stop.is_set():
            number += 1
            reply = http.put(noise(20000 if number % 9 else 400000, seed * 1000 + number % 50) + str(number).encode())
            if reply.status != 200:
                failures.append(reply)
        http.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: node.stats()["objects"]["count"] > 60, "some load")
        done = [node.ctl("backup", nodes.base / f"backup{i}") for i in range(2)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures and all(d.returncode == 0 for d in done), done
    for i in range(2):
        other = nodes.start(state=nodes.base / f"backup{i}" / "state", files=nodes.base / f"backup{i}" / "files")
        assert other.stats()["objects"]["count"] > 60
        for object_id, body in kept.items():
            assert other.http.get(object_id).body == body
        other.stop()
        for verb in (("verify",), ("journal", "verify")):
            done = other.ctl(*verb)
            assert done.returncode == 0, done
