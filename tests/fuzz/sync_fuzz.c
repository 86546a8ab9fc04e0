/*
 * Goal: whatever peers say, however reads and commits end, in whatever order: journal sync stays
 * within its bounds; gives nobody more than its credit, and nothing but what is durable here; never
 * has more under way than it gave credit for; hands nothing to the journal that is known, of its
 * own run or of a frozen one; answers nobody but its peers and who asked; comes to rest in each
 * step; and does the same again for the same input.
 * Input: steps, each an operation, the milliseconds since the last (one byte), and its arguments.
 */
#include "base/bytes.h"
#include "cluster/sync.h"
#include "tests/fuzz/fuzz.h"

#define NODES    8
#define ORIGINS  24
#define OWED     64
#define SESSIONS 16
#define EVENT    200

/* A session in which NODE asks us: what it gave credit for. */
struct lent {
    uint64_t session, credit; /* 0: none */
};

/* One in which we asked NODE: what it may have under way. */
struct open {
    unsigned node;
    uint64_t session; /* 0: none */
    uint64_t credit;
};

struct run {
    struct sync *core, *twin;
    uint64_t now_ms;
    struct lent lent[NODES];
    bool alive[NODES];
    struct open asked[SESSIONS];
    unsigned asked_next;
    struct sync_output owed[OWED]; /* reads and commits, not answered yet; without their data */
    size_t owed_count;
    uint64_t commit_bytes;
    unsigned own; /* its origin; 0: none */
};

static struct run run;
static char framed_bytes[2 * LIMIT_WIRE_EVENT_BYTES];

static struct id128 node_id(unsigned node)
{
    return (struct id128){{6, (uint8_t)node}};
}

static struct id128 origin_id(unsigned origin)
{
    return (struct id128){{9, (uint8_t)origin}};
}

static unsigned node_of(const struct id128 *id)
{
    CHECK(id->bytes[0] == 6 && id->bytes[1] < NODES);
    return id->bytes[1];
}

static uint64_t charge(uint64_t bytes)
{
    return bytes > SYNC_MESSAGE_CREDIT_BYTES ? bytes : SYNC_MESSAGE_CREDIT_BYTES;
}

static struct open *find_asked(unsigned node, uint64_t session)
{
    for (unsigned i = 0; session && i < SESSIONS; i++)
        if (run.asked[i].session == session && run.asked[i].node == node)
            return &run.asked[i];
    return NULL;
}

static bool is_durable(const struct id128 *origin, uint64_t first, uint32_t count)
{
    const struct vector_run *it = vector_find(sync_vector(run.core), origin);

    return it && !it->frozen && count > 0 && first > it->anchor_seq && first + count - 1 <= it->seq;
}

/* ---- What it says ---- */

static void check_events(unsigned to, const struct wire_sync_events *events)
{
    struct lent *lent = &run.lent[to];
    uint64_t bytes = charge(events->data.len);

    CHECK(is_durable(&events->origin, events->first, 1));
    if (events->session == 0) {
        CHECK(run.own && events->origin.bytes[1] == run.own);
        return;
    }
    CHECK(lent->session == events->session && lent->credit > 0);
    lent->credit -= bytes < lent->credit ? bytes : lent->credit;
}

static void check_send(const struct sync_output *out)
{
    struct wire_message whole = out->send.message;
    unsigned to = node_of(&out->send.to);
    struct id128 self = node_id(0);
    struct buf bytes = {0};
    struct open *asked;

    CHECK(to != 0);
    CHECK(id_equal(&whole.from, &self) && whole.tag.len == 0);
    wire_encode(&bytes, &whole);
    CHECK(buf_check(&bytes) == 0);
    buf_release(&bytes);
    switch (whole.type) {
    case WIRE_SYNC_ASK:
        CHECK(whole.sync_ask.credit_bytes <= SYNC_CREDIT_BYTES);
        run.asked[run.asked_next++ % SESSIONS] =
            (struct open){to, whole.sync_ask.session, whole.sync_ask.credit_bytes};
        break;
    case WIRE_SYNC_CREDIT:
        asked = find_asked(to, whole.flow.session);
        if (asked) {
            asked->credit += whole.flow.bytes;
            CHECK(asked->credit <= SYNC_CREDIT_BYTES);
        }
        break;
    case WIRE_SYNC_EVENTS:
        check_events(to, &whole.sync_events);
        break;
    case WIRE_SYNC_END:
        if (run.lent[to].session == whole.flow.session)
            run.lent[to].session = 0;
        break;
    case WIRE_SYNC_FROZEN:
        CHECK(whole.sync_frozen.runs.len > 0);
        CHECK(whole.sync_frozen.runs.len % WIRE_FROZEN_BYTES == 0);
        break;
    default:
        CHECK(whole.type == WIRE_SYNC_MORE || whole.type == WIRE_SYNC_VECTOR);
    }
}

static void check_commit(const struct sync_commit *commit)
{
    const struct vector_run *it = vector_find(sync_vector(run.core), &commit->origin);
    struct text event;
    size_t offset = 0;
    uint32_t count = 0;

    while (wire_next_event(commit->data, &offset, &event))
        count++;
    CHECK(count == commit->count && count > 0 && offset == commit->data.len);
    CHECK(commit->first + count - 1 <= WIRE_SEQ_MAX);
    CHECK(commit->first > (it ? it->seq : 0) && !(it && it->frozen));
    run.commit_bytes += commit->data.len;
    CHECK(run.commit_bytes <= LIMIT_SYNC_ASKED * (SYNC_CREDIT_BYTES + LIMIT_WIRE_EVENT_BYTES) * 16 +
                                  NODES * 2 * SYNC_PUSH_WINDOW_BYTES * 16);
}

static void check_read(const struct sync_read *read)
{
    const struct vector_run *it = vector_find(sync_vector(run.core), &read->origin);

    /* Of our own run, for a push, it may have been compacted: then the read finds nothing. */
    CHECK(it && read->first >= 1 && read->first <= it->seq);
    CHECK(read->session == 0 || is_durable(&read->origin, read->first, 1));
    CHECK(read->limit_bytes > 0 && read->limit_bytes <= LIMIT_WIRE_EVENT_BYTES);
}

static void take_output(const struct sync_output *out)
{
    switch (out->kind) {
    case SYNC_SEND:
        check_send(out);
        return;
    case SYNC_READ:
        check_read(&out->read);
        break;
    case SYNC_COMMIT:
        check_commit(&out->commit);
        break;
    case SYNC_CONFLICT:
        CHECK(out->conflict.rc < 0);
        return;
    case SYNC_BEHIND:
    case SYNC_FREEZE:
        return;
    default:
        CHECK(!"an output of no kind");
    }
    if (run.owed_count == OWED) { /* forgotten by the caller: its deadlines see to that */
        if (run.owed[0].kind == SYNC_COMMIT)
            run.commit_bytes -= run.owed[0].commit.data.len;
        memmove(run.owed, run.owed + 1, (OWED - 1) * sizeof *run.owed);
        run.owed_count--;
    }
    run.owed[run.owed_count++] = *out;
}

/* The step, and on while there is more. */
static int step(struct sync_input *input)
{
    struct sync_outputs out = {.more = true}, twin;
    int first = 1;

    for (unsigned steps = 0; out.more; input->kind = SYNC_TICK) {
        input->now_ms = run.now_ms;
        int rc = sync_step(run.core, input, &out);

        CHECK(sync_step(run.twin, input, &twin) == rc);
        CHECK(twin.count == out.count && twin.more == out.more);
        CHECK(out.count <= LIMIT_SYNC_OUTPUTS && ++steps < 200);
        for (size_t i = 0; i < out.count; i++) {
            CHECK(out.list[i].kind == twin.list[i].kind);
            take_output(&out.list[i]);
        }
        first = first == 1 ? rc : first;
    }
    return first;
}

/* ---- What is said to it ---- */

/* COUNT events of LEN bytes each, framed. */
static struct text framed(uint32_t count, uint32_t len)
{
    char *at = framed_bytes;

    for (uint32_t i = 0; i < count; i++, at += 4 + len)
        put_u32((uint8_t *)at, len);
    CHECK(at <= framed_bytes + sizeof framed_bytes);
    return (struct text){framed_bytes, (uint32_t)(at - framed_bytes)};
}

static uint64_t feed_session(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1);

    if (what & 128)
        return run.asked[what % SESSIONS].session;
    return what & 64 ? 1 + what % 4 : 0;
}

static void runs_of(struct feed *feed, struct buf *out)
{
    unsigned count = (unsigned)feed_number(feed, 1) % (ORIGINS + 1);

    for (unsigned i = 0; i < count; i++) {
        struct wire_run entry = {origin_id(1 + i), 1 + feed_number(feed, 1)};

        wire_run_add(out, &entry);
    }
    CHECK(buf_check(out) == 0);
}

static void say_ask(struct feed *feed, struct wire_message *message, struct buf *runs)
{
    unsigned what = (unsigned)feed_number(feed, 1), from = message->from.bytes[1];
    struct vector_sum sum = vector_sum(sync_vector(run.core), VECTOR_ENDED);
    struct lent *lent = &run.lent[from];

    runs_of(feed, runs);
    message->sync_ask = (struct wire_sync_ask){.session = 1 + what % 4,
                                               .ended = sum.hash,
                                               .ended_count = what & 4 ? sum.count : what >> 4,
                                               .credit_bytes = feed_number(feed, what & 8 ? 8 : 3),
                                               .runs = {runs->data, (uint32_t)runs->len}};
    if (what & 16)
        message->sync_ask.ended.low ^= 1;
    if (lent->session == message->sync_ask.session)
        return; /* once more */
    uint64_t credit = message->sync_ask.credit_bytes;
    *lent = (struct lent){message->sync_ask.session,
                          credit < LIMIT_SYNC_CREDIT_BYTES ? credit : LIMIT_SYNC_CREDIT_BYTES};
}

static void say_events(struct feed *feed, struct wire_message *message)
{
    uint64_t session = feed_session(feed);
    unsigned what = (unsigned)feed_number(feed, 1);
    uint32_t count = 1 + what % 8, len = what & 128 ? LIMIT_WIRE_EVENT_BYTES / count - 4 : EVENT;

    if (len > LIMIT_EVENT_BYTES)
        len = LIMIT_EVENT_BYTES;
    uint64_t first = 1 + feed_number(feed, 1);
    if (what & 64 && what & 8)
        first = WIRE_SEQ_MAX - feed_number(feed, 1);
    if (count > WIRE_SEQ_MAX - first + 1)
        count = (uint32_t)(WIRE_SEQ_MAX - first + 1);
    message->sync_events =
        (struct wire_sync_events){.session = session,
                                  .origin = origin_id(1 + (unsigned)feed_number(feed, 1) % ORIGINS),
                                  .first = first,
                                  .count = count,
                                  .data = framed(count, len)};
    struct open *asked = find_asked(message->from.bytes[1], session);
    uint64_t bytes = charge(message->sync_events.data.len);
    if (asked)
        asked->credit -= bytes < asked->credit ? bytes : asked->credit;
}

static void say_flow(struct feed *feed, struct wire_message *message)
{
    struct lent *lent = &run.lent[message->from.bytes[1]];

    message->flow.session = feed_session(feed);
    unsigned what = (unsigned)feed_number(feed, 1);
    if (message->type == WIRE_SYNC_CREDIT)
        message->flow.bytes = feed_number(feed, what & 1 ? 8 : 3);
    if (message->type == WIRE_SYNC_END)
        message->flow.end = (uint8_t)(what % 7);
    if (message->flow.session == 0 || lent->session != message->flow.session)
        return;
    if (message->type == WIRE_SYNC_END)
        lent->session = 0;
    uint64_t more = message->flow.bytes;
    lent->credit = more < LIMIT_SYNC_CREDIT_BYTES - lent->credit ? lent->credit + more
                                                                 : LIMIT_SYNC_CREDIT_BYTES;
}

static void say(struct feed *feed)
{
    static const enum wire_type types[] = {WIRE_SYNC_ASK,    WIRE_SYNC_MORE,   WIRE_SYNC_VECTOR,
                                           WIRE_SYNC_EVENTS, WIRE_SYNC_CREDIT, WIRE_SYNC_END,
                                           WIRE_SYNC_EVENTS, WIRE_PROBE};
    struct sync_input input = {.kind = SYNC_MESSAGE};
    struct wire_message *message = &input.message;
    unsigned who = (unsigned)feed_number(feed, 1);
    struct buf runs = {0};

    message->type = types[(who >> 3) % 8];
    message->from = node_id(1 + who % (NODES - 1)); /* its own come to no core */
    switch (message->type) {
    case WIRE_SYNC_ASK:
        say_ask(feed, message, &runs);
        break;
    case WIRE_SYNC_VECTOR:
        message->sync_vector.session = feed_session(feed);
        message->sync_vector.page = (uint32_t)feed_number(feed, 1) % 4;
        message->sync_vector.last = who >> 6 & 1;
        runs_of(feed, &runs);
        message->sync_vector.runs = (struct text){runs.data, (uint32_t)runs.len};
        break;
    case WIRE_SYNC_EVENTS:
        say_events(feed, message);
        break;
    case WIRE_PROBE:
        break;
    default:
        say_flow(feed, message);
    }
    CHECK(step(&input) == 0);
    buf_release(&runs);
}

/* Bytes that are a message, or none, of somebody who has no session. */
static void say_bytes(struct feed *feed)
{
    struct sync_input input = {.kind = SYNC_MESSAGE};
    size_t got, len = feed_number(feed, 1);
    const uint8_t *bytes = feed_some(feed, len, &got);

    if (wire_decode(&input.message, bytes, got) != 0)
        return;
    input.message.from = node_id(NODES - 1);
    if (input.message.type == WIRE_SYNC_ASK) {
        uint64_t credit = input.message.sync_ask.credit_bytes;

        if (run.lent[NODES - 1].session != input.message.sync_ask.session)
            run.lent[NODES - 1] =
                (struct lent){input.message.sync_ask.session,
                              credit < LIMIT_SYNC_CREDIT_BYTES ? credit : LIMIT_SYNC_CREDIT_BYTES};
    } else if (input.message.type == WIRE_SYNC_CREDIT) {
        run.lent[NODES - 1].credit = LIMIT_SYNC_CREDIT_BYTES;
    }
    CHECK(step(&input) == 0);
}

static void local(unsigned origin, uint64_t seq, unsigned what)
{
    struct sync_input input = {.kind = SYNC_LOCAL};
    struct vector_run *it = &input.local.run;

    *it = (struct vector_run){.origin = origin_id(origin), .node = node_id(1), .seq = seq};
    it->ended = what & 1;
    it->frozen = what & 2 && what & 4;
    it->anchor_seq = what & 8 ? seq / 2 : 0;
    input.local.own = what & 16 && !it->ended && !it->frozen;
    unsigned before = run.own;
    run.own = input.local.own ? origin : before; /* it may be pushed in this very step */
    int rc = step(&input);
    run.own = rc ? before : run.own;
    CHECK(rc == 0 || rc == ERR_INVALID || rc == ERR_FULL);
    CHECK((rc == ERR_INVALID) == ((seq == 0 && !it->frozen) || seq > WIRE_SEQ_MAX));
}

static void answer(struct feed *feed)
{
    static const int codes[] = {
        0, 0, 0, 0, 0, ERR_AGAIN, ERR_CONFLICT, ERR_NOT_FOUND, ERR_FULL, ERR_INVALID};
    unsigned what = (unsigned)feed_number(feed, 1);
    struct sync_input input;

    if (run.owed_count == 0)
        return;
    size_t at = what % run.owed_count;
    struct sync_output it = run.owed[at];
    int rc = codes[feed_number(feed, 1) % 10];
    memmove(run.owed + at, run.owed + at + 1, (--run.owed_count - at) * sizeof *run.owed);
    if (it.kind == SYNC_READ) {
        const struct vector_run *known = vector_find(sync_vector(run.core), &it.read.origin);
        uint64_t left = known->seq - it.read.first + 1, most = it.read.limit_bytes / (EVENT + 4);
        uint32_t count = 1 + (uint32_t)feed_number(feed, 1);

        count = count > most ? (uint32_t)most : count;
        count = count > left ? (uint32_t)left : count;
        count = count == 0 ? 1 : count;
        input = (struct sync_input){.kind = SYNC_READ_DONE,
                                    .read_done = {it.read.peer, it.read.session, it.read.origin,
                                                  it.read.first, count, framed(count, EVENT), rc}};
        /* A run may have been frozen, or compacted, while it was read. */
        if (rc == 0 && !is_durable(&it.read.origin, it.read.first, count))
            input.read_done.rc = ERR_NOT_FOUND;
        CHECK(step(&input) == 0);
        return;
    }
    input = (struct sync_input){.kind = SYNC_COMMITTED,
                                .committed = {it.commit.peer, it.commit.session, it.commit.origin,
                                              it.commit.first, it.commit.count, it.commit.data.len,
                                              rc}};
    run.commit_bytes -= it.commit.data.len;
    CHECK(step(&input) == 0);
    if (rc == 0 && it.commit.origin.bytes[0] == 9)
        local(it.commit.origin.bytes[1], it.commit.first + it.commit.count - 1, 0);
}

static void peer(unsigned node, bool alive)
{
    struct sync_input input = {.kind = SYNC_PEER, .peer = {node_id(node), alive}};

    if (!alive && run.alive[node])
        run.lent[node].session = 0;
    run.alive[node] = alive;
    CHECK(step(&input) == 0);
}

static void summary(struct feed *feed, unsigned node, unsigned what)
{
    struct sync_input input = {.kind = SYNC_PEER_SUMMARY};

    input.summary.node = node_id(node);
    input.summary.summary.vector = what & 1 ? vector_sum(sync_vector(run.core), VECTOR_ALL).hash
                                            : (struct hash128){feed_number(feed, 1), 1};
    CHECK(step(&input) == 0);
}

static void run_step(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1), node = (what >> 3) % NODES;
    struct sync_input input = {.kind = SYNC_TICK};

    run.now_ms += feed_number(feed, 1) << (what >> 6 << 1);
    switch (what % 8) {
    case 0: {
        unsigned origin = 1 + (unsigned)feed_number(feed, 1) % ORIGINS;
        uint64_t seq = feed_number(feed, 1);

        local(origin, seq == 255 ? WIRE_SEQ_MAX + 1 : seq, (unsigned)feed_number(feed, 1));
        break;
    }
    case 1:
        peer(node, !(what & 64) || what & 128);
        break;
    case 2:
        summary(feed, node, what >> 6);
        break;
    case 3:
    case 4:
        say(feed);
        break;
    case 5:
        answer(feed);
        break;
    case 6:
        if (what & 64) {
            say_bytes(feed);
            break;
        }
        input.kind = SYNC_WISH;
        input.wish = node_id(node);
        __attribute__((fallthrough));
    default:
        CHECK(step(&input) == 0);
    }
    CHECK(sync_busy(run.core) <= 1 + LIMIT_SYNC_ASKED + LIMIT_SYNC_SERVED + LIMIT_SYNC_FLIGHTS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    struct sync_config config = {
        .self = node_id(0), .seed = feed_number(&feed, 2), .run_limit = ORIGINS - 2};

    memset(&run, 0, sizeof run);
    run.now_ms = 100000;
    CHECK(sync_create(&run.core, &config) == 0);
    CHECK(sync_create(&run.twin, &config) == 0);
    while (feed.left > 0)
        run_step(&feed);
    sync_destroy(&run.core);
    sync_destroy(&run.twin);
    return 0;
}
