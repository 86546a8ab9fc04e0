"""The hostile requests: a name, the bytes, the answers. What test_smuggling.py has is not repeated.
Where a row is accepted, RFC 9112 says so, and both sides must stay in step behind it."""

from hostile import BIG, BIG_BYTES, BODY, HIDDEN, SMUGGLED, VICTIM, Case, kept

PUT = b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\nX-Meta-ID: " + VICTIM + b"\r\n"  # the same bytes again: no fact
PING = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = b"Content-Length: %d\r\n"
GOOD_CHUNKS = b"6\r\nvictim\r\n0\r\n\r\n"
END = b"\r\n"


def length(count):
    return LENGTH % count


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


def put(headers, rest=b""):
    return PUT + headers + END + rest


def ping(headers=b"", rest=b""):
    return PING + headers + END + rest


def get(path, version=b"1.1"):
    return b"GET " + path + b" HTTP/" + version + b"\r\nHost: x\r\n\r\n"


WRAPPED = chunk(SMUGGLED) + b"0\r\n\r\n"

LENGTHS = {
    # Classic pairs: where the front reads one length and the back another.
    "CL.TE": Case(put(length(6) + CHUNKED, b"0\r\n\r\nG"), 400),
    "CL.TE, all inside the length": Case(put(length(5 + len(SMUGGLED)) + CHUNKED, b"0\r\n\r\n" + SMUGGLED), 400),
    "TE.CL": Case(put(CHUNKED + length(4), WRAPPED), 400),
    "TE.CL, length behind": Case(put(length(4) + CHUNKED, WRAPPED), 400),
    "CL.TE with Expect": Case(put(b"Expect: 100-continue\r\n" + length(6) + CHUNKED, GOOD_CHUNKS), 400),
    "CL.TE on GET": Case(ping(length(6) + CHUNKED, b"0\r\n\r\nG"), 400),
    "CL.TE far apart": Case(put(length(6) + b"X: y\r\n" * 40 + CHUNKED, GOOD_CHUNKS), 400),
    "CL.TE hidden by Connection": Case(put(b"Connection: Transfer-Encoding\r\n" + length(6) + CHUNKED, GOOD_CHUNKS), 400),
    "CL and TE identity": Case(put(length(6) + b"Transfer-Encoding: identity\r\n", BODY), 400),
    "CL 0 and TE around a request": Case(put(length(0) + CHUNKED, WRAPPED), 400),
    "CL.CL": Case(put(length(len(SMUGGLED)) + length(0), SMUGGLED), 400),
    "CL.CL.CL": Case(put(length(6) * 3, BODY), 400),
    "CL.CL far apart": Case(put(length(6) + b"X: y\r\n" * 60 + length(6), BODY), 400),
    "CL.CL, one in lower case": Case(put(length(6) + b"content-length: 0\r\n", BODY), 400),
    "CL.CL, one empty": Case(put(length(6) + b"Content-Length:\r\n", BODY), 400),
    # A request inside a body is bytes.
    "a request inside the body of a GET": kept(ping(length(len(SMUGGLED)), SMUGGLED), 200),
    "a request inside a chunk of a GET": kept(ping(CHUNKED, WRAPPED), 200),
    "a request in pieces over chunks": kept(ping(CHUNKED, b"".join(chunk(SMUGGLED[i:i + 7]) for i in
                                                                 range(0, len(SMUGGLED), 7)) + b"0\r\n\r\n"), 200),
    "a request inside a body refused by its id": kept(
        b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\nX-Meta-ID: bad\r\n" + length(len(SMUGGLED)) + END + SMUGGLED, 400),
    "a request inside a body to no path": kept(
        b"POST /nothing HTTP/1.1\r\nHost: x\r\n" + length(len(SMUGGLED)) + END + SMUGGLED, 404),
    "a request inside a body of a wrong method": kept(
        b"POST /api/v1/ping HTTP/1.1\r\nHost: x\r\n" + length(len(SMUGGLED)) + END + SMUGGLED, 405),
    "a request behind a refused Expect": Case(
        b"POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + length(len(SMUGGLED)) + END, 404),
    "a request in a header's value": kept(ping(b"X: GET /api/v1/delete/" + VICTIM + b" HTTP/1.1\r\n"), 200),
    "two chunked bodies in a row": kept(put(CHUNKED, GOOD_CHUNKS) * 2, 200, 200),
    "chunked, length, chunked": kept(put(CHUNKED, GOOD_CHUNKS) + put(length(6), BODY) + put(CHUNKED, GOOD_CHUNKS),
                                     200, 200, 200),
    # Connection may not take away what frames the body.
    "Connection: Content-Length": kept(put(b"Connection: Content-Length\r\n" + length(6), BODY), 200),
    "Connection: Transfer-Encoding": kept(put(b"Connection: Transfer-Encoding\r\n" + CHUNKED, GOOD_CHUNKS), 200),
    "Connection: close behind a name": Case(ping(b"Connection: X, close\r\n"), 200),
    "Connection: close, keep-alive": Case(ping(b"Connection: close, keep-alive\r\n"), 200),
    # Spellings of a length.
    "CL tab before": kept(put(b"Content-Length:\t6\r\n", BODY), 200),
    "CL tab behind": Case(put(b"Content-Length: 6\t\r\n", BODY), 400),
    "CL no blank": kept(put(b"Content-Length:6\r\n", BODY), 200),
    "CL eighteen zeros": kept(put(b"Content-Length: 0000000000000000006\r\n", BODY), 200),
    "CL huge with EOF": Case(put(b"Content-Length: 99999999999999999999999999\r\n", BODY), 400),
    "CL 2^32 + 6 in a small field": Case(ping(b"Content-Length: 4294967302\r\n"), 200),
    **{f"CL {name}": Case(put(b"Content-Length: " + value + END, BODY), 400) for name, value in {
        "minus one": b"-1", "plus zero": b"+0", "two minus": b"--6", "binary": b"0b110", "octal": b"0o6",
        "hex digits": b"0a", "hex suffix": b"6h", "float suffix": b"6f", "apostrophe": b"6'000",
        "underscore": b"0_6", "NaN": b"NaN", "infinity": b"inf", "NUL behind": b"6\x00", "NUL before": b"\x006",
        "form feed": b"\x0c6", "no-break blank": b"\xc2\xa06", "Arabic digit": "٦".encode(), "superscript": "⁶".encode(),
        "parameter": b"6;q=1", "trailing comma": b"6,", "commas": b",,6,,", "list of three": b"6,6,6",
        "list with a blank item": b"6, ,6", "bare CR behind": b"6\r", "escape": b"%36", "braces": b"{6}",
        "bytes unit": b"6 bytes", "twenty nines": b"9" * 20}.items()},
}

CODINGS = {
    # TE.TE: one of the two sides does not see the coding.
    **{f"TE.CL {name}": Case(put(header + END + length(4), WRAPPED), 400) for name, header in {
        "blank before colon": b"Transfer-Encoding : chunked", "tab before colon": b"Transfer-Encoding\t: chunked",
        "vertical tab before colon": b"Transfer-Encoding\x0b: chunked", "NUL before colon": b"Transfer-Encoding\x00: chunked",
        "line break before colon": b"Transfer-Encoding\r\n : chunked", "leading blank": b" Transfer-Encoding: chunked",
        "leading tab": b"\tTransfer-Encoding: chunked", "leading NUL": b"\x00Transfer-Encoding: chunked",
        "bare LF before": b"X: y\nTransfer-Encoding: chunked", "bare CR before": b"X: y\rTransfer-Encoding: chunked",
        "name not ASCII": "Transfer-Encodıng: chunked".encode(), "comma in the name": b"Transfer,Encoding: chunked",
        "slash in the name": b"Transfer/Encoding: chunked", "quoted name": b'"Transfer-Encoding": chunked'}.items()},
    **{f"TE {name}": Case(put(b"Transfer-Encoding:" + value + END, GOOD_CHUNKS), 400) for name, value in {
        "cow": b" cow", "chunk": b" chunk", "chunked and cow": b" chunked, cow", "cow and chunked": b" cow, chunked",
        "comma behind": b" chunked,", "commas": b" ,,chunked", "brackets": b" [chunked]", "apostrophes": b" 'chunked'",
        "NUL inside": b" chun\x00ked", "NUL behind": b" chunked\x00", "byte behind": b" chunked\xff",
        "BOM": b" \xef\xbb\xbfchunked", "Kelvin sign": " chunKed".replace("K", "\u212a").encode(),
        "no-break blank": b" \xc2\xa0chunked", "blank inside": b" chun ked", "twice in a line": b" chunked chunked",
        "semicolon": b" chunked;", "equals": b" chunked=1", "deflate": b" deflate", "trailers": b" trailers",
        "escape": b" %63hunked", "form feed": b"\x0cchunked", "identity, chunked": b" identity, chunked",
        "fold behind": b" chunked\r\n , identity", "bare CR behind": b" chunked\r"}.items()},
    "TE twice, one empty": Case(put(CHUNKED + b"Transfer-Encoding:\r\n", GOOD_CHUNKS), 400),
    "TE twice, odd case": Case(put(CHUNKED + b"TRANSFER-ENCODING: CHUNKED\r\n", GOOD_CHUNKS), 400),
    "TE twice, one cow": Case(put(b"Transfer-encoding: cow\r\n" + CHUNKED, GOOD_CHUNKS), 400),
    "TE on GET twice": Case(ping(CHUNKED * 2, b"0\r\n\r\n"), 400),
    "TE with tabs around": kept(put(b"Transfer-Encoding:\t chunked \t\r\n", GOOD_CHUNKS), 200),
    # Names that only look alike are other headers: the length counts.
    **{f"no TE: {name.decode()}": kept(put(name + b": chunked\r\n" + length(6), BODY), 200) for name in
       (b"Transfer_Encoding", b"TransferEncoding", b"Transfer-Encoding-", b"X-Transfer-Encoding", b"TE",
        b"Content-Encoding", b"Transfer-Encoding2")},
    "TE 1.0 with CL": Case(b"POST /api/v1/put HTTP/1.0\r\n" + length(6) + CHUNKED + END + GOOD_CHUNKS, 400),
    "keep-alive 1.0 with a coding": Case(b"POST /api/v1/put HTTP/1.0\r\nConnection: keep-alive\r\n" + CHUNKED + END +
                                         GOOD_CHUNKS, 400),
}

CHUNKS = {
    **{f"chunk {name}": Case(put(CHUNKED, data), 400) for name, data in {
        "of 2^64 + 6": b"10000000000000006\r\nvictim\r\n0\r\n\r\n", "of 2^63": b"8000000000000006\r\nvictim",
        "of 2^65": b"20000000000000000\r\nvictim\r\n0\r\n\r\n", "of forty digits": b"0" * 39 + b"6\r\nvictim\r\n0\r\n\r\n",
        "dot": b"6.\r\nvictim\r\n0\r\n\r\n", "comma": b"6,0\r\nvictim\r\n0\r\n\r\n", "two sizes": b"6 6\r\nvictim\r\n0\r\n\r\n",
        "NUL behind the size": b"6\x00\r\nvictim\r\n0\r\n\r\n", "NUL before the size": b"\x006\r\nvictim\r\n0\r\n\r\n",
        "tab behind the size": b"6\t\r\nvictim\r\n0\r\n\r\n", "other digit": "٦\r\nvictim\r\n0\r\n\r\n".encode(),
        "backslash x": b"\\x6\r\nvictim\r\n0\r\n\r\n", "h suffix": b"6h\r\nvictim\r\n0\r\n\r\n",
        "CR CR LF": b"6\r\r\nvictim\r\n0\r\n\r\n", "LF CR": b"6\n\rvictim\r\n0\r\n\r\n",
        "empty line between": b"6\r\n\r\nvictim\r\n0\r\n\r\n", "data then CR": b"6\r\nvictim\r0\r\n\r\n",
        "data then CR CR LF": b"6\r\nvictim\r\r\n0\r\n\r\n", "data then LF CR": b"6\r\nvictim\n\r0\r\n\r\n",
        "data then a blank": b"6\r\nvictim \r\n0\r\n\r\n", "size of zero, minus": b"-0\r\n\r\n",
        "size of zero, hex": b"0x0\r\n\r\n", "end by CR alone": b"0\r\n\rX", "end by CR CR LF": b"0\r\n\r\r\n",
        "end by blank line": b"0\r\n \r\n\r\n", "a request for a size": b"GET / HTTP/1.1\r\n\r\n",
        "extension, bare CR": b"6;a\rb\r\nvictim\r\n0\r\n\r\n", "extension, line break quoted": b'6;a="\r\nvictim"\r\n0\r\n\r\n',
        "extension, DEL": b"6;\x7f\r\nvictim\r\n0\r\n\r\n", "extension over the limit": b"6;" + b"x" * 20000 + b"\r\nvictim\r\n0\r\n\r\n",
        "extensions over the limit together": (b"1;" + b"x" * 3000 + b"\r\nv\r\n") * 8 + b"0\r\n\r\n",
        "trailer without a name": b"0\r\n: y\r\n\r\n", "trailer folded": b"0\r\nX: y\r\n z\r\n\r\n",
        "trailer led by a tab": b"0\r\n\tX: y\r\n\r\n", "trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
        "trailer with CR": b"0\r\nX: y\rZ: a\r\n\r\n", "trailers over the limit": b"0\r\n" + b"X: y\r\n" * 4000 + b"\r\n"}.items()},
    "chunk extension quoted": kept(put(CHUNKED, b'6;a="b;c"\r\nvictim\r\n0;x=y\r\n\r\n'), 200),
    "chunk extension that looks like a size": kept(put(CHUNKED, b"6;\t0\r\nvictim\r\n0\r\n\r\n"), 200),
    "chunk size in fifteen digits": kept(put(CHUNKED, b"000000000000006\r\nvictim\r\n0000\r\n\r\n"), 200),
    "one byte a chunk": kept(put(CHUNKED, b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n"), 200),
    "trailers that would frame": kept(put(CHUNKED, b"6\r\nvictim\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: gzip\r\n"
                                                   b"Host: y\r\nX-Meta-Name: t\r\n\r\n"), 200),
    "trailer that is a request line": kept(put(CHUNKED, b"6\r\nvictim\r\n0\r\nDELETE /api/v1/get/" + VICTIM +
                                               b" HTTP/1.1: x\r\n\r\n"), 200),
}

LINES = {
    # What follows a whole body, and is no request.
    **{f"behind a body: {name}": Case(put(length(6), BODY + junk), 200, 400) for name, junk in {
        "a letter": b"x\r\n\r\n", "more body": b"victim\r\n\r\n", "NULs": b"\x00" * 8, "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        "two empty lines": b"\r\n\r\n", "LF": b"\n", "CR": b"\r\r", "a blank": b" ", "a chunk": b"0\r\n\r\n",
        "a header": b"X: y\r\n\r\n", "half a request": b"GET /api/v1/ping\r\n\r\n"}.items()},
    **{f"behind chunks: {name}": Case(put(CHUNKED, GOOD_CHUNKS + junk), 200, 400) for name, junk in {
        "a letter": b"x\r\n\r\n", "a chunk": b"6\r\nvictim\r\n", "two empty lines": b"\r\n\r\n", "NUL": b"\x00"}.items()},
    "three good, then junk": Case(ping() * 3 + b"\x01\x02", 200, 200, 200, 400),
    "an empty line between": kept(ping() + b"\r\n" + ping(), 200, 200),
    # Line ends and NUL, wherever they can stand.
    **{f"{name}": Case(data, 400) for name, data in {
        "NUL in the method": b"GE\x00T /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "NUL first": b"\x00GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "NUL in the target": b"GET /api/v1/pi\x00ng HTTP/1.1\r\nHost: x\r\n\r\n",
        "NUL in the version": b"GET /api/v1/ping HTTP/1\x00.1\r\nHost: x\r\n\r\n",
        "NUL behind the version": b"GET /api/v1/ping HTTP/1.1\x00\r\nHost: x\r\n\r\n",
        "NUL for a line": PING + b"\x00\r\n\r\n", "NUL in Host": b"GET /api/v1/ping HTTP/1.1\r\nHost: x\x00y\r\n\r\n",
        "CR in the target": b"GET /api/v1/ping\rX HTTP/1.1\r\nHost: x\r\n\r\n",
        "CR in the version": b"GET /api/v1/ping HTTP/1.1\rX: y\r\nHost: x\r\n\r\n",
        "CR in Host": b"GET /api/v1/ping HTTP/1.1\r\nHost: x\ry\r\n\r\n",
        "CR in a name": PING + b"X\rY: z\r\n\r\n", "CR first": b"\rGET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "LF first": b"\nGET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
        "LF CR": b"GET /api/v1/ping HTTP/1.1\n\rHost: x\n\r\n\r",
        "LF in the target": b"GET /api/v1/ping\nX HTTP/1.1\r\nHost: x\r\n\r\n",
        "LF before a smuggling header": PING + b"X: y\nContent-Length: 200\r\n\r\n",
        "CR before a smuggling header": PING + b"X: y\rTransfer-Encoding: chunked\r\n\r\n",
        "end by CR LF LF": b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\n",
        "end by LF CR LF": b"GET /api/v1/ping HTTP/1.1\r\nHost: x\n\r\n",
        "end by CR CR LF": PING + b"\r\r\n", "vertical tab for a line end": b"GET /api/v1/ping HTTP/1.1\x0bHost: x\x0b\x0b",
        "next-line for a line end": "GET /api/v1/ping HTTP/1.1\u0085Host: x\r\n\r\n".encode(),
        "fold behind Host": PING + b" y\r\n\r\n", "fold of a blank line": PING + b" \r\n\r\n",
        "fold of a tab line": PING + b"X: y\r\n\t\r\n\r\n", "fold of an empty value": PING + b"X:\r\n y\r\n\r\n",
        "fold at the length": PUT + b"Content-Length: 6\r\n 6\r\n\r\n" + BODY,
        "fold of a coding's second word": PUT + b"Transfer-Encoding: chunked,\r\n identity\r\n\r\n0\r\n\r\n",
        "three empty lines first": b"\r\n\r\n\r\n" + PING + END, "a thousand empty lines": b"\r\n" * 1000,
        "version missing its minor": b"GET /api/v1/ping HTTP/1.\r\nHost: x\r\n\r\n",
        "version -1": b"GET /api/v1/ping HTTP/1.-1\r\nHost: x\r\n\r\n", "version 3": b"GET / HTTP/3\r\nHost: x\r\n\r\n",
        "two versions": b"GET /api/v1/ping HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "a target that is a request": b"GET /api/v1/ping HTTP/1.1 GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
        "no Host, absolute target": b"GET http://x/api/v1/ping HTTP/1.1\r\n\r\n",
        "Host with a line's escape and a comma": b"GET /api/v1/ping HTTP/1.1\r\nHost: x,y\r\n\r\n",
        "Host with a backslash": b"GET /api/v1/ping HTTP/1.1\r\nHost: x\\y\r\n\r\n",
        "Host with a quote": b'GET /api/v1/ping HTTP/1.1\r\nHost: "x"\r\n\r\n',
        "Host with a query": b"GET /api/v1/ping HTTP/1.1\r\nHost: x?y\r\n\r\n",
        "Host twice, one far": PING + b"X: y\r\n" * 50 + b"hOST: x\r\n\r\n",
        "Host, blank before the colon": b"GET /api/v1/ping HTTP/1.1\r\nHost : x\r\n\r\n",
        "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "SOCKS": b"\x05\x01\x00\r\n", "Redis": b"*1\r\n$4\r\nPING\r\n\r\n"}.items()},
    "SMTP": Case(b"EHLO x\r\nMAIL FROM:<a@b>\r\n\r\n", 501),
}

FLOODS = {
    "header of 32 KiB + 1": Case(PING + b"X: " + b"x" * (32 << 10), 431, tail=False),
    "header of 1 MiB": Case(PING + b"X: " + b"x" * (1 << 20), 431, tail=False),
    "name of 1 MiB": Case(PING + b"x" * (1 << 20), 431, tail=False),
    "101 headers": Case(PING + b"X: y\r\n" * 100 + END, 431),
    "5,000 headers": Case(PING + b"X: y\r\n" * 5000 + END, 431),
    "100,000 headers": Case(PING + b"a:b\r\n" * 100000, 431, tail=False),
    "5,000 Cookies of 100 bytes": Case(PING + (b"Cookie: " + b"c" * 100 + END) * 5000, 431, tail=False),
    "5,000 Hosts": Case(PING + b"Host: x\r\n" * 5000 + END, 431),
    "5,000 lengths": Case(PUT + b"Content-Length: 6\r\n" * 5000 + END, 431),
    "a length of 30,000 zeros and a digit": kept(put(b"Content-Length: " + b"0" * 30000 + b"6\r\n", BODY), 200),
    "target of 4 KiB + 1": Case(get(b"/" + b"a" * 4096), 414),
    "target of 1 MiB": Case(b"GET /" + b"a" * (1 << 20), 414, tail=False),
    "query of 1 MiB": Case(b"GET /api/v1/ping?" + b"a=b&" * (1 << 18), 414, tail=False),
    "escapes of 12 KiB": Case(get(b"/" + b"%41" * 4096), 414),
    "slashes of 5 KiB": Case(get(b"/" * 5000), 414),
    "absolute target of 5 KiB": Case(get(b"http://" + b"h" * 5000 + b"/"), 414),
    "header of 32 KiB, all blanks": Case(PING + b"X:" + b" " * (33 << 10), 431, tail=False),
    "100 headers": kept(ping(b"X: y\r\n" * 99), 200),
    "target of 4 KiB": kept(get(b"/" + b"a" * 4095), 404),
    "64 requests in one piece": kept(ping() * 64, *[200] * 64),
    "1,000 requests in one piece": kept(ping() * 1000, *[200] * 1000),
    "300 HEADs, then junk": Case(b"HEAD /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n" * 300 + b"\x00", *[200] * 300, 400),
}

# Nothing but names the API has is found, and nothing of the file system.
PATHS = {
    **{f"path {path.decode('latin-1')[:60]}": kept(get(path), 404) for path in (
        b"/etc/passwd", b"//etc/passwd", b"/api/v1//ping", b"/api//v1/ping", b"/api/v1/ping/", b"/API/v1/ping",
        b"/api/v1/./ping", b"/api/v1/x/../ping", b"/..", b"/../../../../etc/passwd", b"/api/v1/../../../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd", b"/api/v1/%2e%2e/v1/ping", b"/api%2fv1%2fping", b"/api/v1%2fping",
        b"/..%2f..%2f..%2fetc%2fpasswd", b"/..%5c..%5cetc%5cpasswd", b"/..\\..\\etc\\passwd",
        b"/%c0%ae%c0%ae/etc/passwd", b"/%252e%252e/etc/passwd", b"/api/v1/ping;jsessionid=1", b"/api/v1/ping%20",
        b"/api/v1/ping%0d%0aX-Injected:%201", b"/api/v1/ping%0a", b"/api/v1/ping.json", b"/state/STORE", b"/files/log",
        b"/api/v1/get", b"/api/v1/put/../ping")},
    **{f"path {path.decode('latin-1')[:60]}": kept(get(path), 400) for path in (
        b"/api/v1/get/..", b"/api/v1/get/%2e%2e", b"/api/v1/get/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        b"/api/v1/get/..%5c..%5cstate", b"/api/v1/get/%252e%252e", b"/api/v1/get/-h", b"/api/v1/get/--help",
        b"/api/v1/get/-rf", b"/api/v1/get/--state-dir=%2f", b"/api/v1/get/*", b"/api/v1/get/'%20OR%201=1--",
        b"/api/v1/get/%27%3bDROP%20TABLE%20objects", b"/api/v1/get/" + VICTIM + b"%20", b"/api/v1/get/%20" + VICTIM,
        b"/api/v1/get/" + VICTIM + b"%0d%0aX-Injected:%201", b"/api/v1/get/" + VICTIM + b"%0a",
        b"/api/v1/get/" + VICTIM + b".txt", b"/api/v1/get/" + VICTIM + b";x", b"/api/v1/get/" + VICTIM + b"%2f",
        b"/api/v1/get/%25%30%31" + VICTIM[2:], b"/api/v1/get/$(id)", b"/api/v1/get/%24%7bjndi%3aldap%7d",
        b"/api/v1/meta/--help", b"/api/v1/meta/..%2fSTORE", b"/api/v1/get/%ff%fe", b"/api/v1/get/%F0%9F%A6%8A",
        b"/api/v1/get/" + VICTIM[:-1] + b"%c0%b0", b"/api/v1/get/{id}")},
    **{f"path {path.decode('latin-1')[:60]}, refused": Case(get(path), 400) for path in (
        b"/api/v1/get/" + VICTIM + b"%00", b"/%00", b"/api/v1/ping%00.html", b"/api/v1/get/%u002e%u002e", b"/%", b"/%2",
        b"/%g0", b"/a\xc0\xae", "/é".encode(), b"..", b"../etc/passwd", b"\\etc\\passwd", b"file:///etc/passwd",
        b"http:/etc/passwd", b"http://u:p@x/api/v1/ping", b"*", b"javascript:alert(1)", b"/a#b", b"/a\x7fb", b"/a\x01b")},
    "an escape in an id": kept(get(b"/api/v1/get/%30%31" + VICTIM[2:]), 400),
    "an escape in a path": kept(get(b"/api/v1/%70ing"), 404),
    "a query is not looked at": kept(get(b"/api/v1/ping?/../../etc/passwd%00%zz"), 200),
    "an absolute target": kept(get(b"http://other:1/api/v1/ping"), 200),
    "an absolute target, traversing": kept(get(b"http://x/../../etc/passwd"), 404),
    "delete by GET": kept(get(b"/api/v1/delete/" + VICTIM), 405),
    "delete of an option": kept(b"POST /api/v1/delete/--all HTTP/1.1\r\nHost: x\r\n" + length(0) + END, 400),
    "delete of a wildcard": kept(b"DELETE /api/v1/delete/* HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a method hidden in a header": kept(ping(b"X-HTTP-Method-Override: DELETE\r\n"), 200),
    "a target hidden in a header": kept(ping(b"X-Original-URL: /api/v1/delete/" + VICTIM + b"\r\nX-Rewrite-URL: /x\r\n"), 200),
    "an upgrade to h2c": kept(ping(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), 200),
    "an upgrade to websocket": kept(ping(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n"), 200),
    "TRACE": Case(b"TRACE /api/v1/ping HTTP/1.1\r\nHost: x\r\nCookie: a\r\n\r\n", 405),
    "CONNECT": Case(b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
}

UPLOAD = b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\nX-Meta-ID: " + HIDDEN + b"\r\n"
CHUNKED_UPLOAD = UPLOAD + CHUNKED + END

# How far a request has come when its client stops.
PREFIXES = {
    "half a method": b"PO", "the method": b"POST ", "half a target": b"POST /api/v1/p", "half a version": b"POST /api/v1/put HTTP/1",
    "the first line": b"POST /api/v1/put HTTP/1.1\r\n", "the first line, half an end": b"POST /api/v1/put HTTP/1.1\r",
    "half a name": UPLOAD + b"X-Me", "a colon": UPLOAD + b"X-Meta-Name:", "half a value": UPLOAD + b"X-Meta-Name: ab",
    "all headers, no empty line": UPLOAD + length(6), "all headers, half an empty line": UPLOAD + length(6) + b"\r",
    "the header": UPLOAD + length(6) + END, "a byte of the body": UPLOAD + length(6) + END + b"h",
    "all but a byte of the body": UPLOAD + length(6) + END + b"hidde",
    "64 KiB of a large body": UPLOAD + length(4 << 20) + END + bytes(64 << 10),
    "1 MiB of a large body": UPLOAD + length(4 << 20) + END + bytes(1 << 20),
    "the header of chunks": CHUNKED_UPLOAD, "half a chunk's size": CHUNKED_UPLOAD + b"1",
    "a chunk's size": CHUNKED_UPLOAD + b"6", "a chunk's size and CR": CHUNKED_UPLOAD + b"6\r",
    "a chunk's size line": CHUNKED_UPLOAD + b"6\r\n", "half a chunk's extension": CHUNKED_UPLOAD + b"6;a=",
    "half a chunk": CHUNKED_UPLOAD + b"6\r\nhid", "a chunk without its end": CHUNKED_UPLOAD + b"6\r\nhidden",
    "a chunk": CHUNKED_UPLOAD + b"6\r\nhidden\r\n", "the last chunk's 0": CHUNKED_UPLOAD + b"6\r\nhidden\r\n0",
    "the last chunk's line": CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\n", "half a trailer": CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\nX: ",
    "a trailer": CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\nX: y\r\n", "the end's CR": CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\n\r",
    "2 MiB of chunks": CHUNKED_UPLOAD + chunk(bytes(256 << 10)) * 8,
}

HALF_CLOSED = {
    "nothing": Case(b"", half_close=True, tail=False),
    "an empty line": Case(b"\r\n", half_close=True, tail=False),
    **{name: Case(data, 400, half_close=True, tail=False) for name, data in PREFIXES.items()},
    "a whole request": Case(ping(), 200, half_close=True, tail=False),
    "a whole upload": Case(put(length(6), BODY), 200, half_close=True, tail=False),
    "a whole chunked upload": Case(put(CHUNKED, GOOD_CHUNKS), 200, half_close=True, tail=False),
    "three requests": Case(ping() * 3, 200, 200, 200, half_close=True, tail=False),
    "two and a half": Case(ping() * 2 + PING, 200, 200, 400, half_close=True, tail=False),
    "a large answer": Case(get(b"/api/v1/get/" + BIG), 200, half_close=True, tail=False),
}

# The client's reset, after so many bytes of the answer.
RESETS = {
    "nothing": (Case(b"", tail=False), 0),
    **{name: (Case(data, tail=False), 0) for name, data in PREFIXES.items()},
    "after a FIN, half a header": (Case(PREFIXES["half a name"], tail=False, half_close=True), 0),
    "after a FIN, half a body": (Case(PREFIXES["all but a byte of the body"], tail=False, half_close=True), 0),
    "a request, unread": (Case(ping(), tail=False), 0),
    "a whole upload, unread": (Case(put(length(6), BODY), tail=False), 0),
    "a whole chunked upload, unread": (Case(put(CHUNKED, GOOD_CHUNKS), tail=False), 0),
    "a whole large upload that is refused": (Case(UPLOAD + b"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n" + length(1 << 20) + END +
                                                  bytes(1 << 20), tail=False), 0),
    "behind 100 Continue": (Case(UPLOAD + b"Expect: 100-continue\r\n" + length(6) + END, tail=False), 25),
    "behind 100 Continue, half a body": (Case(UPLOAD + b"Expect: 100-continue\r\n" + length(6) + END + b"hid", tail=False), 0),
    "a byte of an answer": (Case(ping(), tail=False), 1),
    "a large answer, unread": (Case(get(b"/api/v1/get/" + BIG), tail=False), 0),
    "a large answer, its first bytes": (Case(get(b"/api/v1/get/" + BIG), tail=False), 100),
    "a large answer, half of it": (Case(get(b"/api/v1/get/" + BIG), tail=False), BIG_BYTES // 2),
    "a range of a large answer": (Case(b"GET /api/v1/get/" + BIG + b" HTTP/1.1\r\nHost: x\r\nRange: bytes=100000-\r\n\r\n",
                                       tail=False), 1000),
    "twenty large answers in a row": (Case(get(b"/api/v1/get/" + BIG) * 20, tail=False), 1000),
    "a thousand requests in a row": (Case(ping() * 1000, tail=False), 0),
    "a refusal": (Case(put(length(6) + CHUNKED), tail=False), 0),
    "a refusal, while more is sent": (Case(put(length(6) + CHUNKED) + bytes(1 << 18), tail=False), 20),
}



def ranged(status, value, more=b""):
    return kept(b"GET /api/v1/get/" + BIG + b" HTTP/1.1\r\nHost: x\r\nRange: " + value + END + more + END, status)


def spread(count, size=1):
    return b"bytes=" + b",".join(b"%d-%d" % (i * 200000, i * 200000 + size - 1) for i in range(count))


RANGES = {
    "16 ranges": ranged(206, spread(16)), "17 ranges": ranged(200, spread(17)), "80 ranges": ranged(200, spread(80)),
    "3,000 ranges": ranged(200, b"bytes=" + b",".join(b"%d-%d" % (i, i) for i in range(0, 6000, 2))),
    "a byte 7,000 times": ranged(200, b"bytes=" + b",".join([b"0-0"] * 7000)),
    "a byte 16 times": ranged(206, b"bytes=" + b",".join([b"0-0"] * 16)),
    "all of it twice": ranged(200, b"bytes=0-,0-"), "all of it 16 times": ranged(200, b"bytes=" + b",".join([b"0-"] * 16)),
    "all but little, 16 times": ranged(200, b"bytes=" + b",".join(b"%d-" % i for i in range(16))),
    "suffixes, each longer": ranged(200, b"bytes=" + b",".join(b"-%d" % (1 << i) for i in range(9, 25))),
    "two halves and a byte": ranged(200, b"bytes=0-8388608,8388608-"),
    "backwards in blocks": ranged(206, b"bytes=" + b",".join(b"%d-%d" % (i << 20, i << 20) for i in range(15, -1, -1))),
    "a last byte over 64 bits": ranged(206, b"bytes=1-18446744073709551616"),
    "a last byte of 64 bits": ranged(206, b"bytes=1-18446744073709551615"),
    "a first byte over 64 bits": ranged(416, b"bytes=18446744073709551616-"),
    "a suffix over 64 bits": ranged(206, b"bytes=-18446744073709551617"),
    "a first byte that would wrap": ranged(416, b"bytes=18446744073709551615-18446744073709551615"),
    "a thousand digits": ranged(416, b"bytes=" + b"9" * 1000 + b"-"), "signs": ranged(200, b"bytes=+1-+2"),
    "minus": ranged(200, b"bytes=--1"), "hex": ranged(200, b"bytes=0x1-0x2"), "a blank inside": ranged(200, b"bytes=1 -2"),
    "5,000 commas": ranged(200, b"bytes=" + b"," * 5000), "commas around one": ranged(206, b"bytes=,,1-2,,"),
    "5,000 blanks": ranged(206, b"bytes=1-2" + b" " * 5000), "other unit": ranged(200, b"pages=1-2"),
    "two Range headers, the first counts": ranged(206, b"bytes=1-2", b"Range: bytes=3-4\r\n"),
    "nothing but unsatisfiable ones": ranged(416, b"bytes=" + b",".join([b"99999999-"] * 16)),
    "a flood that If-Range refuses": ranged(200, spread(16), b'If-Range: "x"\r\n'),
    "line break": Case(b"GET /api/v1/get/" + BIG + b" HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\rX: y\r\n\r\n", 400),
}

# Clients that are slow on purpose: what they send at once, then the byte that they send again and
# again (none: they stop), and the answers before the node ends it. Each lasts for one deadline.
SLOW = {
    "nothing": (b"", b"", []), "an idle connection that was used": (ping(), b"", [200]),
    "an empty line": (b"\r\n", b"", []),
    "a header that stops": (PING + b"X: y", b"", [408]), "a header byte by byte": (PING + b"X: ", b"y", [408]),
    "a header line by line": (PING, b"X: y\r\n", [408]), "a first line byte by byte": (b"GET /", b"a", [408]),
    "a method byte by byte": (b"", b"G", [408]), "a second header that stops": (ping() + b"GET", b"", [200, 408]),
    "a body that never begins": (UPLOAD + length(6) + END, b"", [408]),
    "a body that stops": (UPLOAD + length(6) + END + b"hid", b"", [408]),
    "a body byte by byte": (UPLOAD + length(1000) + END, b"x", [408]),
    "a large body that stops": (UPLOAD + length(4 << 20) + END + bytes(1 << 20), b"", [408]),
    "a large body byte by byte": (UPLOAD + length(4 << 20) + END + bytes(1 << 20), b"x", [408]),
    "100 Continue, then nothing": (UPLOAD + b"Expect: 100-continue\r\n" + length(6) + END, b"", [408]),
    "a chunk's size that stops": (CHUNKED_UPLOAD + b"6", b"", [408]),
    "a chunk that stops": (CHUNKED_UPLOAD + b"6\r\nhid", b"", [408]),
    "chunks of a byte": (CHUNKED_UPLOAD, b"1\r\nx\r\n", [408]),
    "a chunk's extension byte by byte": (CHUNKED_UPLOAD + b"6;", b"a", [408]),
    "a trailer byte by byte": (CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\n", b"a", [408]),
    "a last line that stops": (CHUNKED_UPLOAD + b"6\r\nhidden\r\n0\r\n\r", b"", [408]),
    # Refused, but it neither reads nor closes: the node's own side is shut, and ends the rest.
    "a refused client that stays": (put(length(6) + CHUNKED), b"", [400]),
    "a refused client that goes on": (put(length(6) + CHUNKED), b"x", [400]),
}

# Their answers are larger than all buffers between, and they do not take them.
UNREAD = {
    "a large answer": get(b"/api/v1/get/" + BIG), "ten large answers": get(b"/api/v1/get/" + BIG) * 10,
    "a range": b"GET /api/v1/get/" + BIG + b" HTTP/1.1\r\nHost: x\r\nRange: bytes=1-\r\n\r\n",
    "many small answers": ping() * 20000,
}

TABLES = {"lengths": LENGTHS, "codings": CODINGS, "chunks": CHUNKS, "lines": LINES, "floods": FLOODS, "paths": PATHS,
          "half-closed": HALF_CLOSED, "ranges": RANGES}
