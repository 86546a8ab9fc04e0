/*
 * RFC 9110 §13.2.2 in its order: If-Match, else If-Unmodified-Since; then If-None-Match, else
 * If-Modified-Since. A date that cannot be read counts as not sent; a malformed list of tags
 * matches nothing, which is the safe answer for If-Match and the harmless one for If-None-Match.
 */
#include "api/http/conditional.h"

#include "api/http/date.h"

#include <string.h>

struct conditional conditional_of(const struct http_request *request)
{
    return (struct conditional){
        .if_match = http_request_header(request, "if-match", NULL),
        .if_none_match = http_request_header(request, "if-none-match", NULL),
        .if_modified_since = http_request_header(request, "if-modified-since", NULL),
        .if_unmodified_since = http_request_header(request, "if-unmodified-since", NULL),
        .if_range = http_request_header(request, "if-range", NULL),
    };
}

bool conditional_next_tag(struct slice *list, struct slice *tag, bool *weak)
{
    const char *at = list->ptr, *end = list->ptr + list->len, *close;

    while (at < end && (*at == ' ' || *at == '\t' || *at == ','))
        at++;
    *list = (struct slice){at, (size_t)(end - at)};
    *weak = end - at > 2 && at[0] == 'W' && at[1] == '/';
    if (*weak)
        at += 2;
    if (at == end || *at != '"')
        return false;
    close = memchr(at + 1, '"', (size_t)(end - at) - 1);
    if (!close)
        return false;
    *tag = (struct slice){at, (size_t)(close + 1 - at)};
    *list = (struct slice){close + 1, (size_t)(end - close) - 1};
    return true;
}

/* Whether LIST is "*" and ETAG exists, or LIST names it; weakly: where W/ makes no difference. */
static bool list_matches(struct slice list, const char *etag, bool weakly)
{
    size_t len = etag ? strlen(etag) : 0;
    struct slice tag;
    bool weak;

    if (list.len == 1 && *list.ptr == '*')
        return etag != NULL;
    while (etag && conditional_next_tag(&list, &tag, &weak)) {
        if ((weakly || !weak) && tag.len == len && !memcmp(tag.ptr, etag, len))
            return true;
    }
    return false;
}

/* Whether DATE can be read, and what it is. */
static bool read_date(struct slice date, uint64_t *unix_s)
{
    return date.ptr && !http_date_parse(unix_s, date.ptr, date.len);
}

enum conditional_result conditional_evaluate(const struct conditional *conditional,
                                             const char *etag, uint64_t modified_s)
{
    uint64_t date;

    if (conditional->if_match.ptr) {
        if (!list_matches(conditional->if_match, etag, false))
            return CONDITIONAL_FAILED;
    } else if (etag && read_date(conditional->if_unmodified_since, &date) && modified_s > date) {
        return CONDITIONAL_FAILED;
    }
    if (conditional->if_none_match.ptr)
        return list_matches(conditional->if_none_match, etag, true) ? CONDITIONAL_NOT_MODIFIED
                                                                    : CONDITIONAL_GO;
    if (etag && read_date(conditional->if_modified_since, &date) && modified_s <= date)
        return CONDITIONAL_NOT_MODIFIED;
    return CONDITIONAL_GO;
}

bool conditional_range_applies(const struct conditional *conditional, const char *etag,
                               uint64_t modified_s)
{
    struct slice value = conditional->if_range;
    uint64_t date;

    if (!value.ptr)
        return true;
    if (value.len && (value.ptr[0] == '"' || value.ptr[0] == 'W'))
        /* A weak tag never says that the bytes are the same (RFC 9110 §13.1.5). */
        return etag && value.len == strlen(etag) && !memcmp(value.ptr, etag, value.len);
    /* A date says it only if it is exactly ours: two versions may share a second, but objects here
     * have one. */
    return read_date(value, &date) && date == modified_s;
}
