/*
 * Goal: whatever a request's header is, it is read or refused, in the same way however it arrives
 * in pieces; and what is read has one meaning only: one host, one length, no control characters.
 * Input: the size of the pieces (1 byte), then what the client sends.
 */
#include "api/http/http_internal.h"
#include "base/text.h"
#include "tests/fuzz/fuzz.h"

static struct head head;

static bool is(struct slice slice, const char *lower)
{
    return text_equal_nocase(slice.ptr, slice.len, lower, strlen(lower));
}

static bool inside(struct slice slice, const char *data, size_t len)
{
    return !slice.len || (slice.ptr >= data && slice.ptr + slice.len <= data + len);
}

/* What any reader may rely on after head_parse. */
static void check_head(const char *data, size_t len)
{
    unsigned hosts = 0, lengths = 0, codings = 0;

    CHECK(head.has_method && head.minor <= 1);
    CHECK(head.path.len > 0 && head.path.ptr[0] == '/');
    CHECK(head.target.len <= LIMIT_HTTP_URI_BYTES && inside(head.target, data, len));
    CHECK(inside(head.query, data, len));
    for (size_t i = 0; i < head.target.len; i++)
        CHECK(head.target.ptr[i] > 0x20 && head.target.ptr[i] < 0x7f);
    CHECK(head.count <= LIMIT_HTTP_HEADERS);
    for (unsigned i = 0; i < head.count; i++) {
        struct slice name = head.headers[i].name, value = head.headers[i].value;

        CHECK(name.len > 0 && inside(name, data, len) && inside(value, data, len));
        for (size_t k = 0; k < name.len; k++)
            CHECK(name.ptr[k] > 0x20 && name.ptr[k] != ':' && name.ptr[k] < 0x7f);
        for (size_t k = 0; k < value.len; k++)
            CHECK(value.ptr[k] != 0x7f &&
                  ((unsigned char)value.ptr[k] >= 0x20 || value.ptr[k] == '\t'));
        CHECK(!value.len || (value.ptr[0] != ' ' && value.ptr[value.len - 1] != ' '));
        hosts += is(name, "host");
        lengths += is(name, "content-length");
        codings += is(name, "transfer-encoding");
    }
    CHECK(hosts == 1 || (hosts == 0 && head.minor == 0));
    CHECK(lengths + codings <= 1);
    CHECK(head.has_length == (lengths == 1) && head.chunked == (codings == 1));
    CHECK(!head.chunked || head.minor == 1);
    CHECK(head.content_length <= UINT64_MAX / 2);
}

/* The empty line that ends a header, as anybody would find it. */
static size_t header_end(const char *data, size_t len)
{
    const char *end = len >= 4 ? memmem(data, len, "\r\n\r\n", 4) : NULL;

    return end ? (size_t)(end - data) + 4 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    size_t step = (size_t)feed_number(&feed, 1), len = feed.left;
    struct head_scan whole = {0}, pieces = {0};
    const struct refusal *refusal, *again = NULL;

    if (len == 0)
        return 0;
    char *text = exact_copy(feed.at, len);
    enum head_found found = head_find(&whole, text, len, &refusal), piecewise = HEAD_INCOMPLETE;
    CHECK((found == HEAD_REFUSED) == (refusal != NULL));
    /* A connection hands over all that it has so far, each time. */
    step = step + 1 > len / 64 ? step + 1 : len / 64;
    for (size_t have = 0; have < len && piecewise == HEAD_INCOMPLETE;) {
        have = have + step < len ? have + step : len;
        char *part = exact_copy(text, have);
        piecewise = head_find(&pieces, part, have, &again);
        free(part);
    }
    CHECK(piecewise == found);
    CHECK(found != HEAD_REFUSED || again->status == refusal->status);
    if (found == HEAD_COMPLETE) {
        CHECK(whole.at == pieces.at && whole.at == header_end(text, len));
        /* Not a byte behind the header is looked at. */
        char *only = exact_copy(text, whole.at);
        refusal = head_parse(&head, only, whole.at);
        CHECK(!refusal || (refusal->status >= 400 && refusal->code && refusal->message));
        if (!refusal)
            check_head(only, whole.at);
        free(only);
    }
    free(text);
    return 0;
}
