/*
 * One event, one line: what every event has first, then what this one says. An event that this
 * build cannot decode, or one of a kind it does not know, is shown with its raw bytes in hex, so
 * that nothing is left out.
 */
#include "cmd/objctl_dump.h"

#include "base/buf.h"
#include "base/text.h"
#include "journal/event.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LINE_MAX_BYTES (4 * MIB)

struct dump {
    const struct db_origin *origin;
    struct buf line;
};

static void add_id(struct buf *out, const char *name, const struct id128 *id)
{
    char text[ULID_TEXT_BYTES + 1];

    ulid_format(text, id);
    buf_format(out, ",\"%s\":\"%s\"", name, text);
}

static void add_hex(struct buf *out, const char *name, const void *data, size_t len)
{
    buf_format(out, ",\"%s\":\"", name);
    char *to = buf_reserve(out, 2 * len + 1);
    if (to) {
        hex_encode(to, data, len);
        out->len += 2 * len;
    }
    buf_char(out, '"');
}

static void add_text(struct buf *out, const char *name, struct text text)
{
    buf_format(out, ",\"%s\":", name);
    buf_json(out, text.ptr ? text.ptr : "", text.len);
}

static void add_number(struct buf *out, const char *name, uint64_t number)
{
    buf_format(out, ",\"%s\":%llu", name, (unsigned long long)number);
}

/* The wall time in a stamp, for people. */
static void add_time(struct buf *out, const char *name, uint64_t unix_ms)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    char text[64];
    struct tm parts;

    if (!gmtime_r(&seconds, &parts) || !strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts))
        return;
    buf_format(out, ",\"%s\":\"%s.%03uZ\"", name, text, (unsigned)(unix_ms % 1000));
}

static void add_items(struct buf *out, const struct event *event, const uint8_t *raw, size_t len)
{
    struct event_item *items = calloc(LIMIT_EVENT_LIST_ITEMS, sizeof *items);
    char hex[2 * SHA256_BYTES + 1], id[ULID_TEXT_BYTES + 1];
    size_t count = items ? event_items(raw, len, items, LIMIT_EVENT_LIST_ITEMS) : 0;

    assert(count <= LIMIT_EVENT_LIST_ITEMS);
    add_number(out, "item_count", event->item_count);
    buf_text(out, ",\"items\":[");
    for (size_t i = 0; i < count; i++) {
        ulid_format(id, &items[i].id);
        hex_encode(hex, items[i].sha256, SHA256_BYTES);
        buf_format(out, "%s{\"id\":\"%s\",\"sha256\":\"%s\"}", i ? "," : "", id, hex);
    }
    buf_char(out, ']');
    free(items);
}

static void add_object_fields(struct buf *out, const struct event *event)
{
    if (event->fields & EVENT_HAS_SHA256)
        add_hex(out, "sha256", event->sha256, sizeof event->sha256);
    if (event->fields & EVENT_HAS_SIZE)
        add_number(out, "size", event->size);
    if (event->fields & EVENT_HAS_LEVEL)
        add_number(out, "level", event->level);
    if (event->fields & EVENT_HAS_NAME)
        add_text(out, "name", event->name);
    if (event->fields & EVENT_HAS_TYPE)
        add_text(out, "type", event->type);
    if (event->fields & EVENT_HAS_USER_META)
        buf_format(out, ",\"user_meta\":%.*s", (int)event->user_meta.len,
                   event->user_meta.ptr ? event->user_meta.ptr : "");
    if (event->fields & EVENT_HAS_EXPIRES)
        add_time(out, "expires", event->expires_ms);
    if (event->fields & EVENT_HAS_REASON)
        add_number(out, "reason", event->reason);
    if (event->fields & EVENT_HAS_PURGE)
        buf_format(out, ",\"purge\":%s", event->purge ? "true" : "false");
}

static void add_other_fields(struct buf *out, const struct event *event)
{
    if (event->fields & EVENT_HAS_FOLLOWS) {
        buf_format(out, ",\"follows\":{\"seq\":%llu", (unsigned long long)event->follows.seq);
        add_id(out, "origin", &event->follows.origin);
        add_hex(out, "hash", event->follows.hash, sizeof event->follows.hash);
        buf_char(out, '}');
    }
    if (event->fields & EVENT_HAS_CLOUD) {
        add_number(out, "cloud_state", event->cloud_state);
        add_text(out, "backend", event->backend);
        add_text(out, "etag", event->etag);
        if (event->removed.stamp) {
            add_number(out, "removed_stamp", event->removed.stamp);
            add_id(out, "removed_origin", &event->removed.origin);
        }
    }
    if (event->fields & (EVENT_HAS_CLOUD | EVENT_HAS_BIND)) {
        add_text(out, "bucket", event->bucket);
        add_text(out, "key", event->key);
    }
    if (event->fields & EVENT_HAS_MEMBER) {
        add_number(out, "member_state", event->member_state);
        add_text(out, "address", event->address);
    }
    if (event->fields & (EVENT_HAS_MEMBER | EVENT_HAS_FREEZE))
        add_id(out, "subject", &event->subject);
    if (event->fields & EVENT_HAS_SUMS)
        add_hex(out, "sums", event->sums.ptr, event->sums.len);
}

static void render(struct buf *out, const struct db_origin *origin, uint64_t seq,
                   const uint8_t *raw, size_t len)
{
    struct event event;
    uint8_t hash[SHA256_BYTES];

    buf_format(out, "{\"seq\":%llu", (unsigned long long)seq);
    add_id(out, "origin", &origin->origin);
    event_hash(raw, len, hash);
    if (event_decode(&event, raw, len) != 0) {
        add_hex(out, "hash", hash, sizeof hash);
        add_hex(out, "raw", raw, len);
        buf_text(out, "}\n");
        return;
    }
    add_id(out, "node", &event.node);
    buf_format(out, ",\"kind\":\"%s\"", event_kind_name(event.kind));
    add_number(out, "stamp", event.stamp);
    add_time(out, "time", hlc_wall_ms(event.stamp));
    if (!id_is_zero(&event.id))
        add_id(out, "id", &event.id);
    add_object_fields(out, &event);
    add_other_fields(out, &event);
    if (event.fields & EVENT_HAS_ITEMS)
        add_items(out, &event, raw, len);
    add_hex(out, "prev", event.prev, sizeof event.prev);
    add_hex(out, "hash", hash, sizeof hash);
    if (event.kind < EVENT_PUT || event.kind > EVENT_FREEZE)
        add_hex(out, "raw", raw, len);
    buf_text(out, "}\n");
}

static int print_event(void *arg, uint64_t seq, const uint8_t *raw, size_t len)
{
    struct dump *dump = arg;

    buf_reset(&dump->line);
    render(&dump->line, dump->origin, seq, raw, len);
    int rc = buf_check(&dump->line);
    if (rc)
        return rc;
    return fwrite(dump->line.data, 1, dump->line.len, stdout) == dump->line.len ? 0 : ERR_IO;
}

int dump_origin(struct db_reader *reader, const struct db_origin *origin)
{
    struct dump dump = {.origin = origin};

    buf_init(&dump.line, LINE_MAX_BYTES);
    int rc = db_each_event(reader, origin->no, 1, print_event, &dump);
    buf_release(&dump.line);
    return rc;
}
