"""Requests that two parsers might read in two ways. Each is refused with 400 and a close, and what
might have been a second request hidden behind it is never carried out (DESIGN §7, RFC 9112 §11.2)."""

import pytest

import wire
from harness import FIGURES
from hostile import DONE, Case, Trap, statuses

PUT = b"POST /api/v1/put HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def put(headers, rest=b""):
    return PUT + headers + b"\r\n" + rest


def get(headers):
    return GET + headers + b"\r\n"


def chunks(body):
    return put(CHUNKED, body)


CASES = {
    # The body's length said twice, or not clearly.
    "CL with TE": put(b"Content-Length: 4\r\n" + CHUNKED, b"0\r\n\r\n"),
    "TE with CL": put(CHUNKED + b"Content-Length: 4\r\n", b"0\r\n\r\n"),
    "CL with TE in odd case": put(b"content-length: 4\r\ntRANSFER-eNCODING: chunked\r\n", b"0\r\n\r\n"),
    "CL 0 with TE": put(b"Content-Length: 0\r\n" + CHUNKED, b"0\r\n\r\n"),
    "two CL, the same": put(b"Content-Length: 4\r\nContent-Length: 4\r\n", b"body"),
    "two CL, different": put(b"Content-Length: 4\r\nContent-Length: 0\r\n", b"body"),
    "CL list, the same": put(b"Content-Length: 4, 4\r\n", b"body"),
    "CL list, different": put(b"Content-Length: 4, 0\r\n", b"body"),
    "CL plus": put(b"Content-Length: +4\r\n", b"body"),
    "CL minus": put(b"Content-Length: -4\r\n", b"body"),
    "CL minus zero": put(b"Content-Length: -0\r\n"),
    "CL hex": put(b"Content-Length: 0x4\r\n", b"body"),
    "CL exponent": put(b"Content-Length: 1e1\r\n", b"body"),
    "CL fraction": put(b"Content-Length: 4.0\r\n", b"body"),
    "CL blank inside": put(b"Content-Length: 4 4\r\n", b"body"),
    "CL empty": put(b"Content-Length: \r\n", b"body"),
    "CL empty without blank": put(b"Content-Length:\r\n", b"body"),
    "CL word": put(b"Content-Length: four\r\n", b"body"),
    "CL comma": put(b"Content-Length: ,4\r\n", b"body"),
    "CL quoted": put(b'Content-Length: "4"\r\n', b"body"),
    "CL semicolon": put(b"Content-Length: 4;\r\n", b"body"),
    "CL other digits": put("Content-Length: ４\r\n".encode(), b"body"),
    "CL vertical tab": put(b"Content-Length: \x0b4\r\n", b"body"),
    "CL over 64 bits": put(b"Content-Length: 18446744073709551620\r\n", b"body"),
    "CL of 64 bits": put(b"Content-Length: 18446744073709551615\r\n", b"body"),
    "CL over 63 bits": put(b"Content-Length: 9223372036854775808\r\n", b"body"),
    "CL twice on GET": get(b"Content-Length: 0\r\nContent-Length: 0\r\n"),
    # Codings other than chunked, alone, once.
    "TE identity": put(b"Transfer-Encoding: identity\r\n"),
    "TE gzip": put(b"Transfer-Encoding: gzip\r\n"),
    "TE gzip, chunked": put(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
    "TE chunked, gzip": put(b"Transfer-Encoding: chunked, gzip\r\n", b"0\r\n\r\n"),
    "TE chunked, identity": put(b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
    "TE chunked, chunked": put(b"Transfer-Encoding: chunked, chunked\r\n", b"0\r\n\r\n"),
    "TE twice": put(CHUNKED + CHUNKED, b"0\r\n\r\n"),
    "TE twice, one identity": put(CHUNKED + b"Transfer-Encoding: identity\r\n", b"0\r\n\r\n"),
    "TE xchunked": put(b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
    "TE chunkedx": put(b"Transfer-Encoding: chunkedx\r\n", b"0\r\n\r\n"),
    "TE with parameter": put(b"Transfer-Encoding: chunked;q=1\r\n", b"0\r\n\r\n"),
    "TE quoted": put(b'Transfer-Encoding: "chunked"\r\n', b"0\r\n\r\n"),
    "TE empty": put(b"Transfer-Encoding: \r\n", b"0\r\n\r\n"),
    "TE comma": put(b"Transfer-Encoding: ,chunked\r\n", b"0\r\n\r\n"),
    "TE vertical tab": put(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
    "TE form feed behind": put(b"Transfer-Encoding: chunked\x0c\r\n", b"0\r\n\r\n"),
    "TE on HTTP/1.0": b"POST /api/v1/put HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    # Lines.
    "folded TE": put(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n"),
    "folded CL": put(b"Content-Length:\r\n\t4\r\n", b"body"),
    "folded other": get(b"X-A: b\r\n c\r\n"),
    "first line folded": b"GET /api/v1/ping HTTP/1.1\r\n X-A: b\r\nHost: x\r\n\r\n",
    "blank before colon TE": put(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
    "blank before colon CL": put(b"Content-Length : 4\r\n", b"body"),
    "tab before colon": put(b"Content-Length\t: 4\r\n", b"body"),
    "no colon": get(b"X-Header\r\n"),
    "no name": get(b": value\r\n"),
    "name with a blank": get(b"X Header: a\r\n"),
    "name with brackets": get(b"X(Header): a\r\n"),
    "name not ASCII": get("X-Höader: a\r\n".encode()),
    "name with NUL": get(b"X-A\x00: a\r\n"),
    "value with NUL": get(b"X-A: a\x00b\r\n"),
    "value with bare CR": get(b"X-A: a\rX-B: b\r\n"),
    "value with DEL": get(b"X-A: a\x01b\r\n"),
    "value with bare CR before CRLF": get(b"X-A: a\r\r\n"),
    "bare LF": b"GET /api/v1/ping HTTP/1.1\nHost: x\n\n",
    "bare LF in one line": get(b"X-A: a\nX-B: b\r\n"),
    "bare LF at the end": GET + b"\n",
    "bare CR as the line's end": b"GET /api/v1/ping HTTP/1.1\rHost: x\r\r",
    # The request line.
    "two blanks": b"GET  /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab": b"GET\t/api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank in the target": b"GET /api/v1/p ing HTTP/1.1\r\nHost: x\r\n\r\n",
    "trailing blank": b"GET /api/v1/ping HTTP/1.1 \r\nHost: x\r\n\r\n",
    "leading blank": b" GET /api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /api/v1/ping\r\nHost: x\r\n\r\n",
    "HTTP/0.9": b"GET /api/v1/ping HTTP/0.9\r\nHost: x\r\n\r\n",
    "HTTP/1.2": b"GET /api/v1/ping HTTP/1.2\r\nHost: x\r\n\r\n",
    "HTTP/2.0": b"GET /api/v1/ping HTTP/2.0\r\nHost: x\r\n\r\n",
    "HTTP/1": b"GET /api/v1/ping HTTP/1\r\nHost: x\r\n\r\n",
    "HTTP/1.10": b"GET /api/v1/ping HTTP/1.10\r\nHost: x\r\n\r\n",
    "HTTP/01.1": b"GET /api/v1/ping HTTP/01.1\r\nHost: x\r\n\r\n",
    "http/1.1": b"GET /api/v1/ping http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "relative target": b"GET api/v1/ping HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /api/v1/ping#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "%00 in the path": b"GET /api/v1/get/%00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "half an escape": b"GET /api/v1/ping%4 HTTP/1.1\r\nHost: x\r\n\r\n",
    "no hex escape": b"GET /api/v1/%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    # Host.
    "no Host": b"GET /api/v1/ping HTTP/1.1\r\n\r\n",
    "two Hosts": get(b"Host: x\r\n"),
    "two Hosts, different": get(b"Host: y\r\n"),
    "Host with a path": b"GET /api/v1/ping HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a blank": b"GET /api/v1/ping HTTP/1.1\r\nHost: a b\r\n\r\n",
    "Host with a user": b"GET /api/v1/ping HTTP/1.1\r\nHost: u@h\r\n\r\n",
    # Chunks.
    "chunk size over 64 bits": chunks(b"10000000000000004\r\nbody\r\n0\r\n\r\n"),
    "chunk size of 64 bits": chunks(b"ffffffffffffffff\r\nbody\r\n0\r\n\r\n"),
    "chunk size 0x": chunks(b"0x4\r\nbody\r\n0\r\n\r\n"),
    "chunk size plus": chunks(b"+4\r\nbody\r\n0\r\n\r\n"),
    "chunk size minus": chunks(b"-4\r\nbody\r\n0\r\n\r\n"),
    "chunk size blank before": chunks(b" 4\r\nbody\r\n0\r\n\r\n"),
    "chunk size blank behind": chunks(b"4 \r\nbody\r\n0\r\n\r\n"),
    "chunk size no hex": chunks(b"4g\r\nbody\r\n0\r\n\r\n"),
    "chunk size empty": chunks(b"\r\nbody\r\n0\r\n\r\n"),
    "chunk size underscore": chunks(b"0_4\r\nbody\r\n0\r\n\r\n"),
    "chunk size bare LF": chunks(b"4\nbody\r\n0\r\n\r\n"),
    "chunk size bare CR": chunks(b"4\rbody\r\n0\r\n\r\n"),
    "chunk data without CRLF": chunks(b"4\r\nbody0\r\n\r\n"),
    "chunk data with LF": chunks(b"4\r\nbody\n0\r\n\r\n"),
    "chunk data too long": chunks(b"4\r\nbody1\r\n0\r\n\r\n"),
    "chunk data too short": chunks(b"6\r\nbody\r\n0\r\n\r\n"),
    "chunk extension with LF": chunks(b"4;a\nb\r\nbody\r\n0\r\n\r\n"),
    "chunk extension with NUL": chunks(b"4;a\x00\r\nbody\r\n0\r\n\r\n"),
    "last chunk with bare LF": chunks(b"0\n\n"),
    "trailer with bare LF": chunks(b"0\r\nX: y\n\r\n"),
    "trailer with bare CR": chunks(b"0\r\nX: y\rz\r\n\r\n"),
}


@pytest.fixture(scope="module")
def trap(shared_node):
    made = Trap(shared_node)
    yield made
    made.assert_nothing_left()
    FIGURES.append(f"request smuggling: {DONE['smuggling']} cases, each refused and closed")


@pytest.mark.parametrize("case", CASES)
def test_refused(node, trap, case):
    """One answer, 400, then the end; the requests behind it leave no trace."""
    trap.spring(Case(CASES[case], 501 if case == "HTTP/2 preface" else 400), "smuggling")


@pytest.mark.parametrize("cut", [1, 3, 17])
@pytest.mark.parametrize("case", ["CL with TE", "TE chunked, gzip", "two CL, different", "chunk size 0x",
                                  "folded TE", "value with bare CR", "chunk data without CRLF"])
def test_refused_in_pieces(node, http, case, cut):
    """The same when the bytes trickle in."""
    with node.unchanged():
        with wire.Connection(node.address) as connection:
            data = CASES[case]
            try:
                for at in range(0, len(data), cut):
                    connection.send(data[at:at + cut])
                connection.half_close()
            except OSError:
                pass  # refused before the end
            answers = connection.read_raw()
    assert statuses(answers) == [400], answers


GOOD = {
    "plain": put(b"Content-Length: 4\r\n", b"body"),
    "CL with leading zeros": put(b"Content-Length: 0004\r\n", b"body"),
    "CL with blanks around": put(b"Content-Length:   4  \r\n", b"body"),
    "chunked in odd case": put(b"transfer-ENCODING: ChUnKeD\r\n", b"4\r\nbody\r\n0\r\n\r\n"),
    "chunk sizes with zeros": chunks(b"0004\r\nbody\r\n00\r\n\r\n"),
    "chunk sizes in capitals": chunks(b"A\r\n0123456789\r\n0\r\n\r\n"),
    "chunk extension": chunks(b"4;a=b\r\nbody\r\n0;x\r\n\r\n"),
    "trailer": chunks(b"4\r\nbody\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n"),
    "an empty line before": b"\r\n" + put(b"Content-Length: 4\r\n", b"body"),
    "an empty value": put(b"X-Empty:\r\nContent-Length: 4\r\n", b"body"),
}


@pytest.mark.parametrize("case", GOOD)
def test_accepted(node, case):
    """The counter-check: unusual but clear requests pass, and the connection stays in step."""
    with wire.Connection(node.address) as connection:
        connection.send(GOOD[case] + get(b""))
        reply = connection.read()
        assert reply.status == 200 and reply.json()["size"] in (4, 10)
        assert connection.read().status == 200
