/*
 * What the tests of the log share: a log in a directory of its own over a struct io that can fail,
 * and records whose bytes follow from their number, so that any record can be checked on its own.
 * Header-only.
 */
#ifndef TESTS_LOG_UTIL_H
#define TESTS_LOG_UTIL_H

#include "base/bytes.h"
#include "storage/log.h"
#include "tests/unit/fault_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct bench {
    char dir[64];
    struct fault_io fault;
    struct env env;
    struct log_config config;
    struct log *log;
    struct log_recovery recovery; /* of the last start */
};

/* Deterministic salts. */
static inline void bench_random(struct env *env, void *buf, size_t len)
{
    static _Atomic uint64_t state = 88172645463325252u;
    uint8_t *out = buf;

    (void)env;
    for (size_t i = 0; i < len; i++) {
        uint64_t x = state;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        state = x;
        out[i] = (uint8_t)(x >> 24);
    }
}

static inline void bench_init(struct bench *b, uint64_t segment_bytes)
{
    const char *base = getenv("TMPDIR");

    memset(b, 0, sizeof *b);
    (void)snprintf(b->dir, sizeof b->dir, "%s/objlog.XXXXXX", base && *base ? base : "/tmp");
    assert_non_null(mkdtemp(b->dir));
    fault_io_init(&b->fault);
    b->env = *env_system();
    b->env.io = &b->fault.io;
    b->env.random = bench_random;
    b->config = (struct log_config){
        .env = &b->env,
        .files_dir = b->dir,
        .store = {{5, 5, 5}},
        .segment_bytes = segment_bytes,
        .sync = true,
    };
}

static inline int bench_unlink(const char *path, const struct stat *stat, int flag, struct FTW *ftw)
{
    (void)stat;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void bench_release(struct bench *b)
{
    log_close(&b->log);
    assert_int_equal(b->fault.open_now, 0);
    assert_int_equal(nftw(b->dir, bench_unlink, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---- Records by number ---- */

static inline uint32_t body_len(uint32_t n)
{
    const uint32_t lens[] = {0, 1, 100, 1000, 2000, 4097, 5000, 9000};

    return n % 5 == 4 ? 0 : lens[n % 8];
}

static inline uint8_t body_byte(uint32_t n, uint32_t i)
{
    return (uint8_t)(n * 131 + i * 7 + i / 256);
}

static inline struct id128 id_of(uint32_t n)
{
    struct id128 id = {{0xab}};

    put_u32(id.bytes + 8, n);
    return id;
}

static inline uint32_t event_len(uint32_t n)
{
    return 4 + n % 200;
}

struct made {
    struct log_record record;
    uint8_t event[256];
    uint64_t sums[LIMIT_INLINE_BLOCKS];
    uint8_t *body;
};

/* Record number N with a body of LEN bytes; every fifth has none. */
static inline void make_sized(struct made *m, uint32_t n, uint32_t len)
{
    bool has_body = n % 5 != 4 || len > 0;

    m->body = malloc(len + 1);
    assert_non_null(m->body);
    for (uint32_t i = 0; i < len; i++)
        m->body[i] = body_byte(n, i);
    for (uint64_t i = 0; i < block_count(len); i++) {
        size_t at = i * BLOCK_BYTES;
        m->sums[i] =
            block_checksum(m->body + at, len - at < BLOCK_BYTES ? len - at : BLOCK_BYTES, i);
    }
    put_u32(m->event, n);
    for (uint32_t i = 4; i < event_len(n); i++)
        m->event[i] = (uint8_t)(n + i);
    m->record = (struct log_record){
        .type = RECORD_EVENT,
        .flags = has_body ? RECORD_HAS_BODY : 0,
        .id = id_of(n),
        .event = m->event,
        .event_bytes = event_len(n),
        .body = m->body,
        .body_bytes = len,
        .sums = m->sums,
    };
}

static inline void make(struct made *m, uint32_t n)
{
    make_sized(m, n, body_len(n));
}

/* The number of the record in VIEW, all of whose bytes but the body's are right for it. */
static inline uint32_t check_record(const struct record_view *view)
{
    uint32_t n = get_u32(view->event);
    struct id128 id = id_of(n);

    assert_int_equal(view->header.event_bytes, event_len(n));
    assert_true(id_equal(&view->header.id, &id));
    for (uint32_t i = 4; i < event_len(n); i++)
        assert_int_equal(view->event[i], (uint8_t)(n + i));
    return n;
}

static inline void check_body(const struct record_view *view)
{
    uint32_t n = get_u32(view->event);

    for (uint32_t i = 0; i < view->header.body_bytes; i++)
        if (view->body[i] != body_byte(n, i))
            fail_msg("byte %u of body %u is wrong", i, n);
}

/* ---- Using the log ---- */

/* Write record N alone in a batch, and sync it. */
static inline struct place write_one(struct log *log, uint32_t n)
{
    struct made m;
    struct place place;

    make(&m, n);
    assert_int_equal(log_begin(log, n), 0);
    assert_int_equal(log_add(log, &m.record, &place), 0);
    assert_int_equal(log_write(log), 0);
    assert_int_equal(log_sync(log), 0);
    free(m.body);
    return place;
}

/* Write records [FROM, TO) as one batch; sync it where told. */
static inline void write_batch(struct log *log, uint32_t from, uint32_t to, struct place *places,
                               bool sync)
{
    struct made *made = calloc(to - from + 1, sizeof *made);

    assert_non_null(made);
    assert_int_equal(log_begin(log, from), 0);
    for (uint32_t n = from; n < to; n++) {
        struct place place;

        make(&made[n - from], n);
        assert_int_equal(log_add(log, &made[n - from].record, &place), 0);
        if (places)
            places[n - from] = place;
    }
    assert_int_equal(log_write(log), 0);
    if (sync)
        assert_int_equal(log_sync(log), 0);
    for (uint32_t n = from; n < to; n++)
        free(made[n - from].body);
    free(made);
}

static inline int read_one(struct log *log, uint32_t n, const struct place *place, uint32_t length,
                           bool nowait)
{
    uint8_t *buf = malloc(RECORD_MAX_BYTES);
    struct id128 id = id_of(n);
    struct record_view view;

    assert_non_null(buf);
    int rc = log_read(log, place, &id, length, buf, RECORD_MAX_BYTES, nowait, &view);
    if (rc == 0) {
        assert_int_equal(check_record(&view), n);
        check_body(&view);
    }
    free(buf);
    return rc;
}

/* What a recovery delivered. */
struct delivered {
    uint32_t count;
    uint32_t numbers[4096];
    struct place places[4096];
    bool bodies;   /* check them, too */
    uint32_t stop; /* fail at the delivery of that many, 0: never */
};

static inline int take_record(void *arg, const struct record_view *view, const struct place *place)
{
    struct delivered *d = arg;

    assert_true(d->count < 4096);
    if (d->stop && d->count + 1 == d->stop)
        return ERR_NO_SPACE;
    if (d->count > 0)
        assert_true(place->lsn > d->places[d->count - 1].lsn);
    assert_int_equal(place->lsn, view->lsn);
    d->numbers[d->count] = check_record(view);
    d->places[d->count++] = *place;
    if (d->bodies)
        check_body(view);
    return 0;
}

static inline void assert_delivered(const struct delivered *d, uint32_t from, uint32_t to)
{
    assert_int_equal(d->count, to - from);
    for (uint32_t i = 0; i < d->count; i++)
        assert_int_equal(d->numbers[i], from + i);
}

/* Open and recover; D may be NULL. */
static inline int bench_start(struct bench *b, const struct log_segment *known, size_t count,
                              lsn_t from, lsn_t synced, bool clean, struct delivered *d)
{
    static struct delivered nobody;
    int rc = log_open(&b->log, &b->config, known, count);

    if (rc)
        return rc;
    if (!d)
        d = &nobody;
    uint32_t stop = d->stop;
    bool bodies = d->bodies;
    memset(d, 0, sizeof *d);
    d->stop = stop;
    d->bodies = bodies;
    rc = log_recover(b->log, from, synced, clean, take_record, NULL, d, &b->recovery);
    d->stop = 0; /* both hold for one start */
    d->bodies = false;
    if (rc)
        log_close(&b->log);
    return rc;
}

/* ---- Damaging files ---- */

static inline void segment_path(const struct bench *b, uint32_t volume, char out[128])
{
    (void)snprintf(out, 128, "%s/log/%08x.seg", b->dir, volume);
}

static inline void patch(const struct bench *b, uint32_t volume, uint64_t offset, const void *data,
                         size_t len)
{
    char path[128];

    segment_path(b, volume, path);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, data, len, (off_t)offset), len);
    close(fd);
}

static inline void zero(const struct bench *b, uint32_t volume, uint64_t offset, size_t len)
{
    uint8_t *zeros = calloc(1, len);

    assert_non_null(zeros);
    patch(b, volume, offset, zeros, len);
    free(zeros);
}

static inline void flip(const struct bench *b, uint32_t volume, uint64_t offset)
{
    char path[128];
    uint8_t byte;

    segment_path(b, volume, path);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x41;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    close(fd);
}

static inline uint64_t file_size(const struct bench *b, uint32_t volume)
{
    char path[128];
    struct io_stat stat;

    segment_path(b, volume, path);
    assert_int_equal(io_system()->stat(io_system(), path, &stat), 0);
    return stat.size_bytes;
}

#endif
