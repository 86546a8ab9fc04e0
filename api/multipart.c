/*
 * The layout is a list: text 0, range 0, text 1, range 1, … text N. A single range is the same list
 * with empty texts.
 */
#include "api/multipart.h"

#include <assert.h>
#include <string.h>

static uint64_t range_length(const struct byte_range *range)
{
    return range->last - range->first + 1;
}

int multipart_init(struct multipart *out, const struct byte_range *ranges, unsigned count,
                   uint64_t size, struct slice type_line, const char *boundary)
{
    assert(count >= 1 && count <= LIMIT_HTTP_RANGES);
    memset(out, 0, sizeof *out);
    out->count = count;
    memcpy(out->ranges, ranges, count * sizeof *ranges);
    for (unsigned i = 0; i < count; i++) {
        assert(ranges[i].first <= ranges[i].last && ranges[i].last < size);
        out->length += range_length(&ranges[i]);
    }
    if (count == 1)
        return 0;
    for (unsigned i = 0; i < count; i++) {
        buf_format(&out->text, "%s--%s\r\n", i ? "\r\n" : "", boundary);
        buf_add(&out->text, type_line.ptr, type_line.len);
        buf_format(&out->text, "Content-Range: bytes %llu-%llu/%llu\r\n\r\n",
                   (unsigned long long)ranges[i].first, (unsigned long long)ranges[i].last,
                   (unsigned long long)size);
        out->text_end[i] = (uint32_t)out->text.len;
    }
    buf_format(&out->text, "\r\n--%s--\r\n", boundary);
    out->text_end[count] = (uint32_t)out->text.len;
    out->length += out->text.len;
    int rc = buf_check(&out->text);
    if (rc)
        multipart_release(out);
    return rc;
}

void multipart_release(struct multipart *multipart)
{
    buf_release(&multipart->text);
}

void multipart_at(const struct multipart *multipart, uint64_t offset, const char **text,
                  uint64_t *position, uint64_t *len)
{
    uint32_t begin = 0;

    assert(offset < multipart->length);
    for (unsigned i = 0; i <= multipart->count; i++) {
        uint32_t text_len = multipart->text_end[i] - begin;

        if (offset < text_len) {
            *text = multipart->text.data + begin + offset;
            *position = 0;
            *len = text_len - offset;
            return;
        }
        offset -= text_len;
        begin = multipart->text_end[i];
        if (i == multipart->count)
            break;
        uint64_t range_len = range_length(&multipart->ranges[i]);
        if (offset < range_len) {
            *text = NULL;
            *position = multipart->ranges[i].first + offset;
            *len = range_len - offset;
            return;
        }
        offset -= range_len;
    }
    assert(!"an offset below the length lies somewhere");
}
