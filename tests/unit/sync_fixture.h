/* One core of journal sync, what is said to it, and what it said last. Each test program that
 * includes this has its own. */
#ifndef TESTS_UNIT_SYNC_FIXTURE_H
#define TESTS_UNIT_SYNC_FIXTURE_H

#include "base/bytes.h"
#include "cluster/sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

enum { ME = 1, B, C, D };
enum { EVENT = 96, FRAMED = EVENT + 4 }; /* bytes of each event here */

static struct sync *core;
static uint64_t now;
static struct sync_output said[1024];
static size_t said_count;
static char texts[4 << 20]; /* copies of what outputs lend */
static size_t texts_len;

static inline struct id128 id(uint64_t number)
{
    struct id128 out = {{0}};

    for (int i = 0; i < 8; i++)
        out.bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    return out;
}

static inline struct text keep(struct text text)
{
    assert_true(texts_len + text.len <= sizeof texts);
    if (text.len)
        memcpy(texts + texts_len, text.ptr, text.len);
    texts_len += text.len;
    return (struct text){texts + texts_len - text.len, text.len};
}

static inline void keep_texts(struct sync_output *out)
{
    if (out->kind == SYNC_COMMIT)
        out->commit.data = keep(out->commit.data);
    if (out->kind != SYNC_SEND)
        return;
    struct wire_message *message = &out->send.message;

    if (message->type == WIRE_SYNC_ASK)
        message->sync_ask.runs = keep(message->sync_ask.runs);
    else if (message->type == WIRE_SYNC_VECTOR)
        message->sync_vector.runs = keep(message->sync_vector.runs);
    else if (message->type == WIRE_SYNC_FROZEN)
        message->sync_frozen.runs = keep(message->sync_frozen.runs);
    else if (message->type == WIRE_SYNC_EVENTS)
        message->sync_events.data = keep(message->sync_events.data);
}

/* Step, and on while there is more; `said` is all that came of it. */
static inline int step(struct sync_input input)
{
    struct sync_outputs out = {.more = true};
    int first = 1;

    said_count = texts_len = 0;
    for (unsigned steps = 0; out.more; input.kind = SYNC_TICK) {
        input.now_ms = now;
        int rc = sync_step(core, &input, &out);

        first = first == 1 ? rc : first;
        assert_true(out.count <= LIMIT_SYNC_OUTPUTS && ++steps < 100);
        for (size_t i = 0; i < out.count; i++) {
            said[said_count] = out.list[i];
            keep_texts(&said[said_count++]);
        }
    }
    return first;
}

static inline void tick(uint64_t ms)
{
    now += ms;
    assert_int_equal(step((struct sync_input){.kind = SYNC_TICK}), 0);
}

static inline void begin(void)
{
    struct sync_config config = {.self = id(ME), .seed = 11};

    now = 5000;
    sync_destroy(&core);
    assert_int_equal(sync_create(&core, &config), 0);
}

static inline int end(void **state)
{
    (void)state;
    sync_destroy(&core);
    return 0;
}

static inline void local(struct vector_run run, bool own)
{
    struct sync_input input = {.kind = SYNC_LOCAL, .local = {run, own}};

    assert_int_equal(step(input), 0);
}

static inline void run(uint64_t origin, uint64_t seq)
{
    local((struct vector_run){.origin = id(origin), .node = id(B), .seq = seq}, false);
}

static inline void own(uint64_t seq)
{
    local((struct vector_run){.origin = id(500), .node = id(ME), .seq = seq}, true);
}

static inline void peer(uint64_t node, bool alive)
{
    struct sync_input input = {.kind = SYNC_PEER, .peer = {id(node), alive}};

    assert_int_equal(step(input), 0);
}

static inline void summary(uint64_t node, struct hash128 vector)
{
    struct sync_input input = {.kind = SYNC_PEER_SUMMARY};

    input.summary = (struct sync_summary){id(node), {.vector = vector}};
    assert_int_equal(step(input), 0);
}

static const struct hash128 other = {12, 34};

static inline struct hash128 ours(void)
{
    return vector_sum(sync_vector(core), VECTOR_ALL).hash;
}

static inline int message(uint64_t from, struct wire_message message)
{
    message.from = id(from);
    return step((struct sync_input){.kind = SYNC_MESSAGE, .message = message});
}

static inline void flow(uint64_t from, enum wire_type type, uint64_t session, uint64_t bytes,
                        enum wire_end code)
{
    struct wire_message m = {.type = type, .flow = {session, bytes, (uint8_t)code}};

    assert_int_equal(message(from, m), 0);
}

static inline struct text data_of(uint64_t first, uint32_t count)
{
    static char bytes[LIMIT_WIRE_EVENT_BYTES];
    char *at = bytes;

    assert_true((size_t)count * FRAMED <= sizeof bytes);
    for (uint64_t seq = first; seq < first + count; seq++, at += FRAMED) {
        put_u32((uint8_t *)at, EVENT);
        memset(at + 4, (int)(seq % 256), EVENT);
    }
    return (struct text){bytes, count * FRAMED};
}

static inline void events(uint64_t from, uint64_t session, uint64_t origin, uint64_t first,
                          uint32_t count)
{
    struct wire_message m = {.type = WIRE_SYNC_EVENTS};

    m.sync_events =
        (struct wire_sync_events){session, id(origin), first, count, data_of(first, count)};
    assert_int_equal(message(from, m), 0);
}

static inline void committed(const struct sync_commit *commit, int rc)
{
    struct sync_input input = {.kind = SYNC_COMMITTED};

    input.committed = (struct sync_committed){commit->peer,
                                              commit->session,
                                              commit->origin,
                                              commit->first,
                                              commit->count,
                                              commit->data.len,
                                              rc};
    assert_int_equal(step(input), 0);
}

static inline void read_done(const struct sync_read *read, uint32_t count, int rc)
{
    struct sync_input input = {.kind = SYNC_READ_DONE};

    input.read_done = (struct sync_read_done){
        read->peer, read->session, read->origin, read->first, count, data_of(read->first, count),
        rc};
    assert_int_equal(step(input), 0);
}

/* What was said: how much of that kind, and the only one of it. */
static inline size_t count_of(enum sync_output_kind kind)
{
    size_t count = 0;

    for (size_t i = 0; i < said_count; i++)
        count += said[i].kind == kind;
    return count;
}

static inline struct sync_output *the(enum sync_output_kind kind)
{
    size_t found = 0;

    for (size_t i = 0; i < said_count; i++)
        found = said[i].kind == kind ? i : found;
    assert_int_equal(count_of(kind), 1);
    return &said[found];
}

/* The one message of TYPE to NODE; nothing else of that type was sent to it. */
static inline struct wire_message sent(uint64_t node, enum wire_type type)
{
    struct wire_message found = {0};
    struct id128 to = id(node), me = id(ME);
    size_t count = 0;

    for (size_t i = 0; i < said_count; i++) {
        if (said[i].kind == SYNC_SEND && said[i].send.message.type == type &&
            id_equal(&said[i].send.to, &to)) {
            found = said[i].send.message;
            count++;
        }
    }
    assert_int_equal(count, 1);
    assert_true(id_equal(&found.from, &me));
    return found;
}

static inline void assert_silent(void)
{
    assert_int_equal(said_count, 0);
}

static inline void assert_committed(uint64_t origin, uint64_t first, uint32_t count)
{
    struct sync_commit *commit = &the(SYNC_COMMIT)->commit;
    struct id128 expected = id(origin);
    struct text data = data_of(first, count);

    assert_true(id_equal(&commit->origin, &expected));
    assert_int_equal(commit->first, first);
    assert_int_equal(commit->count, count);
    assert_int_equal(commit->data.len, data.len);
    assert_memory_equal(commit->data.ptr, data.ptr, data.len);
}

static inline void assert_read(uint64_t origin, uint64_t first)
{
    struct sync_read *read = &the(SYNC_READ)->read;
    struct id128 expected = id(origin);

    assert_true(id_equal(&read->origin, &expected));
    assert_int_equal(read->first, first);
}

static inline void assert_end(uint64_t to, uint64_t session, enum wire_end code)
{
    struct wire_message m = sent(to, WIRE_SYNC_END);

    assert_int_equal(m.flow.session, session);
    assert_int_equal(m.flow.end, code);
}

/* B is alive and differs: the session in which it is asked. */
static inline uint64_t asking_b(void)
{
    peer(B, true);
    summary(B, other);
    tick(SYNC_DELAY_MS);
    uint64_t session = sent(B, WIRE_SYNC_ASK).sync_ask.session;

    assert_true(session != 0);
    return session;
}

/* B knows of our runs 10, 20, 30 … as KNOWN says (0: not). */
static inline int ask_me(uint64_t from, uint64_t session, uint64_t credit, const uint64_t *known,
                         size_t count)
{
    static char bytes[LIMIT_WIRE_RUNS * WIRE_RUN_BYTES];
    struct wire_message m = {.type = WIRE_SYNC_ASK};
    struct vector_sum ended = vector_sum(sync_vector(core), VECTOR_ENDED);
    struct buf list;

    buf_init(&list, 0);
    for (size_t i = 0; i < count; i++) {
        struct wire_run entry = {id(10 * (i + 1)), known[i]};

        if (known[i])
            wire_run_add(&list, &entry);
    }
    if (list.len)
        memcpy(bytes, list.data, list.len);
    m.sync_ask = (struct wire_sync_ask){
        session, ended.hash, ended.count, credit, {bytes, (uint32_t)list.len}};
    buf_release(&list);
    return message(from, m);
}

static inline struct wire_message page_of(uint64_t session, uint32_t page, bool last, uint64_t from,
                                          uint64_t through)
{
    static char bytes[LIMIT_WIRE_RUNS * WIRE_RUN_BYTES];
    struct wire_message m = {.type = WIRE_SYNC_VECTOR};
    struct buf list;

    buf_init(&list, 0);
    for (uint64_t i = from; i <= through; i += 10) {
        struct wire_run entry = {id(i), 1};

        wire_run_add(&list, &entry);
    }
    if (list.len)
        memcpy(bytes, list.data, list.len);
    m.sync_vector = (struct wire_sync_vector){session, page, last, {bytes, (uint32_t)list.len}};
    buf_release(&list);
    return m;
}

#endif
