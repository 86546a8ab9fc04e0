"""Hot objects read over 64 connections, beside nginx."""

import os

from tools import load, wrk

SIZES = {"1 KiB": (1 << 10, 0.75), "64 KiB": (64 << 10, 1.0), "16 MiB": (16 << 20, 1.0)}
CONNECTIONS = 64


def get_hot(ctx):
    ctx.report.heading("GET, hot, 64 connections")
    bodies = {name.replace(" ", ""): os.urandom(size) for name, (size, _) in SIZES.items()}
    with ctx.nginx(bodies) as nginx, ctx.node("get") as node:
        for name, (size, ratio) in SIZES.items():
            node.ids.unlink(missing_ok=True)
            load(node, "put", size=size, count=1, connections=1, write_ids=node.ids)
            path = "/api/v1/get/" + node.ids.read_text().strip()
            file = "/" + name.replace(" ", "")
            whole = size if size >= 1 << 20 else None

            def run(server, where, seconds=ctx.seconds, whole=whole):
                return wrk(server, where, CONNECTIONS, seconds, get_size=whole)

            run(node, path, 1)
            run(nginx, file, 1)
            found = ctx.alternate({f"GET {name} nginx": lambda: run(nginx, file),
                                   f"GET {name} objstore": lambda: run(node, path)})
            ours, theirs = found[f"GET {name} objstore"], found[f"GET {name} nginx"]
            ctx.report.at_most(f"GET {name}: CPU / nginx's CPU", ratio,
                               ours["cpu_us"] / theirs["cpu_us"], "x")
