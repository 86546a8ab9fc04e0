/*
 * Streaming a large body from other nodes.
 *
 *   cluster's thread   data ─► ring ─► post, if the loop waits          done ─► post, if it waits
 *   loop               read ◄─ ring; tells what it has taken, so that more may come
 *                        └► nothing there: suspend, wait for the post
 *
 * The ring holds what the cluster may have given and not been told as taken: its window, or a whole
 * range where that is shorter. Several ranges are one fetch after the other; the next begins when
 * `done` of the one before it was called.
 *
 * Where all of the body is sent its SHA-256 is computed as it passes, by the loop, and the last
 * block waits for it. If it does not fit, or the fetch ends early, the read fails and the core cuts
 * the connection: the client sees too few bytes, never a whole wrong body.
 *
 * References: the loop's until close, and one of a fetch under way until its `done` has returned.
 * Whoever is last frees. A close cancels the fetch while the loop's reference is still held.
 */
#include "api/peer_source.h"

#include "base/container.h"
#include "base/log.h"
#include "journal/ulid.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Taken bytes are told to the cluster in steps of this size: each is a message to its thread. */
#define TELL_BYTES (BODY_WINDOW_BYTES / 4)
/* So much is handed to the core at once, and hashed for it. */
#define PIECE_BYTES (2 * BLOCK_BYTES)

enum wait { WAIT_NONE, WAIT_DATA, WAIT_OVER };

struct peer_source {
    struct http_source http; /* first: the core hands it back */
    struct cluster_reader reader;
    struct store *store;
    struct store_origin origin;
    struct multipart layout;
    uint8_t *ring;
    uint64_t cap;

    pthread_mutex_t lock;
    /* Guarded by it. Positions are of the body. */
    unsigned references;
    uint64_t begin, end; /* of the present range */
    uint64_t came;       /* bytes below are, or were, in the ring */
    uint64_t taken;      /* bytes below are out of it again */
    bool from_cloud;     /* some of what came */
    bool over;           /* `done` was called, or no fetch has begun; then … */
    int rc;              /* … with this */
    enum wait wait;
    struct http_request *waiter;
    void (*run)(struct http_request *http);

    /* The loop's own. */
    uint64_t untold;       /* taken, and not told to the cluster */
    struct digest *digest; /* NULL: only parts of the body are sent */
    uint64_t hashed;
    bool verified;
};

static void hold(struct peer_source *source)
{
    (void)pthread_mutex_lock(&source->lock);
}

static void release(struct peer_source *source)
{
    (void)pthread_mutex_unlock(&source->lock);
}

static void unreference(struct peer_source *source)
{
    hold(source);
    bool last = --source->references == 0;
    release(source);
    if (!last)
        return;
    (void)pthread_mutex_destroy(&source->lock);
    multipart_release(&source->layout);
    digest_destroy(&source->digest);
    budget_give(store_memory(source->store), source->cap);
    free(source->ring);
    free(source);
}

/* With the lock held: whom to post, now that what WAIT says has come; NULL: nobody waits. */
static struct http_request *take_waiter(struct peer_source *source, bool over)
{
    struct http_request *waiter = source->waiter;

    if (source->wait == WAIT_NONE || (source->wait == WAIT_OVER && !over))
        return NULL;
    source->wait = WAIT_NONE;
    source->waiter = NULL;
    return waiter;
}

/* ---- The cluster's thread ---- */

static void copy_in(struct peer_source *source, uint64_t position, const uint8_t *bytes, size_t len)
{
    uint64_t at = (position - source->begin) % source->cap;
    size_t first = len < source->cap - at ? len : (size_t)(source->cap - at);

    memcpy(source->ring + at, bytes, first);
    memcpy(source->ring, bytes + first, len - first);
}

static void on_data(struct cluster_reader *reader, uint64_t offset, const void *bytes, size_t len)
{
    struct peer_source *source = container_of(reader, struct peer_source, reader);

    hold(source);
    assert(!source->over && offset == source->came && len <= source->end - offset);
    assert(offset + len - source->taken <= source->cap);
    release(source);
    /* The loop does not look at this part of the ring yet. */
    copy_in(source, offset, bytes, len);
    hold(source);
    source->came += len;
    source->from_cloud |= reader->from_cloud;
    struct http_request *waiter = take_waiter(source, false);
    void (*run)(struct http_request *) = source->run;
    release(source);
    if (waiter)
        http_post(waiter, run);
}

static void on_done(struct cluster_reader *reader, int rc)
{
    struct peer_source *source = container_of(reader, struct peer_source, reader);

    hold(source);
    assert(!source->over);
    assert(rc != 0 || source->came == source->end);
    source->over = true;
    source->rc = rc;
    struct http_request *waiter = take_waiter(source, true);
    void (*run)(struct http_request *) = source->run;
    release(source);
    if (waiter)
        http_post(waiter, run);
    unreference(source);
}

/* ---- Fetching ---- */

/* Begin with the range [FIRST, END); WAITER, which is suspended, waits for its first bytes. */
static int start_range(struct peer_source *source, uint64_t first, uint64_t end,
                       struct http_request *waiter, void (*run)(struct http_request *http))
{
    hold(source);
    assert(source->over && source->wait == WAIT_NONE);
    source->begin = source->came = source->taken = first;
    source->end = end;
    source->over = false;
    source->rc = 0;
    source->untold = 0;
    source->references++;
    source->wait = waiter ? WAIT_DATA : WAIT_NONE;
    source->waiter = waiter;
    source->run = run;
    release(source);
    int rc = store_fetch(source->store, &source->origin, first, end - first, &source->reader);
    if (rc == 0)
        return 0; /* from here on SOURCE may be gone */
    hold(source);
    source->over = true;
    source->rc = rc;
    source->wait = WAIT_NONE;
    source->waiter = NULL;
    source->references--;
    release(source);
    return rc;
}

static void go_on(struct http_request *http)
{
    http_source_ready(http);
}

/* Suspend HTTP until what WAIT says; the lock is held, so that nothing comes in between. */
static int wait_for(struct peer_source *source, struct http_request *http, enum wait wait)
{
    assert(source->wait == WAIT_NONE && !source->over);
    http_suspend(http);
    source->wait = wait;
    source->waiter = http;
    source->run = go_on;
    return ERR_AGAIN;
}

/* ---- The loop ---- */

static void report_end(const struct peer_source *source, uint64_t position, int rc)
{
    char id[ULID_TEXT_BYTES + 1];

    ulid_format(id, &source->origin.id);
    log_warn("object %s: other nodes, or the cloud, gave its body up to byte %llu of %llu only: %s",
             id, (unsigned long long)position, (unsigned long long)source->origin.size,
             err_text(rc));
}

/* All before POSITION was sent. */
static void tell_taken(struct peer_source *source, uint64_t position)
{
    hold(source);
    assert(position >= source->taken && position <= source->came);
    uint64_t more = position - source->taken;
    source->taken = position;
    bool under_way = !source->over;
    release(source);
    source->untold += more;
    if (source->untold < TELL_BYTES || !under_way)
        return;
    store_fetch_consumed(source->store, &source->reader, source->untold);
    source->untold = 0;
}

/* Bytes from POSITION to END that lie in one piece: their count. */
static size_t piece_at(const struct peer_source *source, uint64_t position, uint64_t end,
                       const uint8_t **data)
{
    uint64_t at = (position - source->begin) % source->cap, len = end - position;

    if (len > source->cap - at)
        len = source->cap - at;
    *data = source->ring + at;
    return len < PIECE_BYTES ? (size_t)len : PIECE_BYTES;
}

static void hash_to(struct peer_source *source, uint64_t end)
{
    while (source->hashed < end) {
        const uint8_t *data;
        size_t len = piece_at(source, source->hashed, end, &data);

        digest_update(source->digest, data, len);
        source->hashed += len;
    }
}

/* All of the body has come. */
static int verify(struct peer_source *source)
{
    uint8_t digest[SHA256_BYTES];

    if (source->verified)
        return 0;
    hash_to(source, source->origin.size);
    digest_final(source->digest, digest);
    if (memcmp(digest, source->origin.sha256, SHA256_BYTES) != 0) {
        store_fetch_misfit(source->store, &source->origin.id, &source->reader);
        return ERR_CORRUPT;
    }
    source->verified = true;
    return 0;
}

/* How far bytes may be sent from POSITION on, where CAME have come. */
static uint64_t sendable(const struct peer_source *source, uint64_t position, uint64_t came)
{
    uint64_t last_block = (source->origin.size - 1) / BLOCK_BYTES * BLOCK_BYTES;

    if (!source->digest || (position >= last_block && came == source->origin.size))
        return came;
    return came < last_block ? came : last_block;
}

/* Up to LEFT bytes of the range that POSITION lies in. */
static int read_range(struct peer_source *source, struct http_request *http, uint64_t position,
                      uint64_t left, const uint8_t **data, size_t *len)
{
    hold(source);
    uint64_t came = source->came, until = sendable(source, position, came);
    bool ended = source->over;
    int rc = source->rc;
    if (until <= position && !ended)
        rc = wait_for(source, http, WAIT_DATA);
    release(source);
    if (until <= position && !ended)
        return rc;
    if (until <= position) {
        assert(rc != 0);
        report_end(source, came, rc);
        return ERR_CLOSED; /* never a code that the core takes for a wait */
    }
    assert(until - position <= left);
    *len = piece_at(source, position, until, data);
    if (!source->digest)
        return 0;
    if (until == source->origin.size)
        return verify(source);
    hash_to(source, position + *len);
    return 0;
}

/* The range before this one has been sent: fetch the one that begins at POSITION. */
static int next_range(struct peer_source *source, struct http_request *http, uint64_t position,
                      uint64_t left)
{
    int rc = 0;

    hold(source);
    if (!source->over)
        rc = wait_for(source, http, WAIT_OVER); /* all its bytes came, but its end did not */
    release(source);
    if (rc)
        return rc;
    rc = start_range(source, position, position + left, NULL, NULL);
    if (rc)
        report_end(source, position, rc);
    return rc;
}

static int read_source(struct http_source *it, struct http_request *http, uint64_t offset,
                       uint8_t *scratch, size_t cap, const uint8_t **data, size_t *len)
{
    struct peer_source *source = (struct peer_source *)it;
    const char *text;
    uint64_t position, left;

    (void)scratch;
    (void)cap;
    multipart_at(&source->layout, offset, &text, &position, &left);
    if (text) {
        *data = (const uint8_t *)text;
        *len = (size_t)left;
        return 0;
    }
    /* The loop alone moves a range. */
    if (position < source->begin || position >= source->end) {
        int rc = next_range(source, http, position, left);

        if (rc)
            return rc;
    }
    tell_taken(source, position);
    return read_range(source, http, position, left, data, len);
}

static void close_source(struct http_source *it)
{
    struct peer_source *source = (struct peer_source *)it;

    hold(source);
    bool under_way = !source->over;
    source->wait = WAIT_NONE;
    source->waiter = NULL;
    release(source);
    if (under_way)
        store_fetch_cancel(source->store, &source->reader);
    unreference(source);
}

/* ---- Life ---- */

/* What the ring must hold: of the longest range what may come without being taken. */
static uint64_t ring_bytes(const struct store_origin *origin, const struct multipart *layout)
{
    uint64_t longest = 0, window = store_origin_window(origin);

    for (unsigned i = 0; i < layout->count; i++) {
        uint64_t len = layout->ranges[i].last - layout->ranges[i].first + 1;

        longest = len > longest ? len : longest;
    }
    return longest < window ? longest : window;
}

static bool is_whole(const struct multipart *layout, uint64_t size)
{
    return layout->count == 1 && layout->ranges[0].first == 0 && layout->ranges[0].last == size - 1;
}

int peer_source_create(struct http_source **out, struct store *store,
                       const struct store_origin *origin, struct multipart *layout)
{
    uint64_t cap = ring_bytes(origin, layout);

    assert(cap > 0);
    int rc = ERR_NO_MEMORY;

    *out = NULL;
    struct peer_source *source = calloc(1, sizeof *source);
    if (!source) {
        multipart_release(layout);
        return ERR_NO_MEMORY;
    }
    (void)pthread_mutex_init(&source->lock, NULL);
    source->http = (struct http_source){.read = read_source, .close = close_source};
    source->reader = (struct cluster_reader){.data = on_data, .done = on_done};
    source->store = store;
    source->origin = *origin;
    source->layout = *layout;
    source->references = 1;
    source->over = true;
    if (!budget_take(store_memory(store), cap)) {
        rc = ERR_FULL;
        goto out;
    }
    source->cap = cap;
    source->ring = malloc(cap);
    if (!source->ring)
        goto out;
    rc = is_whole(layout, origin->size) ? digest_create(&source->digest, DIGEST_SHA256) : 0;
out:
    if (rc)
        unreference(source);
    else
        *out = &source->http;
    return rc;
}

int peer_source_start(struct http_source *http_source, struct http_request *http,
                      void (*run)(struct http_request *http))
{
    struct peer_source *source = (struct peer_source *)http_source;
    const struct byte_range *first = &source->layout.ranges[0];

    return start_range(source, first->first, first->last + 1, http, run);
}

int peer_source_state(struct http_source *http_source)
{
    struct peer_source *source = (struct peer_source *)http_source;

    hold(source);
    int rc = source->came > source->begin ? 0 : source->rc;
    release(source);
    return rc;
}

bool peer_source_from_cloud(struct http_source *http_source)
{
    struct peer_source *source = (struct peer_source *)http_source;

    hold(source);
    bool from_cloud = source->from_cloud;
    release(source);
    return from_cloud;
}

void peer_source_close(struct http_source **source)
{
    if (*source)
        close_source(*source);
    *source = NULL;
}
