/*
 * The canonical spelling of user meta. jansson parses (strictly: duplicates, bad UTF-8 and \u0000
 * are refused) and prints sorted, compact ASCII; the one thing it leaves as it is, DEL, would be a
 * control character in a header, so it is escaped on the way.
 *
 * Failure: one error code, and the output buffer as it was.
 */
#include "journal/usermeta.h"

#include "base/json.h"
#include "base/limits.h"

#include <stdbool.h>
#include <string.h>

static int add_escaped(const char *piece, size_t len, void *arg)
{
    struct buf *out = arg;

    while (len > 0) {
        const char *del = memchr(piece, 0x7f, len);
        size_t plain = del ? (size_t)(del - piece) : len;

        buf_add(out, piece, plain);
        if (del) {
            buf_text(out, "\\u007F");
            plain++;
        }
        piece += plain;
        len -= plain;
    }
    return out->rc ? -1 : 0;
}

static bool all_strings(json_t *object)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        if (!json_is_string(value))
            return false;
    }
    return true;
}

int usermeta_canonical(struct buf *out, const char *text, size_t len)
{
    size_t before = out->len;
    json_t *parsed = NULL;
    int rc = buf_check(out);

    if (rc)
        return rc;
    if (len > LIMIT_USER_META_BYTES)
        return ERR_TOO_BIG;
    rc = json_read(&parsed, text, len, JSON_REJECT_DUPLICATES);
    if (rc)
        goto out;
    if (!json_is_object(parsed) || !all_strings(parsed)) {
        rc = ERR_INVALID;
        goto out;
    }
    if (json_dump_callback(parsed, add_escaped, out,
                           JSON_SORT_KEYS | JSON_COMPACT | JSON_ENSURE_ASCII) != 0)
        rc = out->rc ? out->rc : ERR_NO_MEMORY;
    else
        rc = out->len - before > LIMIT_USER_META_BYTES ? ERR_TOO_BIG : 0;

out:
    if (rc) {
        out->len = before;
        out->rc = 0;
    }
    json_decref(parsed);
    return rc;
}
