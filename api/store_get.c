/*
 * Reading objects: the row, and verified bytes.
 *
 *   hot       the RAM tier has the rendered answer; the door asks it before it comes here
 *   lukewarm  store_open_nowait: the RAM tier knows the place, the page cache has the record, and
 *             the put event in it says all that the row says (places are kept for such alone)
 *   cold      store_open, on a pool thread: pending entries, SQLite, disk
 *
 * A body that is not here, or whose copy here is damaged, may be on other nodes: the row is handed
 * out with ERR_ELSEWHERE, and the door goes on with api/peer_body.h or api/peer_source.h.
 *
 * Cleaning may take a segment away between look-up and read: then the row is looked up again, a
 * bounded number of times. Bytes that do not fit their checksum are never handed out.
 */
#include "api/store_impl.h"

#include "base/log.h"
#include "journal/db_peers.h"
#include "journal/merge.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LOOKUPS 8

struct store_body {
    struct store *store;
    struct object *object;
    uint64_t token;
    uint8_t *record; /* our own buffer, where the record is not in a loop's scratch … */
    size_t held;     /* … and its size, taken from the store's memory */
    const uint8_t *inline_body;
    struct large_reader *large;
};

static bool expired(const struct store *store, uint64_t expires_ms)
{
    return expires_ms != 0 && env_wall_ms(store->env) >= expires_ms;
}

static void report_damage(const struct store_body *body, const char *what, uint64_t number)
{
    char id[ULID_TEXT_BYTES + 1];
    const struct place *place = &body->object->place;

    ulid_format(id, &body->object->id);
    log_error("object %s: %s %llu of its body is damaged (volume %u, offset %llu)", id, what,
              (unsigned long long)number, place->volume, (unsigned long long)place->offset);
    journal_found_damaged(body->store->journal, body->object);
}

static void release_record(struct store_body *body)
{
    free(body->record);
    body->record = NULL;
    budget_give(body->store->memory, body->held);
    body->held = 0;
}

/* SIZE bytes for a record. A slow client keeps them for long, so their sum has a limit. */
static int hold_record(struct store_body *body, size_t size)
{
    assert(!body->record);
    if (!budget_take(body->store->memory, size))
        return ERR_FULL;
    body->held = size;
    body->record = malloc(size);
    if (body->record)
        return 0;
    release_record(body);
    return ERR_NO_MEMORY;
}

/* The record of a small object, into memory of our own. */
static int read_record(struct store_body *body)
{
    const struct object *object = body->object;
    size_t cap = object->record_bytes ? object->record_bytes : RECORD_MAX_BYTES;
    struct record_view view;

    release_record(body);
    int rc = hold_record(body, cap);
    if (rc)
        return rc;
    rc = log_read(body->store->log, &object->place, &object->id, object->record_bytes, body->record,
                  cap, false, &view);
    if (rc == ERR_CORRUPT || rc == ERR_TOO_BIG) {
        report_damage(body, "record or a block", 0);
        return ERR_CORRUPT;
    }
    if (rc)
        return rc;
    if (!view.body || view.header.body_bytes != object->size) {
        report_damage(body, "length", view.header.body_bytes);
        return ERR_CORRUPT;
    }
    body->inline_body = view.body;
    if (object->flags & OBJECT_PLAIN) {
        const struct ram_location location = {object->place, object->record_bytes};

        ram_place(body->store->ram, body->token, &object->id, &location);
    }
    return 0;
}

/* Whether there is anybody else to ask for OBJECT's bytes. */
static bool may_be_elsewhere(const struct store *store, const struct object *object)
{
    struct cluster_cloud cloud;

    return store->cluster &&
           (!cluster_is_alone(store->cluster) || cluster_cloud_of(store->cluster, object, &cloud));
}

bool store_body_forsake(struct store_body *body)
{
    assert(body->object);
    if (!may_be_elsewhere(body->store, body->object))
        return false;
    memset(&body->object->place, 0, sizeof body->object->place);
    body->object->record_bytes = 0;
    large_reader_close(&body->large);
    release_record(body);
    body->inline_body = NULL;
    return true;
}

static int open_bytes(struct store_body *body)
{
    const struct object *object = body->object;

    /* Known, but the bytes are not here; in a node that is alone they were lost to rot. */
    if (place_is_none(&object->place))
        return ERR_CORRUPT;
    if (object->place.volume != PLACE_LARGE)
        return read_record(body);
    int rc =
        large_reader_open(&body->large, body->store->large, object->place.offset, object->size);
    if (rc == ERR_CORRUPT)
        report_damage(body, "frame", 0);
    return rc;
}

int store_open(struct store_body **out, struct store *store, struct db_reader *reader,
               const struct id128 *id, bool with_body)
{
    int rc = ERR_NOT_FOUND;

    *out = NULL;
    hot_blocks_care(store->hot); /* whoever needs memory that is idle there comes by here */
    struct store_body *body = calloc(1, sizeof *body);
    if (!body)
        return ERR_NO_MEMORY;
    body->store = store;
    for (unsigned i = 0; i < MAX_LOOKUPS; i++) {
        object_destroy(&body->object);
        body->token = ram_token(store->ram, id);
        rc = journal_find(store->journal, reader, id, &body->object);
        if (rc)
            goto out;
        if (body->object->flags & OBJECT_DELETED) {
            rc = ERR_DELETED;
            goto out;
        }
        rc = ERR_NOT_FOUND;
        if (!(body->object->flags & OBJECT_PUT) || expired(store, body->object->expires_ms))
            goto out;
        if (!with_body) {
            rc = 0;
            goto out;
        }
        rc = open_bytes(body);
        if (rc != ERR_NOT_FOUND)
            goto out;
    }
    /* The place stays empty, look-up after look-up: the row points to a file that is gone. */
    report_damage(body, "file or segment", 0);
    rc = ERR_CORRUPT;
out:
    if (rc == ERR_CORRUPT && body->object && store_body_forsake(body))
        rc = ERR_ELSEWHERE;
    if (rc && rc != ERR_DELETED && rc != ERR_ELSEWHERE)
        store_body_close(&body);
    *out = body;
    return rc;
}

/* Read and check the record at LOCATION; EVENT's texts point into it. */
static int read_located(struct store_body *body, const struct id128 *id,
                        const struct ram_location *location, uint8_t *scratch,
                        struct record_view *view, struct event *event)
{
    uint8_t *buf = scratch;
    size_t cap = STORE_SCRATCH_BYTES;

    if (location->record_bytes > STORE_SCRATCH_BYTES) {
        int rc = hold_record(body, location->record_bytes);

        if (rc)
            return rc;
        buf = body->record;
        cap = location->record_bytes;
    }
    /* Whatever is wrong here the pool finds out again, from the row itself. */
    if (log_read(body->store->log, &location->place, id, location->record_bytes, buf, cap, true,
                 view) != 0 ||
        !view->body || event_decode(event, view->event, view->header.event_bytes) != 0 ||
        event->kind != EVENT_PUT || !id_equal(&event->id, id) ||
        event->size != view->header.body_bytes)
        return ERR_AGAIN;
    return expired(body->store, event->expires_ms) ? ERR_NOT_FOUND : 0;
}

int store_open_nowait(struct store_body **out, struct store *store, const struct id128 *id,
                      uint8_t *scratch)
{
    struct ram_location location;
    struct record_view view;
    struct event event;

    *out = NULL;
    uint64_t token = ram_token(store->ram, id);
    if (ram_locate(store->ram, id, &location) != 0 || location.place.volume == PLACE_LARGE)
        return ERR_AGAIN;
    struct store_body *body = calloc(1, sizeof *body);
    if (!body)
        return ERR_NO_MEMORY;
    body->store = store;
    body->token = token;
    int rc = read_located(body, id, &location, scratch, &view, &event);
    if (rc == 0)
        rc = merge_event(&body->object, NULL, &event);
    if (rc) {
        store_body_close(&body);
        return rc;
    }
    body->object->place = location.place;
    body->object->record_bytes = location.record_bytes;
    body->inline_body = view.body;
    *out = body;
    return 0;
}

const struct object *store_body_object(const struct store_body *body)
{
    return body->object;
}

uint64_t store_body_token(const struct store_body *body)
{
    return body->token;
}

const uint8_t *store_body_inline(const struct store_body *body)
{
    return body->inline_body;
}

bool store_body_stays(const struct store_body *body)
{
    return body->record != NULL;
}

int store_body_block(struct store_body *body, uint64_t index, uint8_t *buf, size_t *len,
                     bool nowait)
{
    assert(body->large);
    assert(index < block_count(body->object->size));

    int rc = large_read_block(body->large, index, buf, len, nowait);
    if (rc == ERR_CORRUPT)
        report_damage(body, "block", index);
    return rc;
}

void store_body_close(struct store_body **body)
{
    struct store_body *it = *body;

    if (!it)
        return;
    large_reader_close(&it->large);
    object_destroy(&it->object);
    release_record(it);
    free(it);
    *body = NULL;
}

/* ---- Other nodes ---- */

int store_origin_find(struct store_origin *out, const struct store_body *body,
                      struct db_reader *reader)
{
    return store_origin_of(out, body->store, body->object, reader);
}

int store_origin_of(struct store_origin *out, struct store *store, const struct object *object,
                    struct db_reader *reader)
{
    out->id = object->id;
    memcpy(out->sha256, object->sha256, sizeof out->sha256);
    out->size = object->size;
    out->has_cloud = cluster_cloud_of(store->cluster, object, &out->cloud);
    out->delegated = false;
    out->part_offset = out->part_bytes = 0;
    return db_reader_holders(reader, object, out->holders, LIMIT_FETCH_HOLDERS, &out->holder_count);
}

void store_origin_part(struct store_origin *out, const struct store_origin *origin, uint64_t index)
{
    uint64_t offset = index * STORE_PART_BYTES;

    assert(offset < origin->size && origin->part_bytes == 0);
    *out = *origin;
    out->part_offset = offset;
    out->part_bytes =
        origin->size - offset < STORE_PART_BYTES ? origin->size - offset : STORE_PART_BYTES;
}

uint64_t store_origin_bytes(const struct store_origin *origin)
{
    return origin->part_bytes ? origin->part_bytes : origin->size;
}

void store_origin_name(const struct store_origin *origin, uint8_t name[SHA256_BYTES])
{
    uint8_t text[SHA256_BYTES + 8];

    if (origin->part_bytes == 0) {
        memcpy(name, origin->sha256, SHA256_BYTES);
        return;
    }
    memcpy(text, origin->sha256, SHA256_BYTES);
    memcpy(text + SHA256_BYTES, &origin->part_offset, 8);
    sha256(text, sizeof text, name);
}

bool store_origin_is_near(struct store *store, const struct store_origin *origin)
{
    return cluster_is_near(store->cluster, origin->holders, origin->holder_count);
}

int store_fetch(struct store *store, const struct store_origin *origin, uint64_t offset,
                uint64_t length, struct cluster_reader *reader)
{
    struct cluster_fetch fetch = {.id = origin->id,
                                  .size = origin->size,
                                  .offset = offset,
                                  .length = length,
                                  .delegated = origin->delegated,
                                  .cloud = origin->has_cloud ? &origin->cloud : NULL,
                                  .holders = origin->holders,
                                  .holder_count = origin->holder_count};

    assert(store->cluster);
    assert(length > 0 && offset < origin->size && length <= origin->size - offset);
    memcpy(fetch.sha256, origin->sha256, sizeof fetch.sha256);
    return cluster_fetch_start(store->cluster, &fetch, reader);
}

void store_fetch_consumed(struct store *store, struct cluster_reader *reader, uint64_t bytes)
{
    cluster_fetch_consumed(store->cluster, reader, bytes);
}

void store_fetch_cancel(struct store *store, struct cluster_reader *reader)
{
    cluster_fetch_cancel(store->cluster, reader);
}

void store_fetch_misfit(struct store *store, const struct id128 *id,
                        const struct cluster_reader *reader)
{
    char text[ULID_TEXT_BYTES + 1];

    ulid_format(text, id);
    log_error("object %s: the body that came from %s does not have its SHA-256", text,
              reader->from_cloud ? "the cloud" : "other nodes");
    cluster_fetch_misfit(store->cluster, reader);
    journal_count_bad(store->journal, 1, 0, 0);
}
