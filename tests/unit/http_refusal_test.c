/* Goal: whatever two readers could understand in two ways is refused, and the connection closed, so
 * that nothing can be smuggled; and no bytes at all bring the parser down. */
#include "api/http/http_internal.h"
#include "tests/unit/http_fixture.h"

#include <sys/time.h>

#define LINE  "GET /hello HTTP/1.1\r\n"
#define HOST  "Host: a\r\n"
#define POST  "POST /echo HTTP/1.1\r\nHost: a\r\n"
#define CHUNK POST "Transfer-Encoding: chunked\r\n\r\n"

struct bad {
    const char *name;
    unsigned status;
    const char *bytes;
    size_t len; /* 0 = to the terminator */
};

/* A NUL inside: its length by sizeof. */
#define WITH_NUL(bytes) bytes, sizeof(bytes) - 1

static const struct bad cases[] = {
    /* The request line. */
    {"bytes that are no HTTP", 400, "\x16\x03\x01\x02", 0},
    {"begins with a blank", 400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0},
    {"two empty lines first", 400, "\r\n\r\n" LINE HOST "\r\n", 0},
    {"no target", 400, "GET HTTP/1.1\r\n" HOST "\r\n", 0},
    {"no version", 400, "GET /hello\r\n" HOST "\r\n", 0},
    {"two blanks", 400, "GET  /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"two blanks after the target", 400, "GET /hello  HTTP/1.1\r\n" HOST "\r\n", 0},
    {"other protocol", 400, "GET /hello RTSP/1.0\r\n" HOST "\r\n", 0},
    {"other protocol of the same length", 400, "GET /hello ICE/1.1\r\n" HOST "\r\n", 0},
    {"blank in the target", 400, "GET /hel lo HTTP/1.1\r\n" HOST "\r\n", 0},
    {"blank after the version", 400, "GET /hello HTTP/1.1 \r\n" HOST "\r\n", 0},
    {"tab as separator", 400, "GET\t/hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"HTTP/0.9", 400, "GET /hello HTTP/0.9\r\n" HOST "\r\n", 0},
    {"HTTP/1.2", 400, "GET /hello HTTP/1.2\r\n" HOST "\r\n", 0},
    {"HTTP/2.0", 400, "GET /hello HTTP/2.0\r\n" HOST "\r\n", 0},
    {"HTTP/11.1", 400, "GET /hello HTTP/11.1\r\n" HOST "\r\n", 0},
    {"HTTP/1.10", 400, "GET /hello HTTP/1.10\r\n" HOST "\r\n", 0},
    {"http/1.1", 400, "GET /hello http/1.1\r\n" HOST "\r\n", 0},
    {"preface of HTTP/2", 501, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
    {"method in lower case", 501, "get /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"unknown method", 501, "BREW /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"method that is no token", 400, "GE(T /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"TRACE", 405, "TRACE /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"PATCH", 405, "PATCH /hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"CONNECT", 405, "CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n", 0},
    {"asterisk", 400, "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 0},
    {"relative target", 400, "GET hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"other scheme", 400, "GET ftp://a/hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"absolute target without a host", 400, "GET http:///hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"user in the target", 400, "GET http://u@a/hello HTTP/1.1\r\n" HOST "\r\n", 0},
    {"fragment", 400, "GET /hello#x HTTP/1.1\r\n" HOST "\r\n", 0},
    {"NUL by escape", 400, "GET /hel%00lo HTTP/1.1\r\n" HOST "\r\n", 0},
    {"cut escape", 400, "GET /hello%4 HTTP/1.1\r\n" HOST "\r\n", 0},
    {"escape that is not hex", 400, "GET /hello%zz HTTP/1.1\r\n" HOST "\r\n", 0},
    {"byte over 0x7f in the target", 400, "GET /hell\xc3\xb6 HTTP/1.1\r\n" HOST "\r\n", 0},
    {"NUL in the target", 400, WITH_NUL("GET /hel\0lo HTTP/1.1\r\n" HOST "\r\n")},
    /* Lines. */
    {"bare LF", 400, "GET /hello HTTP/1.1\n" HOST "\r\n", 0},
    {"bare LF between headers", 400, LINE "Host: a\nX: y\r\n\r\n", 0},
    {"bare LF at the end", 400, LINE HOST "\n", 0},
    {"bare CR in a value", 400, LINE HOST "X: a\rb\r\n\r\n", 0},
    {"bare CR before a header", 400, LINE HOST "X:\rContent-Length: 3\r\n\r\n", 0},
    {"CR CR LF", 400, LINE HOST "X: a\r\r\n\r\n", 0},
    {"NUL in a value", 400, WITH_NUL(LINE HOST "X: a\0b\r\n\r\n")},
    {"NUL in a name", 400, WITH_NUL(LINE HOST "X\0Y: a\r\n\r\n")},
    {"DEL in a value", 400, LINE HOST "X: a\x7f\r\n\r\n", 0},
    {"control character in a value", 400, LINE HOST "X: a\x01\r\n\r\n", 0},
    {"folded by a blank", 400, LINE HOST "X: a\r\n b\r\n\r\n", 0},
    {"folded by a tab", 400, LINE HOST "X: a\r\n\tb\r\n\r\n", 0},
    {"folded before the first header", 400, LINE " " HOST "\r\n", 0},
    {"blank before the colon", 400, LINE HOST "X : a\r\n\r\n", 0},
    {"tab before the colon", 400, LINE HOST "X\t: a\r\n\r\n", 0},
    {"blank before Host's colon", 400, LINE "Host : a\r\n\r\n", 0},
    {"blank before Content-Length's colon", 400, POST "Content-Length : 3\r\n\r\nabc", 0},
    {"no name", 400, LINE HOST ": a\r\n\r\n", 0},
    {"no colon", 400, LINE HOST "nothing\r\n\r\n", 0},
    {"name that is no token", 400, LINE HOST "X(Y): a\r\n\r\n", 0},
    {"byte over 0x7f in a name", 400, LINE HOST "X\xe9: a\r\n\r\n", 0},
    /* Host. */
    {"no Host", 400, LINE "\r\n", 0},
    {"two Hosts", 400, LINE HOST HOST "\r\n", 0},
    {"two Hosts in HTTP/1.0", 400, "GET /hello HTTP/1.0\r\n" HOST HOST "\r\n", 0},
    {"empty Host", 400, LINE "Host:\r\n\r\n", 0},
    {"list as Host", 400, LINE "Host: a, b\r\n\r\n", 0},
    {"path in Host", 400, LINE "Host: a/b\r\n\r\n", 0},
    {"user in Host", 400, LINE "Host: u@a\r\n\r\n", 0},
    {"port that is no number", 400, LINE "Host: a:b\r\n\r\n", 0},
    {"port too large", 400, LINE "Host: a:65536\r\n\r\n", 0},
    {"open bracket", 400, LINE "Host: [::1\r\n\r\n", 0},
    /* The body's length. */
    {"two equal lengths", 400, POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 0},
    {"two lengths", 400, POST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 0},
    {"list of lengths", 400, POST "Content-Length: 3, 3\r\n\r\nabc", 0},
    {"length with a sign", 400, POST "Content-Length: +3\r\n\r\nabc", 0},
    {"negative length", 400, POST "Content-Length: -3\r\n\r\nabc", 0},
    {"length in hex", 400, POST "Content-Length: 0x3\r\n\r\nabc", 0},
    {"length with a blank inside", 400, POST "Content-Length: 3 3\r\n\r\nabc", 0},
    {"length with a fraction", 400, POST "Content-Length: 3.0\r\n\r\nabc", 0},
    {"empty length", 400, POST "Content-Length:\r\n\r\n", 0},
    {"blank length", 400, POST "Content-Length:  \r\n\r\n", 0},
    {"length of 2^64", 400, POST "Content-Length: 18446744073709551616\r\n\r\n", 0},
    {"length of 2^64 - 1", 400, POST "Content-Length: 18446744073709551615\r\n\r\n", 0},
    {"length and coding", 400,
     POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {"coding and length", 400,
     POST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 0},
    {"two codings", 400,
     POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    {"coding identity", 400, POST "Transfer-Encoding: identity\r\n\r\n", 0},
    {"coding gzip", 400, POST "Transfer-Encoding: gzip\r\n\r\n", 0},
    {"coding gzip, chunked", 400, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0},
    {"coding chunked, identity", 400, POST "Transfer-Encoding: chunked, identity\r\n\r\n", 0},
    {"coding chunked, chunked", 400, POST "Transfer-Encoding: chunked, chunked\r\n\r\n", 0},
    {"coding xchunked", 400, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 0},
    {"coding chunkedx", 400, POST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", 0},
    {"coding \"chunked\"", 400, POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 0},
    {"coding with a parameter", 400, POST "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", 0},
    {"coding with a vertical tab", 400, POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n", 0},
    {"empty coding", 400, POST "Transfer-Encoding:\r\n\r\n", 0},
    {"coding on HTTP/1.0", 400,
     "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0},
    /* Chunks. */
    {"size that is not hex", 400, CHUNK "g\r\n\r\n", 0},
    {"size with 0x", 400, CHUNK "0x3\r\nabc\r\n0\r\n\r\n", 0},
    {"size with a sign", 400, CHUNK "+3\r\nabc\r\n0\r\n\r\n", 0},
    {"negative size", 400, CHUNK "-3\r\nabc\r\n0\r\n\r\n", 0},
    {"no size", 400, CHUNK "\r\nabc\r\n0\r\n\r\n", 0},
    {"only an extension", 400, CHUNK ";a\r\n\r\n", 0},
    {"blank before the size", 400, CHUNK " 3\r\nabc\r\n0\r\n\r\n", 0},
    {"blank after the size", 400, CHUNK "3 \r\nabc\r\n0\r\n\r\n", 0},
    {"size of 2^64", 400, CHUNK "10000000000000000\r\n", 0},
    {"size of 2^64 + 3", 400, CHUNK "10000000000000003\r\nabc\r\n0\r\n\r\n", 0},
    {"size that ends in LF", 400, CHUNK "3\nabc\r\n0\r\n\r\n", 0},
    {"size that ends in CR", 400, CHUNK "3\rabc\r\n0\r\n\r\n", 0},
    {"data without its CRLF", 400, CHUNK "3\r\nabc0\r\n\r\n", 0},
    {"data longer than its size", 400, CHUNK "3\r\nabcd\r\n0\r\n\r\n", 0},
    {"data that ends in LF", 400, CHUNK "3\r\nabc\n0\r\n\r\n", 0},
    {"LF in an extension", 400, CHUNK "3;a\nabc\r\n0\r\n\r\n", 0},
    {"NUL in an extension", 400, WITH_NUL(CHUNK "3;\0\r\nabc\r\n0\r\n\r\n")},
    {"LF after a trailer", 400, CHUNK "0\r\nX: y\n\r\n", 0},
    {"folded trailer", 400, CHUNK "0\r\nX: y\r\n z\r\n\r\n", 0},
    {"LF at the end", 400, CHUNK "0\r\n\n", 0},
    /* Others. */
    {"unknown expectation", 417, POST "Expect: miracles\r\nContent-Length: 3\r\n\r\nabc", 0},
};

/* Send BYTES, and expect STATUS, the end of the connection, and that no handler saw a whole
 * request. Another request behind it must not be answered. */
static void refused(const char *name, unsigned status, const char *bytes, size_t len)
{
    static const char another[] = "GET /hello HTTP/1.1\r\nHost: smuggled\r\n\r\n";
    int fd = client();
    struct answer answer;

    assert_true(try_send(fd, bytes, len));
    (void)try_send(fd, another, sizeof another - 1);
    if (!read_answer(fd, &answer) || answer.status != status)
        fail_msg("%s: %u instead of %u", name, answer.status, status);
    if (!strstr(answer.body, "{\"error\":{\"code\":\""))
        fail_msg("%s: no JSON error", name);
    if (!header_of(&answer, "Connection") || !at_end(fd))
        fail_msg("%s: not closed", name);
    close(fd);
}

static void ambiguous_requests_are_refused_and_closed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(cases[i].name, cases[i].status, cases[i].bytes,
                cases[i].len ? cases[i].len : strlen(cases[i].bytes));
}

static void what_is_too_large_is_refused(void **state)
{
    size_t size = 80 * 1024;
    char *text = malloc(size), *to;

    (void)state;
    to = text + sprintf(text, "GET /%0*d HTTP/1.1\r\n" HOST "\r\n", (int)LIMIT_HTTP_URI_BYTES, 0);
    refused("target over the limit", 414, text, (size_t)(to - text));
    memset(text + 10, 'x', size - 10);
    refused("endless target", 414, text, 5000);
    refused("endless target, at once", 414, text, 40000);

    to = text + sprintf(text, LINE HOST "X: ");
    memset(to, 'x', 40000);
    refused("header over the limit", 431, text, 40000);
    to = text + sprintf(text, LINE HOST);
    for (unsigned i = 0; i < LIMIT_HTTP_HEADERS; i++)
        to += sprintf(to, "X: %u\r\n", i);
    to += sprintf(to, "\r\n");
    refused("too many headers", 431, text, (size_t)(to - text));

    to = text + sprintf(text, CHUNK "3;");
    memset(to, 'x', 20000);
    refused("endless extension", 400, text, (size_t)(to - text) + 20000);
    to = text + sprintf(text, CHUNK "0\r\n");
    for (unsigned i = 0; i < 2000; i++)
        to += sprintf(to, "Trailer: %u\r\n", i);
    refused("endless trailers", 400, text, (size_t)(to - text));
    free(text);
}

static void the_limits_themselves_are_allowed(void **state)
{
    char *text = malloc(64 * 1024), *to;
    int fd = client();

    (void)state;
    to = text + sprintf(text, "GET /%0*d HTTP/1.1\r\n" HOST, (int)LIMIT_HTTP_URI_BYTES - 1, 0);
    for (unsigned i = 0; i < LIMIT_HTTP_HEADERS - 1; i++)
        to += sprintf(to, "X: %u\r\n", i);
    sprintf(to, "\r\n");
    expect(fd, text, 404, NULL);
    to = text + sprintf(text, LINE HOST "X: ");
    memset(to, 'x', LIMIT_HTTP_HEADER_BYTES);
    memcpy(text + LIMIT_HTTP_HEADER_BYTES - 4, "\r\n\r\n", 5);
    expect(fd, text, 200, "hello");
    close(fd);
    free(text);
}

static void odd_but_sound_requests_are_taken(void **state)
{
    static const char *const sound[] = {
        "\r\n" LINE HOST "\r\n",
        LINE "hOsT:a\r\n\r\n",
        LINE "Host: \t a:80 \t \r\n\r\n",
        LINE "Host: [::1]:80\r\n\r\n",
        LINE "Host: a:\r\n\r\n",
        LINE HOST "X:\r\nY: \r\n\r\n",
        LINE HOST "X: \xc3\xb6\r\n\r\n",
        LINE HOST "X: a\tb\r\n\r\n",
        LINE HOST "Content-Length: 00\r\n\r\n",
        LINE HOST
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        "GET /hello?a=%00&b=%zz HTTP/1.1\r\n" HOST "\r\n",
        "GET /hello HTTP/1.0\r\nConnection: keep-alive\r\nExpect: miracles\r\n\r\n",
    };
    int fd = client();

    (void)state;
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++)
        expect(fd, sound[i], 200, "hello");
    close(fd);
}

/* ---- The parser alone ---- */

static enum head_found find_in_pieces(const char *data, size_t len, struct head_scan *scan,
                                      const struct refusal **refusal)
{
    enum head_found found = HEAD_INCOMPLETE;

    memset(scan, 0, sizeof *scan);
    for (size_t n = 1; n <= len && found == HEAD_INCOMPLETE; n++)
        found = head_find(scan, data, n, refusal);
    return found;
}

static void the_cut_of_the_input_makes_no_difference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = cases[i].len ? cases[i].len : strlen(cases[i].bytes);
        struct head_scan once = {0}, pieces;
        const struct refusal *a, *b;
        enum head_found found = head_find(&once, cases[i].bytes, len, &a);

        assert_int_equal(find_in_pieces(cases[i].bytes, len, &pieces, &b), found);
        assert_ptr_equal(a, b);
        assert_true(found == HEAD_REFUSED || once.at == pieces.at);
    }
}

static void random_changes_never_bring_the_parser_down(void **state)
{
    static struct head head;
    static const char interesting[] = "\r\n\t :;,%/?#[]\"\\\x7f\x80\xff-+0x";

    (void)state;
    for (unsigned seed = 1; seed <= 30000; seed++) {
        const struct bad *bad = &cases[seed % (sizeof cases / sizeof *cases)];
        size_t len = bad->len ? bad->len : strlen(bad->bytes);
        char *data = malloc(len); /* exactly: so that the sanitizer sees a byte too far */
        struct head_scan scan = {0};
        const struct refusal *refusal;

        srand(seed);
        memcpy(data, bad->bytes, len);
        for (int changes = rand() % 4; changes >= 0; changes--)
            data[(size_t)rand() % len] =
                rand() % 2 ? interesting[(size_t)rand() % sizeof interesting] : (char)rand();
        if (head_find(&scan, data, len, &refusal) == HEAD_COMPLETE) {
            refusal = head_parse(&head, data, scan.at);
            if (!refusal) {
                assert_true(head.path.len > 0 && head.count > 0);
                assert_false(head.has_length && head.chunked);
            }
        }
        free(data);
    }
}

static void a_header_is_looked_at_in_linear_time(void **state)
{
    struct timeval begin, end;
    char *text = malloc(LIMIT_HTTP_HEADER_BYTES);
    struct head_scan scan;
    const struct refusal *refusal;
    size_t n = (size_t)sprintf(text, LINE HOST "X: ");

    (void)state;
    memset(text + n, 'x', LIMIT_HTTP_HEADER_BYTES - n);
    gettimeofday(&begin, NULL);
    /* 32 K calls; quadratic would be 5 * 10^8 steps for each of the hundred rounds. */
    for (int i = 0; i < 100; i++)
        assert_int_equal(find_in_pieces(text, LIMIT_HTTP_HEADER_BYTES - 1, &scan, &refusal),
                         HEAD_INCOMPLETE);
    gettimeofday(&end, NULL);
    assert_true(end.tv_sec - begin.tv_sec < 20);
    free(text);
}

#define WITH_DEFAULT(test) cmocka_unit_test_setup_teardown(test, start_default, stop_default)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DEFAULT(ambiguous_requests_are_refused_and_closed),
        WITH_DEFAULT(what_is_too_large_is_refused),
        WITH_DEFAULT(the_limits_themselves_are_allowed),
        WITH_DEFAULT(odd_but_sound_requests_are_taken),
        cmocka_unit_test(the_cut_of_the_input_makes_no_difference),
        cmocka_unit_test(random_changes_never_bring_the_parser_down),
        cmocka_unit_test(a_header_is_looked_at_in_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
