/*
 * Goal: a date that can be read is the same moment in each of its spellings; and preconditions keep
 * the promises of RFC 9110 §13, which are checked against a plain statement of them.
 * Input: when the object was changed (5 bytes), which headers are sent (1 byte), then their values,
 * one a line.
 */
#include "api/http/conditional.h"
#include "api/http/date.h"
#include "tests/fuzz/fuzz.h"

#include <time.h>

#define ETAG   "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""
#define LAST_S UINT64_C(253402300799)

static void check_date(const char *text, size_t len)
{
    char again[HTTP_DATE_BYTES + 1], iso[64];
    uint64_t unix_s, same_s;
    struct tm tm;

    if (http_date_parse(&unix_s, text, len))
        return;
    /* A leap second at the very end of 9999 is the first moment that has no name. */
    CHECK(unix_s <= LAST_S + 1);
    if (unix_s > LAST_S)
        return;
    http_date_format(again, unix_s);
    CHECK(http_date_parse(&same_s, again, HTTP_DATE_BYTES) == 0 && same_s == unix_s);
    /* The C library's calendar agrees. */
    time_t moment = (time_t)unix_s;
    CHECK(gmtime_r(&moment, &tm));
    CHECK(strftime(iso, sizeof iso, "%a, %d %b %Y %H:%M:%S GMT", &tm) == HTTP_DATE_BYTES);
    CHECK(memcmp(iso, again, HTTP_DATE_BYTES) == 0);
}

static struct slice take_line(struct feed *feed, bool sent)
{
    const uint8_t *end = feed->left ? memchr(feed->at, '\n', feed->left) : NULL;
    size_t len = end ? (size_t)(end - feed->at) : feed->left, got;
    const uint8_t *at = feed_some(feed, len, &got);

    (void)feed_some(feed, end ? 1 : 0, &len);
    return sent ? (struct slice){exact_copy(at, got), got} : (struct slice){NULL, 0};
}

static bool contains(struct slice list, const char *etag)
{
    return list.len > 0 && memmem(list.ptr, list.len, etag, strlen(etag));
}

static void check_evaluation(const struct conditional *sent, uint64_t modified_s)
{
    enum conditional_result here = conditional_evaluate(sent, ETAG, modified_s);
    enum conditional_result none = conditional_evaluate(sent, NULL, 0);
    bool star = sent->if_match.len == 1 && sent->if_match.ptr[0] == '*';

    /* What is not there matches no list, and never is "not modified". */
    CHECK(none == (sent->if_match.ptr ? CONDITIONAL_FAILED : CONDITIONAL_GO));
    if (sent->if_match.ptr && !star && !contains(sent->if_match, ETAG))
        CHECK(here == CONDITIONAL_FAILED);
    if (here == CONDITIONAL_NOT_MODIFIED && sent->if_none_match.ptr)
        CHECK(contains(sent->if_none_match, ETAG) ||
              (sent->if_none_match.len == 1 && sent->if_none_match.ptr[0] == '*'));
    if (!sent->if_match.ptr && !sent->if_none_match.ptr && !sent->if_modified_since.ptr &&
        !sent->if_unmodified_since.ptr)
        CHECK(here == CONDITIONAL_GO);
    if (here == CONDITIONAL_NOT_MODIFIED)
        CHECK(sent->if_none_match.ptr || sent->if_modified_since.ptr);
    if (here == CONDITIONAL_FAILED)
        CHECK(sent->if_match.ptr || sent->if_unmodified_since.ptr);
    bool applies = conditional_range_applies(sent, ETAG, modified_s);
    CHECK(sent->if_range.ptr || applies);
    if (applies && sent->if_range.len && sent->if_range.ptr[0] == '"')
        CHECK(sent->if_range.len == strlen(ETAG) && contains(sent->if_range, ETAG));
    CHECK(!sent->if_range.len || sent->if_range.ptr[0] != 'W' || !applies ||
          memcmp(sent->if_range.ptr, "W/", 2) != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    uint64_t modified_s = feed_number(&feed, 5);
    unsigned which = (unsigned)feed_number(&feed, 1);
    struct conditional sent = {
        .if_match = take_line(&feed, which & 1),
        .if_none_match = take_line(&feed, which & 2),
        .if_modified_since = take_line(&feed, which & 4),
        .if_unmodified_since = take_line(&feed, which & 8),
        .if_range = take_line(&feed, which & 16),
    };
    struct slice *all[] = {&sent.if_match, &sent.if_none_match, &sent.if_modified_since,
                           &sent.if_unmodified_since, &sent.if_range};
    char text[HTTP_DATE_BYTES + 1];
    uint64_t same_s;

    http_date_format(text, modified_s);
    CHECK(strlen(text) == HTTP_DATE_BYTES);
    CHECK(http_date_parse(&same_s, text, HTTP_DATE_BYTES) == 0);
    CHECK(same_s == (modified_s < LAST_S ? modified_s : LAST_S));
    check_evaluation(&sent, modified_s);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i]->ptr)
            check_date(all[i]->ptr, all[i]->len);
        free((char *)(uintptr_t)all[i]->ptr);
    }
    return 0;
}
