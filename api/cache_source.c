/*
 * Sending from the disk cache.
 *
 *   read ─► not written yet: suspend ─► the fill posts ─► read again
 *        └► the page cache has the block ───────────────────────────► verified, sent
 *        └► ERR_AGAIN: suspend ─► pool reads it, and ahead ─► post ──► read again
 *
 * Where that is ERR_AGAIN once more (a file system that cannot tell, or the page was taken away),
 * what the pool reads is kept in memory of our own, as long as there is any; else the loop reads
 * what the pool has read a moment ago. So no answer ends for want of memory.
 *
 * A body in parts has one of them at a time; the pool looks for the next one, or begins to fetch
 * it, when the reader gets there; and once it has come to a second part, also for the one after it.
 *
 * A damaged block, or a fill that fails, ends the answer: the core cuts the connection, so that the
 * client sees too few bytes, never wrong ones. The last block of a fill is not there to be read
 * before all of the body is verified.
 */
#include "api/cache_source.h"

#include "api/peer_copy.h"
#include "base/container.h"
#include "base/log.h"

#include <assert.h>
#include <stdlib.h>

#define READ_AHEAD 8 /* blocks */

struct cache_source {
    struct http_source http; /* first: the core hands it back */
    struct store *store;
    struct disk_copy *copy; /* one of these two: a copy that is complete, … */
    struct peer_fill *fill; /* … or one that comes */
    struct multipart layout;
    struct fill_waiter waiter;
    uint64_t base, size; /* of the body, what COPY or FILL has */
    bool patient;        /* nothing is sent before all of it is here, and verified */
    /* In parts. */
    struct store_origin *origin; /* of the whole body; NULL: that is all of it */
    uint64_t token;
    struct peer_fill *ahead; /* of the next part; NULL: none is fetched ahead */
    unsigned switches;       /* parts after the first one */
    struct store_job job;
    struct http_request *request; /* that waits for the job */
    uint64_t index, last;         /* what the job reads, and how far it may look ahead */
    int rc;                       /* what the job found */
    bool warm;                    /* the job has read block INDEX */
    bool keeps;                   /* … which is not enough: it is kept, too */
    uint8_t *kept;                /* block INDEX, or NULL */
    size_t kept_len;
};

static void go_on(struct http_request *http)
{
    http_source_ready(http);
}

/* All bytes of block INDEX can be read: 0, or as peer_fill_wait. */
static int wait_written(struct cache_source *source, struct http_request *http, uint64_t index,
                        void (*run)(struct http_request *http), bool is_suspended)
{
    uint64_t end = (index + 1) * BLOCK_BYTES; /* INDEX is of the copy */

    if (!source->fill)
        return 0;
    source->waiter.http = http;
    source->waiter.run = run;
    source->waiter.end = end < source->size && !source->patient ? end : source->size;
    return peer_fill_wait(source->fill, &source->waiter, is_suspended);
}

static int take_block(struct cache_source *source, uint64_t index, uint8_t *block, size_t *len,
                      bool nowait)
{
    if (source->fill)
        return peer_fill_read(source->fill, index, block, len, nowait);
    return disk_copy_read(source->copy, index, block, len, nowait);
}

static void drop_kept(struct cache_source *source)
{
    if (source->kept)
        budget_give(store_memory(source->store), BLOCK_BYTES);
    free(source->kept);
    source->kept = NULL;
}

/* ---- The pool ---- */

static void read_cold(struct store_job *job, struct db_reader *reader)
{
    struct cache_source *source = container_of(job, struct cache_source, job);
    uint8_t block[BLOCK_BYTES];
    size_t len;

    (void)reader;
    source->rc = take_block(source, source->index, source->kept ? source->kept : block,
                            &source->kept_len, false);
    source->warm = true;
    /* Ahead only of what is complete: of a fill the page cache still has the rest. And where that
     * is of no use each block would be read as often as there are blocks ahead. */
    bool ahead = !source->fill && !source->keeps;
    for (unsigned i = 1; ahead && source->rc == 0 && i < READ_AHEAD; i++) {
        if (source->index + i > source->last ||
            disk_copy_read(source->copy, source->index + i, block, &len, false) != 0)
            break;
    }
    http_post(source->request, go_on);
}

static int wait_cold(struct cache_source *source, struct http_request *http, uint64_t index,
                     uint64_t last)
{
    struct budget *memory = store_memory(source->store);

    assert(!source->kept);
    /* A block is a comfort: half of the memory is for those who cannot do without. */
    if (source->keeps && budget_take_below(memory, BLOCK_BYTES, memory->limit / 2)) {
        source->kept = malloc(BLOCK_BYTES);
        if (!source->kept)
            budget_give(memory, BLOCK_BYTES);
    }
    source->request = http;
    source->index = index;
    source->last = last;
    source->job.run = read_cold;
    /* Suspended first: the job may post before we are back. */
    http_suspend(http);
    int rc = store_submit_admitted(source->store, &source->job);
    if (rc) {
        source->rc = rc;
        http_post(http, go_on);
    }
    return ERR_AGAIN;
}

/* ---- Parts ---- */

static void leave_part(struct cache_source *source)
{
    if (source->fill)
        peer_fill_leave(&source->fill);
    else
        disk_copy_release(&source->copy);
    source->copy = NULL;
}

/* Begin with the part after PART where the answer reaches it and goes on as it did. */
static void begin_ahead(struct cache_source *source, const struct store_origin *part)
{
    uint64_t next = part->part_offset + part->part_bytes;
    struct peer_fills *fills = store_peer_fills(source->store);
    struct store_origin ahead;

    peer_fill_leave(&source->ahead);
    if (source->switches == 0 || source->layout.count != 1 || next > source->layout.ranges[0].last)
        return;
    store_origin_part(&ahead, source->origin, next / STORE_PART_BYTES);
    /* Where it is here, or there is no room: nothing is lost. */
    if (peer_fill_join(&source->ahead, fills, &ahead, source->token) != 0)
        source->ahead = NULL;
}

/* Take over the part in which source->index, a block of the body, lies. On a pool thread. */
static int take_part(struct cache_source *source)
{
    struct store_origin part;

    store_origin_part(&part, source->origin, source->index * BLOCK_BYTES / STORE_PART_BYTES);
    int rc = peer_copy_find(&source->copy, &source->fill, source->store, &part, source->token);
    if (rc)
        return rc;
    source->base = part.part_offset;
    source->size = part.part_bytes;
    source->switches++;
    begin_ahead(source, &part);
    return 0;
}

static void run_switch(struct store_job *job, struct db_reader *reader)
{
    struct cache_source *source = container_of(job, struct cache_source, job);

    (void)reader;
    source->rc = take_part(source);
    http_post(source->request, go_on);
}

static int switch_part(struct cache_source *source, struct http_request *http, uint64_t position)
{
    leave_part(source);
    source->warm = false;
    source->request = http;
    source->index = position / BLOCK_BYTES;
    source->job.run = run_switch;
    /* Suspended first: the job may post before we are back. */
    http_suspend(http);
    int rc = store_submit_admitted(source->store, &source->job);
    if (rc) {
        source->rc = rc;
        http_post(http, go_on);
    }
    return ERR_AGAIN;
}

/* ---- The loop ---- */

/* A code that the core does not take for a wait. */
static int cut(int rc)
{
    log_warn("disk cache: an answer ends too early: %s", err_text(rc));
    return ERR_CLOSED;
}

/* Block INDEX of the copy into BUF; ERR_AGAIN: HTTP is suspended. LAST: what is read next. */
static int read_block(struct cache_source *source, struct http_request *http, uint64_t index,
                      uint64_t last, uint8_t *buf, size_t *len)
{
    int rc = wait_written(source, http, index, go_on, false);

    if (rc)
        return rc;
    rc = take_block(source, index, buf, len, true);
    if (rc != ERR_AGAIN)
        return rc;
    if (!source->warm || source->index != index)
        return wait_cold(source, http, index, last);
    source->keeps = true;
    return take_block(source, index, buf, len, false);
}

static int read_source(struct http_source *it, struct http_request *http, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len)
{
    struct cache_source *source = (struct cache_source *)it;
    const char *text;
    uint64_t position, left;
    size_t block_len;

    assert(cap >= BLOCK_BYTES);
    if (source->rc)
        return cut(source->rc);
    multipart_at(&source->layout, offset, &text, &position, &left);
    if (text) {
        *data = (const uint8_t *)text;
        *len = (size_t)left;
        return 0;
    }
    if (position < source->base || position >= source->base + source->size) {
        drop_kept(source);
        return switch_part(source, http, position);
    }
    if (left > source->base + source->size - position)
        left = source->base + source->size - position;
    position -= source->base;
    uint64_t index = position / BLOCK_BYTES, within = position % BLOCK_BYTES;
    const uint8_t *block = scratch;
    if (source->kept && source->index == index) {
        block = source->kept;
        block_len = source->kept_len;
    } else {
        drop_kept(source);
        int rc = read_block(source, http, index, (position + left - 1) / BLOCK_BYTES, scratch,
                            &block_len);
        if (rc)
            return rc == ERR_AGAIN ? rc : cut(rc);
    }
    assert(within < block_len);
    *data = block + within;
    *len = block_len - within < left ? block_len - within : left;
    return 0;
}

static void close_source(struct http_source *it)
{
    struct cache_source *source = (struct cache_source *)it;

    leave_part(source);
    peer_fill_leave(&source->ahead);
    multipart_release(&source->layout);
    drop_kept(source);
    free(source->origin);
    free(source);
}

/* ---- Life ---- */

int cache_source_create(struct http_source **out, struct store *store, struct disk_copy **copy,
                        struct peer_fill **fill, struct multipart *layout)
{
    struct cache_source *source = calloc(1, sizeof *source);

    assert(!*copy != !*fill);
    *out = NULL;
    if (!source) {
        disk_copy_release(copy);
        peer_fill_leave(fill);
        multipart_release(layout);
        return ERR_NO_MEMORY;
    }
    source->http = (struct http_source){.read = read_source, .close = close_source};
    source->store = store;
    source->fill = *fill;
    source->copy = *copy;
    source->size = *fill ? store_origin_bytes(peer_fill_origin(*fill)) : disk_copy_size(*copy);
    source->layout = *layout;
    *fill = NULL;
    *copy = NULL;
    *out = &source->http;
    return 0;
}

void cache_source_be_patient(struct http_source *http_source)
{
    ((struct cache_source *)http_source)->patient = true;
}

int cache_source_in_parts(struct http_source *http_source, const struct store_origin *origin,
                          uint64_t token)
{
    struct cache_source *source = (struct cache_source *)http_source;

    source->origin = malloc(sizeof *origin);
    if (!source->origin)
        return ERR_NO_MEMORY;
    *source->origin = *origin;
    source->token = token;
    source->base = source->layout.ranges[0].first / STORE_PART_BYTES * STORE_PART_BYTES;
    return 0;
}

int cache_source_start(struct http_source *http_source, struct http_request *http,
                       void (*run)(struct http_request *http))
{
    struct cache_source *source = (struct cache_source *)http_source;
    uint64_t index = (source->layout.ranges[0].first - source->base) / BLOCK_BYTES;
    uint8_t block[BLOCK_BYTES];
    size_t len;

    if (source->fill)
        return wait_written(source, http, index, run, true);
    /* A damaged first block must show before the header is sent. */
    return run ? disk_copy_read(source->copy, index, block, &len, false) : 0;
}

const struct store_origin *cache_source_origin(struct http_source *http_source)
{
    struct cache_source *source = (struct cache_source *)http_source;

    return source->fill ? peer_fill_origin(source->fill) : NULL;
}

bool cache_source_from_cloud(struct http_source *http_source)
{
    struct cache_source *source = (struct cache_source *)http_source;

    return source->fill && peer_fill_from_cloud(source->fill);
}

void cache_source_close(struct http_source **source)
{
    if (*source)
        close_source(*source);
    *source = NULL;
}
