/*
 * Goal: the ranges of an answer lie inside the body, do not overlap nor share a block, are not more
 * than allowed, and hold every byte that was asked for; spelling them out again gives them again.
 * Laid out as an answer, each range stands in it once, byte after byte.
 * Input: the body's size (8 bytes), then the header's value.
 */
#include "api/http/range.h"
#include "api/multipart.h"
#include "tests/fuzz/fuzz.h"

static void check_ranges(const struct byte_range *ranges, unsigned count, uint64_t size)
{
    CHECK(count >= 1 && count <= LIMIT_HTTP_RANGES);
    for (unsigned i = 0; i < count; i++) {
        CHECK(ranges[i].first <= ranges[i].last && ranges[i].last < size);
        for (unsigned j = 0; j < i; j++) {
            const struct byte_range *low =
                ranges[i].first < ranges[j].first ? &ranges[i] : &ranges[j];
            const struct byte_range *high = low == &ranges[i] ? &ranges[j] : &ranges[i];

            CHECK(low->last < high->first);
            CHECK(low->last / BLOCK_BYTES < high->first / BLOCK_BYTES);
        }
    }
}

static void check_spelled_again(const struct byte_range *ranges, unsigned count, uint64_t size)
{
    struct byte_range again[LIMIT_HTTP_RANGES];
    char text[64 * LIMIT_HTTP_RANGES] = "bytes=";
    size_t at = strlen(text);
    unsigned n;

    for (unsigned i = 0; i < count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%llu-%llu", i ? ", " : "",
                               (unsigned long long)ranges[i].first,
                               (unsigned long long)ranges[i].last);
    CHECK(range_resolve(text, at, size, again, &n) == RANGE_SOME);
    CHECK(n == count && memcmp(again, ranges, count * sizeof *ranges) == 0);
}

/* Walk along the answer: text, range, text, range, … text. */
static void check_answer(const struct byte_range *ranges, unsigned count, uint64_t size)
{
    static const char type[] = "Content-Type: a/b\r\n";
    struct multipart multipart;
    unsigned seen = 0;

    CHECK(multipart_init(&multipart, ranges, count, size, (struct slice){type, sizeof type - 1},
                         "boundary") == 0);
    for (uint64_t at = 0; at < multipart.length;) {
        const char *text, *middle;
        uint64_t position, len, half_len, half_position;

        multipart_at(&multipart, at, &text, &position, &len);
        CHECK(len > 0 && len <= multipart.length - at);
        if (text) {
            CHECK(count > 1 && len < 1024);
            CHECK(seen == count ? !strncmp(text, "\r\n--boundary--\r\n", len)
                                : memmem(text, len, type, sizeof type - 1) != NULL);
        } else {
            CHECK(seen < count && position == ranges[seen].first);
            CHECK(len == ranges[seen].last - ranges[seen].first + 1);
            seen++;
        }
        /* In its middle it goes on. */
        multipart_at(&multipart, at + len / 2, &middle, &half_position, &half_len);
        CHECK(half_len == len - len / 2);
        CHECK(text ? middle == text + len / 2 : !middle && half_position == position + len / 2);
        at += len;
    }
    CHECK(seen == count);
    multipart_release(&multipart);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint64_t body = feed_number(&feed, 8);
    struct byte_range ranges[LIMIT_HTTP_RANGES];
    unsigned count = 77;
    char *text = exact_copy(feed.at, feed.left);

    enum range_result result = range_resolve(text, feed.left, body, ranges, &count);
    if (result == RANGE_SOME) {
        check_ranges(ranges, count, body);
        check_spelled_again(ranges, count, body);
        if (body <= INT64_MAX) /* no file is larger */
            check_answer(ranges, count, body);
    } else {
        CHECK(count == 0);
        CHECK(result == RANGE_NONE || result == RANGE_UNSATISFIABLE);
    }
    free(text);
    return 0;
}
