/*
 * Sending a large body: each block is read into the loop's scratch, verified, and sent from there.
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

#include <assert.h>
#include <stdlib.h>

#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

struct body_source {
    struct http_source http; /* first: the core hands it back */
    struct store *store;
    struct store_body *body;
    const uint8_t *memory; /* all of a small body, or NULL */
    struct multipart layout;
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

static void warm(struct store_job *job, struct db_reader *reader)
{
    struct body_source *source = container_of(job, struct body_source, job);

    (void)reader;
    if (source->kept)
        source->rc =
            store_body_block(source->body, source->index, source->kept, &source->kept_len, false);
    else
        source->rc = body_warm(source->body, source->index, source->last);
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
    if (source->memory) {
        *data = source->memory + position;
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
        int rc = store_body_block(source->body, index, scratch, &block_len, true);
        if (rc == ERR_AGAIN)
            return wait_for(source, request, index, (position + left - 1) / BLOCK_BYTES);
        if (rc)
            return rc;
    }
    assert(within < block_len);
    *data = block + within;
    *len = block_len - within < left ? block_len - within : left;
    return 0;
}

static void close_source(struct http_source *http)
{
    struct body_source *source = (struct body_source *)http;

    multipart_release(&source->layout);
    drop_kept(source);
    free(source);
}

int body_source_create(struct http_source **out, struct store *store, struct store_body *body,
                       const uint8_t *memory, struct multipart *layout)
{
    *out = NULL;
    struct body_source *source = calloc(1, sizeof *source);
    if (!source) {
        multipart_release(layout);
        return ERR_NO_MEMORY;
    }
    source->http = (struct http_source){read_source, close_source};
    source->store = store;
    source->body = body;
    source->memory = memory;
    source->layout = *layout;
    *out = &source->http;
    return 0;
}
