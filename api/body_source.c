/*
 * Sending a large body. What is hot is sent as it lies in memory (storage/hot_blocks.h). Each other
 * block is read into the loop's scratch, verified, offered to the hot ones, and sent from there.
 *
 *   read ─► page cache has the block ─────────────────────────────► sent
 *        └► ERR_AGAIN: suspend ─► pool reads and verifies it and some more ─► post ─► read again
 *
 * Where the block is not in the page cache even then (memory is short, or the file system cannot
 * read without waiting at all), the pool reads it once more into memory of our own, which goes as
 * soon as the block is sent; so every second read at least makes progress.
 *
 * A damaged block ends the answer: the core cuts the connection, so that the client sees too few
 * bytes, never wrong ones. (The first block was checked before the header went out.)
 */
#include "api/body_source.h"

#include "base/container.h"

#include <assert.h>
#include <stdlib.h>

struct body_source {
    struct http_source http; /* first: the core hands it back */
    struct store *store;
    struct hot_blocks *hot;
    struct body_origin origin;
    struct multipart layout;
    struct hot_range held; /* while the core sends it */
    uint64_t offered;      /* blocks below were offered to the hot ones */
    struct store_job job;
    struct http_request *request; /* that waits for the job */
    uint64_t index, last;         /* what the job reads, and how far it may go on */
    int rc;                       /* what the job found */
    bool waited;                  /* a job has been run for index */
    bool keeps;                   /* the page cache has let us down: read into `kept` */
    uint8_t *kept;                /* block number index, or NULL */
    size_t kept_len;
};

int body_warm(struct store_body *body, uint64_t index, uint64_t last)
{
    uint8_t block[BLOCK_BYTES];
    size_t len;
    int rc = store_body_block(body, index, block, &len, false);

    for (unsigned i = 1; rc == 0 && i < BODY_READ_AHEAD && index + i <= last; i++) {
        /* What fails here is found again when its turn comes. */
        if (store_body_block(body, index + i, block, &len, false) != 0)
            break;
    }
    return rc;
}

static void warmed(struct http_request *request)
{
    http_source_ready(request);
}

/* All was hot when the answer began, but is so no more. */
static int open_body(struct body_source *source, struct db_reader *reader)
{
    const struct body_origin *origin = &source->origin;
    int rc = store_open(origin->body, source->store, reader, &origin->id, true);

    if (rc)
        return rc;
    const struct object *object = store_body_object(*origin->body);
    /* Never bytes of another body behind those already sent. */
    return object->place.volume == PLACE_LARGE && object->place.offset == origin->number
               ? 0
               : ERR_NOT_FOUND;
}

static void warm(struct store_job *job, struct db_reader *reader)
{
    struct body_source *source = container_of(job, struct body_source, job);

    source->rc = *source->origin.body ? 0 : open_body(source, reader);
    if (source->rc == 0 && source->kept)
        source->rc = store_body_block(*source->origin.body, source->index, source->kept,
                                      &source->kept_len, false);
    else if (source->rc == 0)
        source->rc = body_warm(*source->origin.body, source->index, source->last);
    http_post(source->request, warmed);
}

static void drop_kept(struct body_source *source)
{
    if (source->kept)
        budget_give(store_memory(source->store), BLOCK_BYTES);
    free(source->kept);
    source->kept = NULL;
}

static int wait_for(struct body_source *source, struct http_request *request, uint64_t index,
                    uint64_t last)
{
    assert(!source->kept);
    if (source->waited && source->index == index)
        source->keeps = true;
    if (source->keeps) {
        if (!budget_take(store_memory(source->store), BLOCK_BYTES))
            return ERR_FULL;
        source->kept = malloc(BLOCK_BYTES);
        if (!source->kept) {
            budget_give(store_memory(source->store), BLOCK_BYTES);
            return ERR_NO_MEMORY;
        }
    }
    source->waited = true;
    source->request = request;
    source->index = index;
    source->last = last;
    source->job.run = warm;
    /* Suspended first: the job may post before we are back. */
    http_suspend(request);
    int rc = store_submit_admitted(source->store, &source->job);
    if (rc) {
        source->rc = rc;
        http_post(request, warmed);
    }
    return ERR_AGAIN;
}

static int read_source(struct http_source *http, struct http_request *request, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len)
{
    struct body_source *source = (struct body_source *)http;
    const char *text;
    uint64_t position, left;
    size_t block_len;

    assert(cap >= BLOCK_BYTES);
    if (source->rc)
        return source->rc;
    multipart_at(&source->layout, offset, &text, &position, &left);
    if (text) {
        *data = (const uint8_t *)text;
        *len = (size_t)left;
        return 0;
    }
    if (source->origin.memory) {
        *data = source->origin.memory + position;
        *len = (size_t)left;
        return 0;
    }
    uint64_t index = position / BLOCK_BYTES, within = position % BLOCK_BYTES;
    const uint8_t *block = scratch;
    if (source->kept && source->index == index) {
        block = source->kept;
        block_len = source->kept_len;
    } else {
        drop_kept(source);
        int rc = ERR_AGAIN;
        if (*source->origin.body)
            rc = store_body_block(*source->origin.body, index, scratch, &block_len, true);
        if (rc == ERR_AGAIN)
            return wait_for(source, request, index, (position + left - 1) / BLOCK_BYTES);
        if (rc)
            return rc;
    }
    assert(within < block_len);
    if (index >= source->offered) {
        source->offered = index + 1;
        hot_blocks_offer(source->hot, source->origin.number, source->origin.size, index, block,
                         block_len);
    }
    *data = block + within;
    *len = block_len - within < left ? block_len - within : left;
    return 0;
}

static bool hold_source(struct http_source *http, uint64_t offset, struct http_file *file)
{
    struct body_source *source = (struct body_source *)http;
    const char *text;
    uint64_t position, left;

    if (source->origin.memory || source->rc)
        return false;
    multipart_at(&source->layout, offset, &text, &position, &left);
    uint64_t within = position % BLOCK_BYTES;
    if (text || !hot_blocks_hold(source->hot, source->origin.number, position / BLOCK_BYTES,
                                 (position + left - 1) / BLOCK_BYTES, &source->held))
        return false;
    assert(within < source->held.bytes);
    file->fd = source->held.fd;
    file->offset = source->held.offset + within;
    file->len = source->held.bytes - within < left ? source->held.bytes - within : left;
    return true;
}

static void release_source(struct http_source *http, uint64_t sent_bytes)
{
    struct body_source *source = (struct body_source *)http;

    hot_blocks_release(source->hot, &source->held, sent_bytes);
}

static void close_source(struct http_source *http)
{
    struct body_source *source = (struct body_source *)http;

    multipart_release(&source->layout);
    drop_kept(source);
    free(source);
}

int body_source_create(struct http_source **out, struct store *store,
                       const struct body_origin *origin, struct multipart *layout)
{
    assert(origin->memory || origin->body);
    *out = NULL;
    struct body_source *source = calloc(1, sizeof *source);
    if (!source) {
        multipart_release(layout);
        return ERR_NO_MEMORY;
    }
    source->http = (struct http_source){read_source, close_source, hold_source, release_source};
    source->store = store;
    source->hot = store_hot(store);
    source->origin = *origin;
    source->layout = *layout;
    *out = &source->http;
    return 0;
}
