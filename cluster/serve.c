/*
 * A transfer is a slot: it is read chunk by chunk, one read at a time, each within the credit that
 * its asker has granted, and each is sent when its bytes come. Who is read next:
 *
 *   what clients wait for first; background transfers only while none of those can be read, and
 *   never in the last part of the reads and bytes that may be under way, so that a client's never
 *   waits for a background one to end. Within each of the two a hand goes round the slots;
 *   whom it meets gets QUANTUM_BYTES to spend, and is read once it can pay for its next chunk. So a
 *   small body goes in the first turn, a large one in every fourth.
 *
 * The same holds for slots, all in all and for one peer: background transfers leave some free.
 *
 * Failure: a read's failure ends the transfer and is told. A transfer that was cancelled or dropped
 * while being read keeps its slot until the read is done, since its buffer is in use: memory is
 * bounded by the reads, whatever peers do. A message that is lost is nobody's business here: the
 * asker has deadlines, and a transfer that nothing happens to is dropped after SERVE_IDLE_MS.
 */
#include "cluster/serve.h"

#include <assert.h>
#include <stdlib.h>

#define QUANTUM_BYTES  BLOCK_BYTES
#define MIN_COST_BYTES (4 * KIB) /* of a read, however short: it takes time as well */
/* Turns of the hand until whoever can be read has enough to spend. */
#define LIMIT_TURNS (LIMIT_WIRE_CHUNK_BYTES / QUANTUM_BYTES)

static_assert(LIMIT_WIRE_CHUNK_BYTES % QUANTUM_BYTES == 0, "a chunk is paid in whole turns");
static_assert(LIMIT_SERVED <= 256, "a slot's number fits a byte of the key");

struct transfer {
    bool used;
    bool gone; /* over, but its read is not */
    bool background, delegated;
    struct id128 to;
    uint64_t transfer, key;
    struct id128 id;
    uint8_t sha256[SHA256_BYTES];
    uint64_t at, end; /* end: as asked until the size is known */
    uint64_t size;    /* UINT64_MAX: not known yet */
    uint64_t credit;  /* not used up by what was sent or is being read */
    uint32_t reading; /* bytes; 0: no read under way */
    uint64_t spend;   /* what it has been given by the hand */
    uint64_t share;   /* of its peer's windows */
    uint64_t active_ms;
    uint64_t said_ms; /* that it comes */
};

/* Who takes turns with whom. */
enum rank { CLIENTS, BACKGROUND, DELEGATED, CLASSES };

struct serve {
    struct serve_sink sink;
    bool stepping;
    uint64_t generation;
    size_t top; /* slots from here on are free */
    unsigned background_reads, delegated_reads;
    uint64_t reading_bytes, reading_bytes_background;
    size_t hand[CLASSES];
    struct serve_stats stats;
    struct transfer transfers[LIMIT_SERVED];
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct transfer *by_number(struct serve *serve, const struct id128 *from, uint64_t transfer)
{
    for (size_t i = 0; i < serve->top; i++) {
        struct transfer *t = &serve->transfers[i];

        if (t->used && !t->gone && t->transfer == transfer && id_equal(&t->to, from))
            return t;
    }
    return NULL;
}

static void send_end(struct serve *serve, const struct id128 *to, uint64_t transfer,
                     enum wire_end end)
{
    const struct wire_message message = {.type = WIRE_BODY_END,
                                         .flow = {.session = transfer, .end = (uint8_t)end}};

    serve->sink.send(serve->sink.arg, to, &message);
}

static void free_up(struct serve *serve, struct transfer *t)
{
    if (t->delegated)
        serve->sink.over(serve->sink.arg, t->key);
    t->used = false;
    while (serve->top > 0 && !serve->transfers[serve->top - 1].used)
        serve->top--;
}

/* Its slot is free as soon as its read is done. */
static void forget(struct serve *serve, struct transfer *t)
{
    assert(t->used && !t->gone);
    assert(serve->stats.active > 0);
    serve->stats.active--;
    t->gone = true;
    if (t->reading == 0)
        free_up(serve, t);
}

static void end_transfer(struct serve *serve, struct transfer *t, enum wire_end end)
{
    send_end(serve, &t->to, t->transfer, end);
    forget(serve, t);
}

/* --- whose turn it is ------------------------------------------------------------------------- */

static uint32_t next_len(const struct transfer *t)
{
    return (uint32_t)smaller(smaller(t->credit, t->end - t->at), LIMIT_WIRE_CHUNK_BYTES);
}

static enum rank rank_of(const struct transfer *t)
{
    if (t->delegated)
        return DELEGATED;
    return t->background ? BACKGROUND : CLIENTS;
}

static bool can_be_read(const struct transfer *t, enum rank rank)
{
    return t->used && !t->gone && rank_of(t) == rank && t->reading == 0 && t->credit > 0;
}

/* The next of the rank that can pay, or NULL where none can be read. */
static struct transfer *next_to_read(struct serve *serve, enum rank rank)
{
    bool any = false;
    size_t slots = serve->top;

    for (size_t seen = 0; seen < slots * (LIMIT_TURNS + 1); seen++) {
        struct transfer *t = &serve->transfers[serve->hand[rank] % slots];

        serve->hand[rank] = (serve->hand[rank] + 1) % slots;
        if (seen == slots && !any)
            break;
        if (!can_be_read(t, rank))
            continue;
        any = true;
        uint32_t len = next_len(t);
        uint64_t cost = len > MIN_COST_BYTES ? len : MIN_COST_BYTES;
        t->spend += QUANTUM_BYTES;
        if (t->spend >= cost) {
            t->spend = smaller(t->spend - cost, LIMIT_WIRE_CHUNK_BYTES);
            return t;
        }
    }
    assert(!any);
    return NULL;
}

/* A read of T of LEN bytes begins or ends. */
static void account(struct serve *serve, const struct transfer *t, uint32_t len, bool begins)
{
    unsigned one = begins ? 1 : -1u;
    uint64_t bytes = begins ? len : -(uint64_t)len;

    if (t->delegated) {
        serve->delegated_reads += one;
        assert(serve->delegated_reads <= LIMIT_SERVE_READS_DELEGATED);
        return;
    }
    serve->stats.reading += one;
    serve->reading_bytes += bytes;
    assert(serve->stats.reading <= LIMIT_SERVE_READS);
    if (t->background) {
        serve->background_reads += one;
        serve->reading_bytes_background += bytes;
    }
    assert(serve->background_reads <= serve->stats.reading);
}

static void start_read(struct serve *serve, struct transfer *t)
{
    struct serve_read read = {.key = t->key,
                              .id = t->id,
                              .offset = t->at,
                              .len = next_len(t),
                              .end = t->end,
                              .background = t->background,
                              .delegated = t->delegated};

    assert(read.len > 0 && read.len <= t->credit);
    memcpy(read.sha256, t->sha256, SHA256_BYTES);
    t->credit -= read.len;
    t->reading = read.len;
    account(serve, t, read.len, true);
    serve->sink.read(serve->sink.arg, &read);
}

/* May one more be read, whatever its length? */
static bool has_room(const struct serve *serve, bool background)
{
    const uint64_t most = LIMIT_WIRE_CHUNK_BYTES;

    return serve->stats.reading < LIMIT_SERVE_READS &&
           serve->reading_bytes + most <= LIMIT_SERVE_READ_BYTES &&
           (!background ||
            (serve->background_reads < LIMIT_SERVE_READS_BACKGROUND &&
             serve->reading_bytes_background + most <= LIMIT_SERVE_READ_BYTES_BACKGROUND));
}

static void schedule(struct serve *serve)
{
    while (has_room(serve, false)) {
        struct transfer *t = next_to_read(serve, CLIENTS);

        if (!t && has_room(serve, true))
            t = next_to_read(serve, BACKGROUND);
        if (!t)
            break;
        start_read(serve, t);
    }
    while (serve->delegated_reads < LIMIT_SERVE_READS_DELEGATED) {
        struct transfer *t = next_to_read(serve, DELEGATED);

        if (!t)
            break;
        start_read(serve, t);
    }
}

/* Every input is one step: */
static void step_begin(struct serve *serve)
{
    assert(!serve->stepping); /* the sink called back */
    serve->stepping = true;
}

static void step_end(struct serve *serve)
{
    assert(serve->stepping);
    schedule(serve);
    serve->stepping = false;
}

/* --- what comes in ---------------------------------------------------------------------------- */

int serve_create(struct serve **out, const struct serve_sink *sink)
{
    struct serve *serve = calloc(1, sizeof *serve);

    assert(sink->read && sink->over && sink->send);
    *out = serve;
    if (!serve)
        return ERR_NO_MEMORY;
    serve->sink = *sink;
    return 0;
}

void serve_destroy(struct serve **serve)
{
    free(*serve);
    *serve = NULL;
}

/* A slot for a transfer to PEER, or NULL where it or all take too much already. */
static struct transfer *free_slot(struct serve *serve, const struct id128 *peer, bool background,
                                  uint64_t share)
{
    struct transfer *slot = NULL;
    unsigned all = 0, all_background = 0, its = 0, its_background = 0;
    uint64_t windows = share, windows_background = share;

    for (size_t i = 0; i < LIMIT_SERVED; i++) {
        struct transfer *t = &serve->transfers[i];

        if (!t->used) {
            slot = slot ? slot : t;
            if (i >= serve->top)
                break;
            continue;
        }
        bool same = id_equal(&t->to, peer);
        all++;
        all_background += t->background;
        its += same;
        its_background += same && t->background;
        windows += same ? t->share : 0;
        windows_background += same && t->background ? t->share : 0;
    }
    assert(all == LIMIT_SERVED || slot); /* the lowest, so that `top` stays low */
    if (its >= LIMIT_SERVED_PER_PEER || windows > LIMIT_PEER_WINDOWS ||
        (background && (its_background >= LIMIT_SERVED_PER_PEER_BACKGROUND ||
                        windows_background > LIMIT_PEER_WINDOWS_BACKGROUND)))
        return NULL;
    return background && all_background >= LIMIT_SERVED_BACKGROUND ? NULL : slot;
}

static void on_ask(struct serve *serve, const struct id128 *from, const struct wire_body_ask *ask,
                   uint64_t now_ms)
{
    if (by_number(serve, from, ask->transfer))
        return; /* came twice */
    if (ask->length == 0) {
        send_end(serve, from, ask->transfer, WIRE_END_DONE);
        return;
    }
    uint64_t share =
        smaller(ask->length, ask->background ? BODY_BACKGROUND_WINDOW_BYTES : BODY_WINDOW_BYTES);
    struct transfer *t = free_slot(serve, from, ask->background != 0, share);
    if (!t) {
        serve->stats.busy++;
        send_end(serve, from, ask->transfer, WIRE_END_BUSY);
        return;
    }
    *t = (struct transfer){
        .used = true,
        .background = ask->background != 0,
        .delegated = ask->delegated != 0,
        .to = *from,
        .transfer = ask->transfer,
        .key = ++serve->generation << 8 | (uint64_t)(t - serve->transfers),
        .id = ask->id,
        .at = ask->offset,
        .end = ask->length > UINT64_MAX - ask->offset ? UINT64_MAX : ask->offset + ask->length,
        .size = UINT64_MAX,
        .share = share,
        .credit = smaller(ask->credit_bytes, BODY_WINDOW_BYTES),
        .active_ms = now_ms,
        .said_ms = now_ms};
    memcpy(t->sha256, ask->sha256, SHA256_BYTES);
    if (t - serve->transfers >= (ptrdiff_t)serve->top)
        serve->top = (size_t)(t - serve->transfers) + 1;
    serve->stats.begun++;
    serve->stats.active++;
    if (t->at == UINT64_MAX) { /* no body reaches that far */
        serve->stats.absent++;
        end_transfer(serve, t, WIRE_END_ABSENT);
    }
}

static void on_credit(struct serve *serve, const struct id128 *from, const struct wire_flow *flow,
                      uint64_t now_ms)
{
    struct transfer *t = by_number(serve, from, flow->session);

    if (!t) {
        serve->stats.unknown++;
        send_end(serve, from, flow->session, WIRE_END_UNKNOWN);
        return;
    }
    /* Beyond the window it would only be memory that a broken asker takes from us. */
    assert(t->credit + t->reading <= BODY_WINDOW_BYTES);
    t->credit += smaller(flow->bytes, BODY_WINDOW_BYTES - t->credit - t->reading);
    t->active_ms = now_ms;
}

static void on_cancel(struct serve *serve, const struct id128 *from, uint64_t transfer)
{
    struct transfer *t = by_number(serve, from, transfer);

    if (!t)
        return;
    serve->stats.cancelled++;
    forget(serve, t);
}

void serve_message(struct serve *serve, const struct wire_message *message, uint64_t now_ms)
{
    step_begin(serve);
    if (message->type == WIRE_BODY_ASK)
        on_ask(serve, &message->from, &message->body_ask, now_ms);
    else if (message->type == WIRE_BODY_CREDIT)
        on_credit(serve, &message->from, &message->flow, now_ms);
    else if (message->type == WIRE_BODY_END && message->flow.end == WIRE_END_CANCEL)
        on_cancel(serve, &message->from, message->flow.session);
    step_end(serve);
}

static void read_failed(struct serve *serve, struct transfer *t, int rc)
{
    switch (rc) {
    case ERR_NOT_FOUND:
    case ERR_DELETED:
        serve->stats.absent++;
        end_transfer(serve, t, WIRE_END_ABSENT);
        break;
    case ERR_AGAIN:
    case ERR_FULL:
    case ERR_NO_MEMORY:
        serve->stats.busy++;
        end_transfer(serve, t, WIRE_END_BUSY);
        break;
    default:
        serve->stats.damaged++;
        end_transfer(serve, t, WIRE_END_DAMAGED);
        break;
    }
}

static void send_data(struct serve *serve, struct transfer *t, const void *data, size_t len)
{
    const struct wire_message message = {
        .type = WIRE_BODY_DATA,
        .body_data = {.transfer = t->transfer,
                      .offset = t->at,
                      .size = t->size,
                      .sum = xxh64(data, len, 0),
                      .data = {.ptr = data, .len = (uint32_t)len}}};

    t->at += len;
    serve->stats.bytes += len;
    serve->sink.send(serve->sink.arg, &t->to, &message);
}

/* LEN of the WANTED bytes came, of a body of SIZE bytes. */
static void read_succeeded(struct serve *serve, struct transfer *t, uint32_t wanted,
                           const void *data, size_t len, uint64_t size)
{
    uint64_t left = t->at < size ? size - t->at : 0;

    if (len != smaller(wanted, left) || (t->size != UINT64_MAX && t->size != size)) {
        read_failed(serve, t, ERR_CORRUPT); /* another body, or a part of one */
        return;
    }
    if (len == 0) {
        read_failed(serve, t, ERR_NOT_FOUND); /* no such bytes */
        return;
    }
    t->size = size;
    t->end = smaller(t->end, size);
    send_data(serve, t, data, len);
    if (t->at == t->end) {
        serve->stats.done++;
        end_transfer(serve, t, WIRE_END_DONE);
    }
}

void serve_read_done(struct serve *serve, uint64_t key, int rc, const void *data, size_t len,
                     uint64_t size, uint64_t now_ms)
{
    struct transfer *t = &serve->transfers[(key & 0xff) % LIMIT_SERVED];
    uint32_t wanted = t->reading;

    assert(t->used && t->key == key && wanted > 0); /* each read is answered once */
    step_begin(serve);
    t->reading = 0;
    t->active_ms = now_ms;
    t->said_ms = now_ms;
    account(serve, t, wanted, false);
    if (t->gone)
        free_up(serve, t);
    else if (rc)
        read_failed(serve, t, rc);
    else
        read_succeeded(serve, t, wanted, data, len, size);
    step_end(serve);
}

void serve_peer_failed(struct serve *serve, const struct id128 *node)
{
    step_begin(serve);
    for (size_t i = 0; i < serve->top; i++) {
        struct transfer *t = &serve->transfers[i];

        if (t->used && !t->gone && id_equal(&t->to, node)) {
            serve->stats.dropped++;
            forget(serve, t);
        }
    }
    step_end(serve);
}

static void send_coming(struct serve *serve, const struct transfer *t)
{
    const struct wire_message message = {.type = WIRE_BODY_COMING,
                                         .flow = {.session = t->transfer}};

    serve->sink.send(serve->sink.arg, &t->to, &message);
}

void serve_tick(struct serve *serve, uint64_t now_ms)
{
    step_begin(serve);
    for (size_t i = 0; i < serve->top; i++) {
        struct transfer *t = &serve->transfers[i];

        if (!t->used || t->gone)
            continue;
        if (t->delegated && t->credit + t->reading > 0) {
            t->active_ms = now_ms; /* it waits for us */
            if (now_ms < t->said_ms + SERVE_COMING_MS)
                continue;
            t->said_ms = now_ms;
            send_coming(serve, t);
        } else if (t->reading == 0 && now_ms >= t->active_ms + SERVE_IDLE_MS) {
            serve->stats.dropped++;
            end_transfer(serve, t, WIRE_END_UNKNOWN);
        }
    }
    step_end(serve);
}

void serve_stats(const struct serve *serve, struct serve_stats *out)
{
    *out = serve->stats;
}
