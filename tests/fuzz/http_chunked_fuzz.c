/*
 * Goal: a chunked body has one meaning, however it is cut: the decoder gives the same data, the
 * same end and the same verdict; and where it says that the body is complete, an independent
 * reading of the RFC's grammar says so, too.
 * Input: the size of the pieces (1 byte), then what the client sends.
 */
#include "api/http/chunked.h"
#include "base/buf.h"
#include "tests/fuzz/fuzz.h"

struct outcome {
    struct buf data;
    size_t used;
    int rc;
    bool ended;
};

static void decode(struct outcome *out, const uint8_t *input, size_t len, size_t step)
{
    struct chunked chunked = {0};

    *out = (struct outcome){.rc = 0};
    for (size_t at = 0; at < len && !out->rc && !out->ended;) {
        size_t part = step < len - at ? step : len - at, used = 0, data_len = 0;
        uint8_t *copy = exact_copy(input + at, part);
        const uint8_t *data;

        out->rc = chunked_take(&chunked, copy, part, &used, &data, &data_len);
        if (!out->rc) {
            CHECK(used > 0 && used <= part && data_len <= used);
            CHECK(data_len == 0 || data == copy + used - data_len);
            buf_add(&out->data, data, data_len);
            at += used;
            out->used = at;
            out->ended = chunked_ended(&chunked);
        }
        free(copy);
    }
}

/* The end of the line that begins at AT; 0: it does not end in CRLF. */
static size_t next_line(const uint8_t *input, size_t len, size_t at)
{
    const uint8_t *end = at < len ? memmem(input + at, len - at, "\r\n", 2) : NULL;

    return end ? (size_t)(end - input) + 2 : 0;
}

/* RFC 9112 §7.1 by the letter: *DATA gets the content; the length of the coded body. */
static size_t reference(const uint8_t *input, size_t len, struct buf *data)
{
    size_t at = 0, line;

    for (;;) {
        char *end;
        char digits[32] = {0};

        line = next_line(input, len, at);
        CHECK(line > 0);
        memcpy(digits, input + at, line - at < sizeof digits - 1 ? line - at : sizeof digits - 1);
        unsigned long size = strtoul(digits, &end, 16);
        CHECK(end > digits && (*end == '\r' || *end == ';'));
        at = line;
        if (size == 0)
            break;
        CHECK(size <= len - at && len - at - size >= 2);
        buf_add(data, input + at, size);
        at += size;
        CHECK(input[at] == '\r' && input[at + 1] == '\n');
        at += 2;
    }
    do {
        size_t begin = at;

        line = next_line(input, len, at);
        CHECK(line > 0);
        at = line;
        if (line == begin + 2)
            break;
    } while (at <= len);
    return at;
}

static bool same_bytes(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    size_t step = (size_t)feed_number(&feed, 1) + 1;
    struct outcome whole, pieces;

    decode(&whole, feed.at, feed.left, feed.left);
    decode(&pieces, feed.at, feed.left, step);
    CHECK(whole.rc == pieces.rc && whole.ended == pieces.ended);
    CHECK(same_bytes(&whole.data, &pieces.data));
    if (whole.ended) {
        struct buf expected = {0};

        CHECK(whole.used == pieces.used);
        CHECK(reference(feed.at, feed.left, &expected) == whole.used);
        CHECK(same_bytes(&expected, &whole.data));
        buf_release(&expected);
    }
    buf_release(&whole.data);
    buf_release(&pieces.data);
    return 0;
}
