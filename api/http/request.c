/*
 * From bytes to a checked request header, and the readers of http_request_….
 *
 * head_find looks at each arriving byte once, finds the empty line, and refuses what no later step
 * should see: control characters, bare CR or LF, folded lines, lengths over the limits. head_parse
 * then lets llhttp take the complete header apart, in one call, and checks what llhttp leaves open:
 * the target's form, Host, and above all that the body's length can be read in one way only
 * (RFC 9112 §6.3, §11.2). All of it is pure; a refusal is a static struct, answered by conn.c.
 */
#include "api/http/http_internal.h"
#include "base/text.h"

#include <assert.h>
#include <llhttp.h>
#include <string.h>

#define BAD(name, text) static const struct refusal name = {400, "bad_request", text, NULL}

BAD(bad_control, "control character, or a line that does not end in CRLF");
BAD(bad_fold, "folded header line");
BAD(bad_request_line, "malformed request line");
BAD(bad_header, "malformed header");
BAD(bad_version, "only HTTP/1.0 and HTTP/1.1 are spoken here");
BAD(bad_target, "malformed request target");
BAD(bad_host, "Host must be sent once, and be a host name");
BAD(bad_length, "malformed or repeated Content-Length");
BAD(bad_coding, "Transfer-Encoding other than chunked alone");
BAD(bad_framing, "Content-Length together with Transfer-Encoding");

static const struct refusal too_long_target = {414, "uri_too_long", "request target too long",
                                               NULL};
static const struct refusal too_large_header = {431, "header_too_large", "request header too large",
                                                NULL};
static const struct refusal method_not_allowed = {
    405, "method_not_allowed", "method not allowed",
    "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS\r\n"};
static const struct refusal method_unknown = {501, "method_unknown", "unknown method", NULL};
static const struct refusal expectation_failed = {417, "expectation_failed",
                                                  "only 100-continue can be expected", NULL};

/* Method, version, blanks and CRLF around a target. */
#define REQUEST_LINE_SLACK 48

/* The bytes of a token (RFC 9110 §5.6.2), as bits. */
static bool is_token(unsigned char c)
{
    static const uint64_t bits[4] = {UINT64_C(0x03ff6cfa00000000), UINT64_C(0x57ffffffc7fffffe), 0,
                                     0};

    return bits[c / 64] >> c % 64 & 1;
}

/* What is wrong at byte AT, a blank or control character with another byte behind it; or NULL. */
static const struct refusal *judge(const struct head_scan *scan, const unsigned char *p, size_t at)
{
    bool line_begins = at == scan->line_start;

    if (!scan->in_headers && at > LIMIT_HTTP_URI_BYTES + REQUEST_LINE_SLACK)
        return &too_long_target;
    if (line_begins && (p[at] == ' ' || p[at] == '\t'))
        return &bad_fold;
    if (p[at] == '\t')
        return NULL;
    if (p[at] != '\r' || p[at + 1] != '\n' || (line_begins && !scan->in_headers))
        return &bad_control;
    return NULL;
}

enum head_found head_find(struct head_scan *scan, const char *data, size_t len,
                          const struct refusal **refusal)
{
    const unsigned char *p = (const unsigned char *)data;
    size_t at = scan->at;
    size_t end = len < LIMIT_HTTP_HEADER_BYTES ? len : LIMIT_HTTP_HEADER_BYTES;

    *refusal = NULL;
    if (!at && len && !is_token(p[0]) && p[0] != '\r')
        *refusal = &bad_request_line; /* not HTTP at all: no need to wait for more of it */
    for (; at < end && !*refusal; at++) {
        if (p[at] > 0x20 || (p[at] == ' ' && at != scan->line_start))
            continue;
        if (p[at] == '\r' && at + 1 == end)
            break; /* looked at again together with the next byte */
        *refusal = judge(scan, p, at);
        if (*refusal || p[at] != '\r')
            continue;
        if (at == scan->line_start) {
            scan->at = (uint32_t)at + 2;
            return HEAD_COMPLETE;
        }
        scan->in_headers = true;
        at++;
        scan->line_start = (uint32_t)at + 1;
    }
    scan->at = (uint32_t)at;
    if (!*refusal && !scan->in_headers && at > LIMIT_HTTP_URI_BYTES + REQUEST_LINE_SLACK)
        *refusal = &too_long_target;
    if (!*refusal && end == LIMIT_HTTP_HEADER_BYTES)
        *refusal = &too_large_header;
    return *refusal ? HEAD_REFUSED : HEAD_INCOMPLETE;
}

/* ---- llhttp's part ---- */

struct parse {
    llhttp_t parser; /* first: llhttp hands this back */
    struct head *head;
    bool value_open, too_many;
};

static int on_url(llhttp_t *parser, const char *at, size_t len)
{
    struct parse *parse = (struct parse *)parser;
    struct slice *target = &parse->head->target;

    if (target->ptr && target->ptr + target->len != at)
        return HPE_USER;
    if (!target->ptr)
        target->ptr = at;
    target->len += len;
    return HPE_OK;
}

static int on_field(llhttp_t *parser, const char *at, size_t len)
{
    struct parse *parse = (struct parse *)parser;
    struct head *head = parse->head;

    if (head->count == LIMIT_HTTP_HEADERS) {
        parse->too_many = true;
        return HPE_USER;
    }
    if (parse->value_open || !len)
        return HPE_USER;
    head->headers[head->count].name = (struct slice){at, len};
    head->headers[head->count].value = (struct slice){"", 0};
    head->count++;
    parse->value_open = true;
    return HPE_OK;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    struct parse *parse = (struct parse *)parser;
    struct slice *value;

    if (!parse->value_open)
        return HPE_USER;
    value = &parse->head->headers[parse->head->count - 1].value;
    if (value->len && value->ptr + value->len != at)
        return HPE_USER;
    if (!value->len)
        value->ptr = at;
    value->len += len;
    return HPE_OK;
}

static int on_value_complete(llhttp_t *parser)
{
    struct parse *parse = (struct parse *)parser;

    parse->value_open = false;
    return HPE_OK;
}

static int on_headers_complete(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED; /* the body is not its business */
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_headers_complete,
};

/* ---- What llhttp leaves open ---- */

static bool same(struct slice slice, const char *lower)
{
    return text_equal_nocase(slice.ptr, slice.len, lower, strlen(lower));
}

static struct slice trim(struct slice slice)
{
    while (slice.len && (*slice.ptr == ' ' || *slice.ptr == '\t'))
        slice.ptr++, slice.len--;
    while (slice.len && (slice.ptr[slice.len - 1] == ' ' || slice.ptr[slice.len - 1] == '\t'))
        slice.len--;
    return slice;
}

/* Cut the part up to the next CUT off the front of REST, trimmed; false when nothing is left. */
static bool next_item(struct slice *rest, char cut, struct slice *item)
{
    const char *end;

    if (!rest->ptr)
        return false;
    end = rest->len ? memchr(rest->ptr, cut, rest->len) : NULL;
    *item = (struct slice){rest->ptr, end ? (size_t)(end - rest->ptr) : rest->len};
    if (end)
        *rest = (struct slice){end + 1, rest->len - item->len - 1};
    else
        *rest = (struct slice){NULL, 0};
    *item = trim(*item);
    return true;
}

/* The method before llhttp sees it, because its list of methods is not ours. */
static const struct refusal *parse_method(struct head *head, const char *data, size_t len)
{
    static const struct {
        const char *name;
        int method;
    } known[] = {{"GET", HTTP_METHOD_GET},
                 {"PUT", HTTP_METHOD_PUT},
                 {"HEAD", HTTP_METHOD_HEAD},
                 {"POST", HTTP_METHOD_POST},
                 {"DELETE", HTTP_METHOD_DELETE},
                 {"OPTIONS", HTTP_METHOD_OPTIONS},
                 {"CONNECT", -1},
                 {"TRACE", -1},
                 {"PATCH", -1}};
    size_t n = 0;

    while (n < len && is_token((unsigned char)data[n]))
        n++;
    if (!n || n == len || data[n] != ' ')
        return &bad_request_line;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == n && !memcmp(known[i].name, data, n)) {
            if (known[i].method < 0)
                return &method_not_allowed;
            head->method = (enum http_method)known[i].method;
            head->has_method = true;
            return NULL;
        }
    return &method_unknown;
}

/* uri-host [":" port] of RFC 3986 §3.2.2, neither of them checked for sense. */
static bool is_authority(struct slice text)
{
    size_t i = 0, digits = 0;
    unsigned port = 0;

    if (text.len && text.ptr[0] == '[') {
        for (i = 1; i < text.len && text.ptr[i] != ']'; i++)
            if (!strchr("0123456789abcdefABCDEF:.", text.ptr[i]))
                return false;
        if (i == text.len || i < 3)
            return false;
        i++;
    } else {
        for (; i < text.len && text.ptr[i] != ':'; i++)
            if (!is_token((unsigned char)text.ptr[i]) || strchr("#^`|", text.ptr[i]))
                return false;
        if (!i)
            return false;
    }
    if (i == text.len)
        return true;
    if (text.ptr[i++] != ':')
        return false;
    for (; i < text.len && digits < 5; i++, digits++) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return false;
        port = port * 10 + (unsigned)(text.ptr[i] - '0');
    }
    return i == text.len && port <= 65535;
}

/* Every % begins two hex digits, and none means a NUL. */
static bool escapes_are_sound(struct slice path)
{
    const char *p = path.ptr, *end = path.ptr + path.len;

    while ((p = memchr(p, '%', (size_t)(end - p)))) {
        uint8_t byte;

        if (end - p < 3 || hex_decode(&byte, 1, p + 1, 2) || !byte)
            return false;
        p += 3;
    }
    return true;
}

/* method SP target SP HTTP/1.x CRLF, with no blank more: llhttp skips some. */
static bool request_line_is_exact(const struct head *head, const char *data, size_t len)
{
    const char *method_end = memchr(data, ' ', len);
    const char *target_end = head->target.ptr + head->target.len;

    return head->target.ptr == method_end + 1 && !memcmp(target_end, " HTTP/1.", 8) &&
           target_end[9] == '\r';
}

static const struct refusal *parse_target(struct head *head)
{
    struct slice rest = head->target;
    const char *query;

    if (rest.len > LIMIT_HTTP_URI_BYTES)
        return &too_long_target;
    if (!rest.len || memchr(rest.ptr, '#', rest.len))
        return &bad_target;
    if (rest.ptr[0] != '/') { /* the absolute form, or one that we do not take */
        size_t scheme = rest.len > 7 && text_equal_nocase(rest.ptr, 7, "http://", 7)    ? 7
                        : rest.len > 8 && text_equal_nocase(rest.ptr, 8, "https://", 8) ? 8
                                                                                        : 0;
        size_t end = scheme;

        while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?')
            end++;
        if (!scheme || !is_authority((struct slice){rest.ptr + scheme, end - scheme}))
            return &bad_target;
        rest = (struct slice){rest.ptr + end, rest.len - end};
    }
    query = rest.len ? memchr(rest.ptr, '?', rest.len) : NULL;
    head->path = (struct slice){rest.ptr, query ? (size_t)(query - rest.ptr) : rest.len};
    if (query)
        head->query = (struct slice){query + 1, rest.len - head->path.len - 1};
    if (!head->path.len)
        head->path = (struct slice){"/", 1};
    return escapes_are_sound(head->path) ? NULL : &bad_target;
}

static const struct refusal *check_framing(struct head *head, unsigned lengths, unsigned codings,
                                           struct slice length, struct slice coding)
{
    if (lengths && codings)
        return &bad_framing;
    if (lengths) {
        /* The largest number means "chunked" elsewhere. */
        if (lengths > 1 || parse_u64(&head->content_length, length.ptr, length.len, UINT64_MAX / 2))
            return &bad_length;
        head->has_length = true;
    }
    if (codings) {
        if (codings > 1 || head->minor == 0 || !same(coding, "chunked"))
            return &bad_coding;
        head->chunked = true;
    }
    return NULL;
}

static void read_connection(struct slice value, bool *close, bool *keep_alive)
{
    struct slice item;

    while (next_item(&value, ',', &item)) {
        *close |= same(item, "close");
        *keep_alive |= same(item, "keep-alive");
    }
}

static const struct refusal *check_headers(struct head *head)
{
    unsigned hosts = 0, lengths = 0, codings = 0;
    bool close = false, keep_alive = false, expects = false, strange = false;
    struct slice host = {NULL, 0}, length = {NULL, 0}, coding = {NULL, 0};
    const struct refusal *refusal;

    for (unsigned i = 0; i < head->count; i++) {
        struct header *header = &head->headers[i];
        struct slice name = header->name, value = trim(header->value);

        header->value = value;
        if (name.len == 4 && same(name, "host"))
            hosts++, host = value;
        else if (name.len == 6 && same(name, "expect"))
            expects = true, strange |= !same(value, "100-continue");
        else if (name.len == 10 && same(name, "connection"))
            read_connection(value, &close, &keep_alive);
        else if (name.len == 14 && same(name, "content-length"))
            lengths++, length = value;
        else if (name.len == 17 && same(name, "transfer-encoding"))
            codings++, coding = value;
    }
    if (hosts > 1 || (!hosts && head->minor > 0) || (hosts && !is_authority(host)))
        return &bad_host;
    refusal = check_framing(head, lengths, codings, length, coding);
    if (refusal)
        return refusal;
    if (head->minor > 0 && strange)
        return &expectation_failed;
    head->expects_continue = expects && head->minor > 0;
    head->keep_alive = !close && (head->minor > 0 || keep_alive);
    return NULL;
}

const struct refusal *head_parse(struct head *head, const char *data, size_t len)
{
    struct parse parse = {.head = head};
    const struct refusal *refusal;
    int rc;

    assert(len >= 4 && len <= LIMIT_HTTP_HEADER_BYTES);
    /* Not the table, which is large. */
    memset(&head->count, 0, sizeof *head - offsetof(struct head, count));
    refusal = parse_method(head, data, len);
    if (refusal)
        return refusal;
    llhttp_init(&parse.parser, HTTP_REQUEST, &settings);
    rc = llhttp_execute(&parse.parser, data, len);
    if (parse.too_many)
        return &too_large_header;
    if (rc == HPE_INVALID_VERSION)
        return &bad_version;
    if (rc == HPE_UNEXPECTED_CONTENT_LENGTH || rc == HPE_INVALID_CONTENT_LENGTH)
        return &bad_length;
    if (rc == HPE_INVALID_TRANSFER_ENCODING)
        return &bad_coding;
    if (rc != HPE_PAUSED)
        return head->count ? &bad_header : &bad_request_line;
    if (parse.parser.http_major != 1 || parse.parser.http_minor > 1)
        return &bad_version;
    if (!head->target.len || !request_line_is_exact(head, data, len))
        return &bad_request_line;
    head->minor = parse.parser.http_minor;
    refusal = parse_target(head);
    return refusal ? refusal : check_headers(head);
}

/* ---- Reading a request ---- */

enum http_method http_request_method(const struct http_request *request)
{
    return (enum http_method)request->method;
}

struct slice http_request_path(const struct http_request *request)
{
    assert(request->head);
    return request->head->path;
}

struct slice http_request_query(const struct http_request *request)
{
    assert(request->head);
    return request->head->query;
}

struct slice http_request_header(const struct http_request *request, const char *name,
                                 unsigned *count)
{
    const struct head *head = request->head;
    struct slice found = {NULL, 0};
    size_t len = strlen(name);
    unsigned n = 0;

    assert(head);
    for (unsigned i = 0; i < head->count; i++) {
        const struct header *header = &head->headers[i];

        if (header->name.len != len || (header->name.ptr[0] | 0x20) != (name[0] | 0x20) ||
            !text_equal_nocase(header->name.ptr, len, name, len))
            continue;
        if (!n++)
            found = header->value;
        if (!count)
            break;
    }
    if (count)
        *count = n;
    return found;
}

uint64_t http_request_content_length(const struct http_request *request)
{
    return request->content_length;
}

bool http_request_from_loopback(const struct http_request *request)
{
    return conn_of((struct http_request *)(uintptr_t)request)->loopback;
}

unsigned http_request_worker(const struct http_request *request)
{
    return conn_of((struct http_request *)(uintptr_t)request)->loop->index;
}

void http_request_set_data(struct http_request *request, void *data)
{
    request->data = data;
}

void *http_request_data(const struct http_request *request)
{
    return request->data;
}

void http_set_operation(struct http_request *request, unsigned operation)
{
    assert(operation < HTTP_MAX_OPERATIONS);
    request->operation = (uint8_t)(operation + 1);
}

void http_close_after(struct http_request *request)
{
    request->close = true;
}

bool http_gone(const struct http_request *request)
{
    return request->gone;
}
