/*
 * One list of objects, one queue of requests, one thread. A request that is being answered is
 * looked at without the lock, as its callbacks may call us; objects are copied for it, so that a
 * write meanwhile does no harm.
 */
#include "tests/unit/cloud_memory.h"

#include "base/container.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define WAIT_S      20
#define PIECE_BYTES (100 * 1000)
#define OBJECTS     4096

struct object {
    char *key, *type;
    char etag[40];
    uint8_t *body;
    uint64_t size;
    struct cloud_pair *pairs, *tags;
    size_t pair_count, tag_count;
    int64_t modified_s;
};

struct memory {
    struct cloud cloud; /* first */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    struct object objects[OBJECTS]; /* by key */
    size_t count;
    struct cloud_request *first, *last;
    unsigned queued;
    bool stopping, held;
    unsigned asked[CLOUD_TAGS + 1];
    unsigned written;
    uint64_t bytes_down, allowed;
    enum cloud_op fail_op;
    int fail_rc;
    unsigned fail_times;
    bool fail_done;
    uint64_t cut_at, damage_at; /* UINT64_MAX: not */
    int cut_rc;
    uint32_t retry_after_ms;
};

static struct memory *memory_of(struct cloud *cloud)
{
    return container_of(cloud, struct memory, cloud);
}

static void *take(size_t count, size_t size)
{
    void *memory = calloc(count ? count : 1, size);

    assert(memory);
    return memory;
}

/* ---- Objects; under the lock ---- */

static char *text_copy(struct cloud_text text)
{
    char *copy = take(text.len + 1, 1);

    if (text.len)
        memcpy(copy, text.ptr, text.len);
    return copy;
}

static struct cloud_pair *pairs_copy(const struct cloud_pair *pairs, size_t count)
{
    struct cloud_pair *copy = take(count, sizeof *copy);

    for (size_t i = 0; i < count; i++) {
        copy[i].name = (struct cloud_text){text_copy(pairs[i].name), pairs[i].name.len};
        copy[i].value = (struct cloud_text){text_copy(pairs[i].value), pairs[i].value.len};
    }
    return copy;
}

static void pairs_free(struct cloud_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free((char *)pairs[i].name.ptr);
        free((char *)pairs[i].value.ptr);
    }
    free(pairs);
}

static void object_free(struct object *object)
{
    free(object->key);
    free(object->type);
    free(object->body);
    pairs_free(object->pairs, object->pair_count);
    pairs_free(object->tags, object->tag_count);
}

static struct object copy_of(const struct object *object)
{
    struct object copy = *object;
    struct cloud_text type = {object->type, (uint32_t)strlen(object->type)};
    struct cloud_text key = {object->key, (uint32_t)strlen(object->key)};

    copy.key = text_copy(key);
    copy.type = text_copy(type);
    copy.body = take(object->size, 1);
    memcpy(copy.body, object->body, object->size);
    copy.pairs = pairs_copy(object->pairs, object->pair_count);
    copy.tags = pairs_copy(object->tags, object->tag_count);
    return copy;
}

static size_t place_of(const struct memory *m, const char *key)
{
    size_t at = 0;

    while (at < m->count && strcmp(m->objects[at].key, key) < 0)
        at++;
    return at;
}

static struct object *find(struct memory *m, const char *key)
{
    size_t at = place_of(m, key);

    return at < m->count && strcmp(m->objects[at].key, key) == 0 ? &m->objects[at] : NULL;
}

static void forget(struct memory *m, const char *key)
{
    struct object *object = find(m, key);

    if (!object)
        return;
    object_free(object);
    m->count--;
    memmove(object, object + 1, (size_t)(&m->objects[m->count] - object) * sizeof *object);
}

/* OBJECT's memory is taken. */
static void insert(struct memory *m, struct object *object)
{
    uint8_t digest[SHA256_BYTES];

    sha256(object->body, object->size, digest);
    for (unsigned i = 0; i < 16; i++)
        (void)snprintf(object->etag + 2 * (size_t)i, 3, "%02x", digest[i]);
    object->modified_s = ++m->written;
    forget(m, object->key);
    size_t at = place_of(m, object->key);

    assert(m->count < OBJECTS);
    memmove(&m->objects[at + 1], &m->objects[at], (m->count++ - at) * sizeof *object);
    m->objects[at] = *object;
}

/* ---- Requests, on the thread, without the lock ---- */

static int put(struct memory *m, struct cloud_request *request)
{
    struct object object = {.key = text_copy(request->key), .type = text_copy(request->type)};
    uint8_t digest[SHA256_BYTES];
    int rc = 0;

    object.size = request->size;
    object.body = take(request->size, 1);
    for (uint64_t at = 0; rc == 0 && at < request->size; at += PIECE_BYTES) {
        size_t len = request->size - at < PIECE_BYTES ? request->size - at : PIECE_BYTES;

        rc = request->read(request, at, object.body + at, len);
    }
    sha256(object.body, object.size, digest);
    if (rc == 0 && memcmp(digest, request->sha256, SHA256_BYTES) != 0)
        rc = ERR_MISMATCH;
    object.pairs = pairs_copy(request->pairs, request->pair_count);
    object.pair_count = request->pair_count;
    object.tags = pairs_copy(request->tags, request->tag_count);
    object.tag_count = request->tag_count;
    if (rc) {
        object_free(&object);
        return rc;
    }
    (void)pthread_mutex_lock(&m->lock);
    insert(m, &object);
    (void)snprintf(request->etag, sizeof request->etag, "%s", object.etag);
    (void)pthread_mutex_unlock(&m->lock);
    return 0;
}

static bool find_copy(struct memory *m, struct cloud_text text, struct object *out)
{
    char *key = text_copy(text);

    (void)pthread_mutex_lock(&m->lock);
    const struct object *object = find(m, key);
    if (object)
        *out = copy_of(object);
    (void)pthread_mutex_unlock(&m->lock);
    free(key);
    return object;
}

static struct cloud_text text_of(const char *text)
{
    return (struct cloud_text){text, (uint32_t)strlen(text)};
}

/* How much of the next LEN bytes may be given now; waits for some. 0: not any more. */
static size_t may_give(struct memory *m, struct cloud_request *request, uint64_t given, size_t len)
{
    (void)pthread_mutex_lock(&m->lock);
    while (!request->cancelled && !m->stopping &&
           (m->bytes_down >= m->allowed || given - request->consumed >= CLOUD_WINDOW_BYTES))
        (void)pthread_cond_wait(&m->changed, &m->lock);
    uint64_t window = CLOUD_WINDOW_BYTES - (given - request->consumed);
    if (len > window)
        len = window;
    if (len > m->allowed - m->bytes_down)
        len = m->allowed - m->bytes_down;
    if (request->cancelled || m->stopping)
        len = 0;
    m->bytes_down += len;
    (void)pthread_mutex_unlock(&m->lock);
    return len;
}

static int give(struct memory *m, struct cloud_request *request, const struct object *object,
                uint64_t end)
{
    (void)pthread_mutex_lock(&m->lock);
    uint64_t cut_at = m->cut_at, damage_at = m->damage_at;
    m->cut_at = m->damage_at = UINT64_MAX;
    (void)pthread_mutex_unlock(&m->lock);
    if (damage_at < object->size)
        object->body[damage_at] ^= 0x40;
    for (uint64_t at = request->offset; at < end;) {
        uint64_t given = at - request->offset;

        if (given >= cut_at)
            return m->cut_rc;
        size_t len = end - at < PIECE_BYTES ? end - at : PIECE_BYTES;
        if (len > cut_at - given)
            len = cut_at - given;
        len = may_give(m, request, given, len);
        if (len == 0)
            return ERR_CLOSED;
        request->data(request, object->body + at, len);
        at += len;
    }
    return cut_at <= end - request->offset ? m->cut_rc : 0;
}

static int get(struct memory *m, struct cloud_request *request)
{
    struct object object;
    int rc = 0;

    if (!find_copy(m, request->key, &object))
        return ERR_NOT_FOUND;
    struct cloud_head head = {.size = object.size,
                              .etag = text_of(object.etag),
                              .type = text_of(object.type),
                              .modified_s = object.modified_s,
                              .pairs = object.pairs,
                              .pair_count = object.pair_count,
                              .tag_count = (unsigned)object.tag_count};
    uint64_t end = object.size;

    if (request->op == CLOUD_TAGS) {
        head.pairs = object.tags;
        head.pair_count = object.tag_count;
    }
    if (request->op == CLOUD_GET) {
        if (request->length && request->length < end - request->offset)
            end = request->offset + request->length;
        if (request->if_match.len &&
            (request->if_match.len != strlen(object.etag) ||
             memcmp(request->if_match.ptr, object.etag, request->if_match.len) != 0))
            rc = ERR_PRECONDITION;
        else if (request->offset > object.size ||
                 (request->offset == object.size && request->offset > 0))
            rc = ERR_RANGE;
    }
    if (rc == 0 && request->head)
        rc = request->head(request, &head);
    if (rc == 0 && request->op == CLOUD_GET)
        rc = give(m, request, &object, end);
    object_free(&object);
    return rc;
}

static int list(struct memory *m, struct cloud_request *request)
{
    char *prefix = text_copy(request->key), *after = text_copy(request->after);
    unsigned max = request->max ? request->max : LIMIT_CLOUD_LIST, found = 0;

    (void)pthread_mutex_lock(&m->lock);
    request->more = false;
    for (size_t i = 0; i < m->count; i++) {
        const struct object *object = &m->objects[i];
        struct cloud_entry entry = {.key = text_of(object->key),
                                    .etag = text_of(object->etag),
                                    .size = object->size,
                                    .modified_s = object->modified_s};

        if (strncmp(object->key, prefix, strlen(prefix)) != 0 ||
            (*after && strcmp(object->key, after) <= 0))
            continue;
        if (found++ == max) {
            request->more = true;
            break;
        }
        request->entry(request, &entry);
    }
    (void)pthread_mutex_unlock(&m->lock);
    free(prefix);
    free(after);
    return 0;
}

static int carry_out(struct memory *m, struct cloud_request *request)
{
    char *key;

    switch (request->op) {
    case CLOUD_PUT:
        return put(m, request);
    case CLOUD_GET:
    case CLOUD_HEAD:
    case CLOUD_TAGS:
        return get(m, request);
    case CLOUD_DELETE:
        key = text_copy(request->key);
        cloud_memory_remove(&m->cloud, key);
        free(key);
        return 0;
    case CLOUD_LIST:
        return list(m, request);
    }
    abort();
}

/* The lock is held, and given up meanwhile. */
static void answer(struct memory *m, struct cloud_request *request)
{
    bool fails = m->fail_times && (!m->fail_op || m->fail_op == request->op);
    bool closed = request->cancelled || m->stopping, carried = !closed && (!fails || m->fail_done);
    int rc = closed ? ERR_CLOSED : 0;

    m->fail_times -= fails;
    int fail_rc = m->fail_rc;
    uint32_t retry_after_ms = m->retry_after_ms;
    (void)pthread_mutex_unlock(&m->lock);
    if (carried)
        rc = carry_out(m, request);
    if (fails && !closed)
        rc = fail_rc;
    if (rc)
        (void)snprintf(request->message, sizeof request->message, "memory: %s", err_text(rc));
    if (rc == ERR_AGAIN)
        request->retry_after_ms = retry_after_ms;
    request->done(request, rc);
    (void)pthread_mutex_lock(&m->lock);
}

static void *run(void *arg)
{
    struct memory *m = arg;

    (void)pthread_mutex_lock(&m->lock);
    while (!m->stopping || m->first) {
        struct cloud_request **at = &m->first, *request = m->first;

        /* Held back: only what was cancelled ends. */
        while (request && m->held && !m->stopping && !request->cancelled) {
            at = &request->next;
            request = request->next;
        }
        if (!request) {
            (void)pthread_cond_wait(&m->changed, &m->lock);
            continue;
        }
        *at = request->next;
        m->last = NULL;
        for (struct cloud_request *next = m->first; next; next = next->next)
            m->last = next;
        m->queued--;
        answer(m, request);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- The backend ---- */

static int start(struct cloud *cloud, struct cloud_request *request)
{
    struct memory *m = memory_of(cloud);
    int rc = 0;

    assert(request->op >= CLOUD_PUT && request->op <= CLOUD_TAGS && request->done);
    assert(request->key.len > 0 || request->op == CLOUD_LIST);
    (void)pthread_mutex_lock(&m->lock);
    if (m->stopping)
        rc = ERR_CLOSED;
    else if (m->queued >= LIMIT_CLOUD_REQUESTS)
        rc = ERR_FULL;
    if (rc == 0) {
        request->next = NULL;
        request->consumed = 0;
        request->cancelled = false;
        request->etag[0] = request->message[0] = '\0';
        request->retry_after_ms = 0;
        if (m->last)
            m->last->next = request;
        else
            m->first = request;
        m->last = request;
        m->queued++;
        m->asked[request->op]++;
        (void)pthread_cond_broadcast(&m->changed);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return rc;
}

static void consumed(struct cloud *cloud, struct cloud_request *request, uint64_t bytes)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    request->consumed += bytes;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}

static void cancel(struct cloud *cloud, struct cloud_request *request)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    request->cancelled = true;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}

static void figures(struct cloud *cloud, struct cloud_figures *out)
{
    struct memory *m = memory_of(cloud);

    *out = (struct cloud_figures){0};
    (void)pthread_mutex_lock(&m->lock);
    for (unsigned op = CLOUD_PUT; op <= CLOUD_TAGS; op++)
        out->by_op[op].sent = m->asked[op];
    out->bytes_down = m->bytes_down;
    (void)pthread_mutex_unlock(&m->lock);
}

static void destroy(struct cloud *cloud)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->stopping = true;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
    (void)pthread_join(m->thread, NULL);
    for (size_t i = 0; i < m->count; i++)
        object_free(&m->objects[i]);
    (void)pthread_cond_destroy(&m->changed);
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

static const struct cloud_backend backend = {.name = "memory",
                                             .start = start,
                                             .consumed = consumed,
                                             .cancel = cancel,
                                             .figures = figures,
                                             .destroy = destroy};

struct cloud *cloud_memory_create(void)
{
    struct memory *m = take(1, sizeof *m);

    m->cloud = (struct cloud){.backend = &backend, .bucket = "memory"};
    m->allowed = m->cut_at = m->damage_at = UINT64_MAX;
    (void)pthread_mutex_init(&m->lock, NULL);
    (void)pthread_cond_init(&m->changed, NULL);
    int rc = pthread_create(&m->thread, NULL, run, m);
    assert(rc == 0);
    (void)rc;
    return &m->cloud;
}

/* ---- For the test ---- */

bool cloud_memory_find(struct cloud *cloud, const char *key, struct cloud_memory_object *out)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    const struct object *object = find(m, key);
    if (object)
        *out = (struct cloud_memory_object){.body = object->body,
                                            .size = object->size,
                                            .etag = object->etag,
                                            .type = object->type,
                                            .pairs = object->pairs,
                                            .tags = object->tags,
                                            .pair_count = object->pair_count,
                                            .tag_count = object->tag_count,
                                            .modified_s = object->modified_s};
    (void)pthread_mutex_unlock(&m->lock);
    return object;
}

bool cloud_memory_first(struct cloud *cloud, char *key, size_t cap)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    bool any = m->count > 0;
    (void)snprintf(key, cap, "%s", any ? m->objects[0].key : "");
    (void)pthread_mutex_unlock(&m->lock);
    return any;
}

size_t cloud_memory_count(struct cloud *cloud)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    size_t count = m->count;
    (void)pthread_mutex_unlock(&m->lock);
    return count;
}

void cloud_memory_set(struct cloud *cloud, const char *key, const void *body, uint64_t size,
                      const char *type, const struct cloud_pair *pairs, size_t pair_count,
                      const struct cloud_pair *tags, size_t tag_count)
{
    struct memory *m = memory_of(cloud);
    struct object object = {.key = text_copy(text_of(key)),
                            .type = text_copy(text_of(type ? type : "")),
                            .body = take(size, 1),
                            .size = size,
                            .pairs = pairs_copy(pairs, pair_count),
                            .pair_count = pair_count,
                            .tags = pairs_copy(tags, tag_count),
                            .tag_count = tag_count};

    if (size)
        memcpy(object.body, body, size);
    (void)pthread_mutex_lock(&m->lock);
    insert(m, &object);
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_remove(struct cloud *cloud, const char *key)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    forget(m, key);
    (void)pthread_mutex_unlock(&m->lock);
}

struct cloud_text cloud_memory_value(const struct cloud_pair *pairs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (pairs[i].name.len == strlen(name) &&
            memcmp(pairs[i].name.ptr, name, pairs[i].name.len) == 0)
            return pairs[i].value;
    return (struct cloud_text){"", 0};
}

unsigned cloud_memory_asked(struct cloud *cloud, enum cloud_op op)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    unsigned count = m->asked[op];
    (void)pthread_mutex_unlock(&m->lock);
    return count;
}

uint64_t cloud_memory_bytes_down(struct cloud *cloud)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    uint64_t bytes = m->bytes_down;
    (void)pthread_mutex_unlock(&m->lock);
    return bytes;
}

void cloud_memory_wait(struct cloud *cloud, enum cloud_op op, unsigned count)
{
    struct memory *m = memory_of(cloud);
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_S;
    (void)pthread_mutex_lock(&m->lock);
    while (m->asked[op] < count)
        if (pthread_cond_timedwait(&m->changed, &m->lock, &until) != 0)
            fail_msg("waited too long for request %u of kind %d", count, (int)op);
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_fail(struct cloud *cloud, enum cloud_op op, int rc, unsigned times, bool done)
{
    struct memory *m = memory_of(cloud);

    assert(rc != 0);
    (void)pthread_mutex_lock(&m->lock);
    m->fail_op = op;
    m->fail_rc = rc;
    m->fail_times = times;
    m->fail_done = done;
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_retry_after(struct cloud *cloud, uint32_t ms)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->retry_after_ms = ms;
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_cut(struct cloud *cloud, uint64_t bytes, int rc)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->cut_at = bytes;
    m->cut_rc = rc;
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_damage(struct cloud *cloud, uint64_t offset)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->damage_at = offset;
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_hold(struct cloud *cloud, bool hold)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->held = hold;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}

void cloud_memory_allow(struct cloud *cloud, uint64_t bytes)
{
    struct memory *m = memory_of(cloud);

    (void)pthread_mutex_lock(&m->lock);
    m->allowed = bytes;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}
