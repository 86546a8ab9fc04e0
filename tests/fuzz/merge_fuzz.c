/*
 * Goal: whatever peers say, however reads, sums and commits end, in whatever order: merging stays
 * within its bounds; gives nobody more than its credit, in order, the vector first; adopts a vector
 * only when everything that its peer gave for it is durable, never more than each session told, of
 * its own run nothing; keeps events for whoever was given a vector; answers nobody but its peers;
 * comes to rest in each step; and does the same again for the same input.
 * Input: steps, each an operation, the milliseconds since the last (one byte), and its arguments.
 *
 * Peers are honest but for what gets lost, repeated and late: what a session gives is fixed when it
 * is asked for, and any part of it may be said at any time. What is not honest are bytes of nobody
 * who was asked.
 */
#include "base/bytes.h"
#include "cluster/merge.h"
#include "journal/snapshot.h"
#include "tests/fuzz/fuzz.h"

#include <limits.h>

#define NODES      6
#define ORIGINS    8
#define OWN        1 /* the origin that is this process's own */
#define OWED       64
#define PLANS      8  /* sessions in which we asked, the last ones */
#define PARTS      12 /* chunks of one */
#define PLACES     16 /* ids that occur; the last one is the last of all */
#define NO_PLAN    UINT_MAX
#define TAG        0x7A
#define TAG_BYTES  3
#define LEAST      (4 + TAG_BYTES)
#define ITEM_BYTES 60000

/* What a peer gives in one session. */
struct plan {
    uint64_t session; /* 0: none */
    unsigned node, number;
    bool whole;
    struct id128 after, through;
    uint64_t seq[ORIGINS]; /* its vector, in two pages */
    unsigned parts;
    struct id128 end[PARTS]; /* zero: before the rows */
    uint16_t bytes[PARTS];
    bool durable[PARTS];
};

/* A session in which NODE asks us. */
struct lent {
    uint64_t session, credit, number; /* 0: none */
    bool whole, told;                 /* the vector, all of it */
    bool released;                    /* it says that it needs no events of ours, and goes on */
    struct id128 after;
    uint64_t fences; /* of which it asks the sums */
};

/* A read, sum or commit that is not answered yet. */
struct owed {
    struct merge_output out;
    unsigned plan, part; /* commit: of what; NO_PLAN: a vector */
    struct id128 fences[PLACES];
    size_t fence_count;
};

struct run {
    struct merge *core, *twin;
    struct vector *vector;
    uint64_t now_ms;
    bool alive[NODES], holds;
    uint64_t heard_ms[NODES], guest_until[NODES];
    struct lent lent[NODES];
    struct plan plans[PLANS], *asked; /* the last one of a merge of everything */
    unsigned plan_count;
    uint64_t want[ORIGINS]; /* the lowest that the sessions before it told */
    struct owed owed[OWED];
    size_t owed_count;
    uint64_t sums_session; /* of our last question for sums, to … */
    unsigned sums_node;
};

static struct run run;
static uint8_t data_bytes[LIMIT_WIRE_MERGE_BYTES + 1];

static struct id128 node_id(unsigned node)
{
    return (struct id128){{6, (uint8_t)node}};
}

static struct id128 origin_id(unsigned origin)
{
    return (struct id128){{9, (uint8_t)origin}};
}

static struct id128 place(unsigned at)
{
    return at >= PLACES ? db_last_id : (struct id128){{(uint8_t)(at * 15)}};
}

static unsigned node_of(const struct id128 *id)
{
    CHECK(id->bytes[0] == 6 && id->bytes[1] < NODES);
    return id->bytes[1];
}

/* LEN bytes of chunks (none, or more than their heads take), the first of which begin with these.
 */
static struct text framed(uint32_t len, uint8_t plan, uint8_t part)
{
    const uint8_t tag[TAG_BYTES] = {TAG, plan, part};

    for (uint32_t at = 0, one; at < len; at += 4 + one) {
        one = len - at - 4;
        if (one > ITEM_BYTES)
            one = len - at - 4 < ITEM_BYTES + 100 ? ITEM_BYTES - 100 : ITEM_BYTES;
        put_u32(data_bytes + at, one);
    }
    if (len)
        memcpy(data_bytes + 4, tag, sizeof tag);
    return (struct text){(char *)data_bytes, len};
}

static uint64_t charge(uint64_t bytes)
{
    return bytes > MERGE_LEAST_CHARGE ? bytes : MERGE_LEAST_CHARGE;
}

/* ---- What we are given ---- */

/* Is all that P's session gives up to id END durable? */
static bool is_durable(const struct plan *p, const struct id128 *end)
{
    for (unsigned i = 0; i < p->parts; i++)
        if (id_compare(&p->end[i], end) <= 0 && p->bytes[i] && !p->durable[i])
            return false;
    return true;
}

static void want_no_more_than(const struct plan *p)
{
    for (unsigned i = 0; i < ORIGINS; i++)
        if (p->seq[i] < run.want[i])
            run.want[i] = p->seq[i];
}

/* A session goes on where the one before it became durable, with the same peer, or begins anew. */
static void check_resume(const struct wire_merge_ask *ask, unsigned to)
{
    if (id_is_zero(&ask->after)) {
        memset(run.want, 0xff, sizeof run.want);
        return;
    }
    CHECK(run.asked && run.asked->node == to);
    CHECK(is_durable(run.asked, &ask->after));
    CHECK(id_compare(&ask->after, &run.asked->after) >= 0);
    if (!id_equal(&ask->after, &run.asked->after))
        want_no_more_than(run.asked);
}

static void make_plan(struct plan *p, const struct wire_merge_ask *ask, unsigned to)
{
    uint64_t dice = ask->session;
    unsigned at = 0;

    *p = (struct plan){.session = ask->session,
                       .node = to,
                       .number = run.plan_count,
                       .whole = ask->whole,
                       .after = ask->after,
                       .through = ask->through};
    for (unsigned i = 0; i < ORIGINS; i++)
        p->seq[i] = (dice >> (i * 7)) % 50;
    if (p->whole && id_is_zero(&p->after))
        for (unsigned i = 0; i < dice % 4; i++)
            p->bytes[p->parts++] = dice >> (20 + i) & 1 ? LEAST + (uint16_t)(dice % 5000) : 0;
    while (at <= PLACES) {
        struct id128 id = place(at);

        at += 1 + (dice >> (at + 8)) % 4;
        if (id_compare(&id, &p->after) <= 0)
            continue;
        if (id_compare(&id, &p->through) >= 0 || p->parts == PARTS - 1)
            break;
        p->end[p->parts] = id;
        p->bytes[p->parts++] = dice >> (at % 40) & 3 ? LEAST + (uint16_t)(dice >> at) / 2 : 0;
    }
    p->end[p->parts] = p->through;
    p->bytes[p->parts++] = dice & 1 ? LEAST : 0;
}

static void check_ask(const struct wire_merge_ask *ask, unsigned to)
{
    struct plan *p = &run.plans[run.plan_count % PLANS];

    CHECK(run.alive[to]);
    CHECK(ask->credit_bytes == MERGE_CREDIT_BYTES);
    CHECK(id_compare(&ask->after, &ask->through) < 0);
    if (ask->whole)
        check_resume(ask, to);
    make_plan(p, ask, to);
    run.plan_count++;
    if (ask->whole)
        run.asked = p;
    else
        run.asked = NULL;
}

/* Runs that are adopted: what the merge with the last one asked has told, and all else of it. */
static void check_adopted(struct snapshot_reader *reader)
{
    struct snapshot_origin origin;
    const struct plan *p = run.asked;
    int rc;

    CHECK(p && p->whole && is_durable(p, &db_last_id));
    want_no_more_than(p);
    while ((rc = snapshot_next_origin(reader, &origin)) == 1) {
        const struct vector_run *known = vector_find(run.vector, &origin.origin);

        CHECK(origin.origin.bytes[0] == 9 && origin.origin.bytes[1] < ORIGINS);
        CHECK(origin.origin.bytes[1] != OWN);
        CHECK(origin.seq > 0 && origin.seq <= run.want[origin.origin.bytes[1]]);
        CHECK(!known || !known->frozen);
    }
    CHECK(rc == 0);
}

static struct owed *owe(const struct merge_output *out)
{
    if (run.owed_count == OWED) { /* forgotten by the caller: deadlines see to that */
        memmove(run.owed, run.owed + 1, (OWED - 1) * sizeof *run.owed);
        run.owed_count--;
    }
    struct owed *owed = &run.owed[run.owed_count++];

    *owed = (struct owed){.out = *out, .plan = NO_PLAN};
    return owed;
}

static void check_commit(const struct merge_output *out)
{
    const uint8_t *bytes = (const uint8_t *)out->commit.data.ptr;
    struct owed *owed = owe(out);
    struct snapshot_reader reader;
    uint32_t len;

    CHECK(out->commit.token > 0);
    CHECK(out->commit.data.len > sizeof len);
    if (bytes[4] == TAG) {
        owed->plan = run.plans[bytes[5]].number;
        owed->part = bytes[6];
        return;
    }
    memcpy(&len, bytes, sizeof len);
    CHECK(len == out->commit.data.len - sizeof len);
    CHECK(snapshot_open(&reader, bytes + sizeof len, len) == 0);
    CHECK(reader.kind == SNAPSHOT_ORIGINS && reader.left > 0);
    check_adopted(&reader);
}

static void owe_sum(const struct merge_output *out)
{
    struct owed *owed = owe(out);

    owed->fence_count = wire_fence_count(out->sum.fences);
    CHECK(owed->fence_count <= PLACES);
    for (size_t i = 0; i < owed->fence_count; i++)
        owed->fences[i] = wire_fence_at(out->sum.fences, i);
}

/* ---- What we give ---- */

static void check_chunk(unsigned to, const struct wire_merge_chunk *chunk)
{
    struct lent *lent = &run.lent[to];
    uint64_t bytes = charge(chunk->data.len);

    CHECK(lent->session == chunk->session && lent->credit > 0);
    CHECK(chunk->number == lent->number++);
    CHECK(!lent->whole || (lent->told && (run.holds || lent->released)));
    lent->credit -= bytes < lent->credit ? bytes : lent->credit;
    if (id_is_zero(&chunk->through)) {
        CHECK(lent->whole && !chunk->last && id_is_zero(&lent->after));
        return;
    }
    CHECK(id_compare(&chunk->through, &lent->after) > 0);
    lent->after = chunk->through;
    if (chunk->last)
        lent->session = 0;
}

static void check_vector(unsigned to, const struct wire_merge_vector *page)
{
    struct lent *lent = &run.lent[to];
    uint64_t bytes = charge(page->runs.len);

    CHECK(lent->session == page->session && lent->whole && !lent->told && lent->credit > 0);
    CHECK(run.holds || lent->released);
    if (!lent->released)
        run.guest_until[to] = run.heard_ms[to] + MERGE_GUEST_MS;
    lent->credit -= bytes < lent->credit ? bytes : lent->credit;
    lent->told = page->last;
    for (size_t i = 0; i < wire_merge_run_count(page->runs); i++) {
        struct wire_merge_run it = wire_merge_run_at(page->runs, i);
        const struct vector_run *known = vector_find(run.vector, &it.origin);

        CHECK(known && !known->frozen && it.seq == known->seq);
    }
}

static void check_sums(unsigned to, const struct wire_merge_sums *sums)
{
    struct lent *lent = &run.lent[to];

    CHECK(lent->session == sums->session && lent->number == sums->first);
    lent->number += wire_sum_count(sums->sums);
    CHECK(lent->number <= lent->fences);
    if (lent->number == lent->fences)
        lent->session = 0;
}

static void check_send(const struct merge_output *out)
{
    const struct wire_message *message = &out->send.message;
    unsigned to = node_of(&out->send.to);
    struct id128 self = node_id(0);
    struct buf bytes = {0};

    CHECK(to != 0 && id_equal(&message->from, &self) && message->tag.len == 0);
    wire_encode(&bytes, message);
    CHECK(buf_check(&bytes) == 0);
    buf_release(&bytes);
    switch (message->type) {
    case WIRE_MERGE_ASK:
        check_ask(&message->merge_ask, to);
        break;
    case WIRE_MERGE_VECTOR:
        check_vector(to, &message->merge_vector);
        break;
    case WIRE_MERGE_CHUNK:
        check_chunk(to, &message->merge_chunk);
        break;
    case WIRE_MERGE_SUMS:
        check_sums(to, &message->merge_sums);
        break;
    case WIRE_MERGE_END:
        if (run.lent[to].session == message->flow.session)
            run.lent[to].session = 0;
        break;
    case WIRE_MERGE_SUMS_ASK:
        run.sums_session = message->merge_sums_ask.session;
        run.sums_node = to;
        break;
    default:
        CHECK(message->type == WIRE_MERGE_CREDIT);
    }
}

static void take_output(const struct merge_output *out)
{
    switch (out->kind) {
    case MERGE_SEND:
        check_send(out);
        return;
    case MERGE_READ:
        CHECK(node_of(&out->read.peer) != 0 && out->read.session);
        (void)owe(out);
        return;
    case MERGE_SUM:
        owe_sum(out);
        return;
    case MERGE_COMMIT:
        check_commit(out);
        return;
    case MERGE_HOLD:
        CHECK(run.holds != out->hold);
        run.holds = out->hold;
        return;
    case MERGE_BEGUN:
    case MERGE_ENDED:
        return;
    }
    CHECK(!"an output of no kind");
}

/* The step, and on while there is more. */
static void step(struct merge_input *input)
{
    struct merge_outputs out = {.more = true}, twin;

    for (unsigned steps = 0; out.more; *input = (struct merge_input){.kind = MERGE_TICK}) {
        input->now_ms = run.now_ms;
        int rc = merge_step(run.core, input, &out);

        CHECK(rc == 0 || rc == ERR_FULL);
        CHECK(merge_step(run.twin, input, &twin) == rc);
        CHECK(twin.count == out.count && twin.more == out.more);
        CHECK(out.count <= LIMIT_MERGE_OUTPUTS && ++steps < 5000);
        for (size_t i = 0; i < out.count; i++) {
            CHECK(out.list[i].kind == twin.list[i].kind);
            take_output(&out.list[i]);
        }
    }
    for (unsigned i = 0; i < NODES; i++)
        CHECK(run.holds || run.guest_until[i] <= run.now_ms);
    CHECK(merge_busy(run.core) <= 1 + LIMIT_MERGE_SERVED);
}

/* ---- What is said to it ---- */

/* What concerns a session in which we ask says nothing of one in which we give. */
static void hear(struct wire_message *message, unsigned from)
{
    struct merge_input input = {.kind = MERGE_MESSAGE};
    enum wire_type type = message->type;
    bool over = type == WIRE_MERGE_END &&
                (message->flow.end == WIRE_END_DONE || message->flow.end == WIRE_END_CANCEL);

    message->from = node_id(from);
    input.message = *message;
    if (type == WIRE_MERGE_ASK || type == WIRE_MERGE_SUMS_ASK || type == WIRE_MERGE_CREDIT) {
        run.heard_ms[from] = run.now_ms;
        if (run.guest_until[from] > run.now_ms)
            run.guest_until[from] = run.now_ms + MERGE_GUEST_MS;
    }
    if (over) {
        run.guest_until[from] = 0;
        run.lent[from].released = true;
    }
    step(&input);
}

/* Some part of what a session gives: a page of its vector, or a chunk. */
static void say_part(struct feed *feed)
{
    const struct plan *p = &run.plans[feed_number(feed, 1) % PLANS];
    unsigned part = (unsigned)feed_number(feed, 1) % (PARTS + 2);
    struct wire_message message = {.type = WIRE_MERGE_CHUNK};
    struct buf list = {0};

    if (p->session == 0 || part >= p->parts + 2)
        return;
    if (part < 2) {
        for (unsigned i = part * ORIGINS / 2; i < (part + 1) * ORIGINS / 2; i++)
            if (p->seq[i])
                wire_merge_run_add(&list, &(struct wire_merge_run){.origin = origin_id(i),
                                                                   .node = node_id(1),
                                                                   .seq = p->seq[i],
                                                                   .ended = i & 1});
        CHECK(buf_check(&list) == 0);
        message.type = WIRE_MERGE_VECTOR;
        message.merge_vector = (struct wire_merge_vector){
            p->session, part, part == 1, {list.data, (uint32_t)list.len}};
    } else {
        part -= 2;
        message.merge_chunk = (struct wire_merge_chunk){
            .session = p->session,
            .number = part,
            .through = p->end[part],
            .last = part == p->parts - 1,
            .data = framed(p->bytes[part], (uint8_t)(p - run.plans), (uint8_t)part)};
    }
    hear(&message, p->node);
    buf_release(&list);
}

static void say_ask(struct feed *feed, unsigned from)
{
    unsigned what = (unsigned)feed_number(feed, 1);
    struct wire_message message = {.type = WIRE_MERGE_ASK};
    struct lent *lent = &run.lent[from];

    message.merge_ask = (struct wire_merge_ask){.session = 1 + what % 8,
                                                .whole = what >> 3 & 1,
                                                .after = place(what >> 4 & 3),
                                                .through = place(what & 64 ? PLACES : 9),
                                                .credit_bytes = feed_number(feed, 3)};
    if (lent->session != message.merge_ask.session) {
        uint64_t credit = message.merge_ask.credit_bytes;

        *lent = (struct lent){.session = message.merge_ask.session,
                              .credit = credit < MERGE_CREDIT_BYTES ? credit : MERGE_CREDIT_BYTES,
                              .whole = message.merge_ask.whole,
                              .after = message.merge_ask.after};
    }
    hear(&message, from);
}

static void say_sums_ask(struct feed *feed, unsigned from)
{
    unsigned what = (unsigned)feed_number(feed, 1);
    struct wire_message message = {.type = WIRE_MERGE_SUMS_ASK};
    struct buf fences = {0};

    for (unsigned at = 1 + (what >> 4); at <= PLACES; at += 1 + what % 3) {
        struct id128 id = place(at);

        buf_add(&fences, id.bytes, sizeof id.bytes);
    }
    CHECK(buf_check(&fences) == 0);
    message.merge_sums_ask = (struct wire_merge_sums_ask){
        .session = 1 + what % 8, .fences = {fences.data, (uint32_t)fences.len}};
    if (run.lent[from].session != message.merge_sums_ask.session)
        run.lent[from] = (struct lent){.session = message.merge_sums_ask.session,
                                       .fences = wire_fence_count(message.merge_sums_ask.fences)};
    hear(&message, from);
    buf_release(&fences);
}

static void say_flow(struct feed *feed, unsigned from, enum wire_type type)
{
    unsigned what = (unsigned)feed_number(feed, 1);
    struct wire_message message = {.type = type};
    struct lent *lent = &run.lent[from];

    message.flow.session = what & 128 ? run.plans[what % PLANS].session : 1 + what % 8;
    if (message.flow.session == 0)
        return;
    if (type == WIRE_MERGE_CREDIT)
        message.flow.bytes = feed_number(feed, what & 64 ? 8 : 3);
    else
        message.flow.end = (uint8_t)(what >> 3) % 7;
    if (lent->session == message.flow.session) {
        uint64_t more =
            message.flow.bytes < MERGE_CREDIT_BYTES ? message.flow.bytes : MERGE_CREDIT_BYTES;

        lent->credit =
            lent->credit + more < MERGE_CREDIT_BYTES ? lent->credit + more : MERGE_CREDIT_BYTES;
        if (type == WIRE_MERGE_END)
            lent->session = 0;
    }
    hear(&message, from);
}

/* An answer to our last question for sums, mostly by whom we asked. */
static void say_sums(struct feed *feed, unsigned other)
{
    unsigned what = (unsigned)feed_number(feed, 1), count = 1 + what % 20;
    struct wire_message message = {.type = WIRE_MERGE_SUMS};
    struct buf sums = {0};

    for (unsigned i = 0; i < count; i++) {
        const struct wire_sum sum = {{i, what}, what & 32 ? DB_FENCE_MANY : what % 7 * 10};

        wire_sum_add(&sums, &sum);
    }
    CHECK(buf_check(&sums) == 0);
    message.merge_sums = (struct wire_merge_sums){.session = run.sums_session,
                                                  .first = what & 64 ? what : 0,
                                                  .sums = {sums.data, (uint32_t)sums.len}};
    if (run.sums_session)
        hear(&message, what & 128 ? other : run.sums_node);
    buf_release(&sums);
}

/* Bytes that are a message, or none, of a peer that nobody asks. */
static void say_bytes(struct feed *feed)
{
    size_t got, len = feed_number(feed, 1);
    const uint8_t *bytes = feed_some(feed, len, &got);
    struct wire_message message;

    if (wire_decode(&message, bytes, got) != 0 || message.type == WIRE_MERGE_ASK ||
        message.type == WIRE_MERGE_SUMS_ASK || message.type == WIRE_MERGE_CREDIT ||
        message.type == WIRE_MERGE_END)
        return;
    hear(&message, NODES - 1);
}

/* ---- Answers to what it wants done ---- */

static void answer_read(struct feed *feed, const struct merge_read *read, int rc)
{
    struct merge_input input = {.kind = MERGE_READ_DONE, .read_done = {.read = *read, .rc = rc}};
    unsigned what = (unsigned)feed_number(feed, 1);
    uint32_t len = what & 64 ? LIMIT_WIRE_MERGE_BYTES + (what & 1) : what * 40;
    struct id128 last = read->part == MERGE_ROWS ? read->through : db_last_id, next = {{0}};

    for (unsigned at = 0; what & 128 && at < PLACES; at++) {
        next = place(at);
        if (id_compare(&next, &read->after) > 0)
            break;
    }
    if (id_compare(&next, &read->after) > 0 && id_compare(&next, &last) < 0)
        last = next;
    input.read_done.last = last;
    input.read_done.data = framed(len && len < LEAST ? LEAST : len, 0, 0);
    step(&input);
}

static void answer_sum(struct feed *feed, const struct owed *owed, int rc)
{
    const struct merge_sum *sum = &owed->out.sum;
    static struct db_fence fences[LIMIT_WIRE_FENCES];
    struct merge_input input = {.kind = MERGE_SUMMED};
    unsigned what = (unsigned)feed_number(feed, 1);
    size_t most = owed->fence_count ? owed->fence_count : 1 + what % 20, count = 0;

    for (unsigned i = 0; count < most; i++) {
        struct id128 id = owed->fence_count ? owed->fences[count] : place(i);

        if (!owed->fence_count &&
            (id_compare(&id, &sum->after) <= 0 || id_compare(&id, &sum->through) > 0)) {
            if (i < PLACES)
                continue;
            id = sum->through; /* there is no place between the two */
            most = count + 1;
        }
        fences[count] =
            (struct db_fence){.id = id, .count = what % 90, .sum = {what & 1 ? count : what, what}};
        count++;
        if (id_equal(&id, &sum->through) && !owed->fence_count)
            break;
    }
    if (owed->fence_count && what & 128)
        count = 1 + what % owed->fence_count;
    input.summed.peer = sum->peer;
    input.summed.session = sum->session;
    input.summed.fences = fences;
    input.summed.count = count;
    input.summed.rc = rc;
    step(&input);
}

static void answer_commit(const struct owed *owed, int rc)
{
    struct merge_input input = {.kind = MERGE_COMMITTED, .committed = {owed->out.commit.token, rc}};

    for (unsigned i = 0; rc == 0 && owed->plan != NO_PLAN && i < PLANS; i++)
        if (run.plans[i].session && run.plans[i].number == owed->plan)
            run.plans[i].durable[owed->part] = true;
    step(&input);
}

static void answer(struct feed *feed)
{
    static const int codes[] = {0, 0, 0, 0, 0, 0, ERR_IO, ERR_FULL, ERR_INVALID, ERR_NO_MEMORY};
    static struct owed it;
    unsigned what = (unsigned)feed_number(feed, 1);
    int rc = codes[feed_number(feed, 1) % 10];

    if (run.owed_count == 0)
        return;
    size_t at = what % run.owed_count;
    for (size_t i = 0; run.owed[at].out.kind == MERGE_COMMIT && i < at; i++)
        if (run.owed[i].out.kind == MERGE_COMMIT)
            at = i; /* commits end in their order */
    it = run.owed[at];
    memmove(run.owed + at, run.owed + at + 1, (--run.owed_count - at) * sizeof *run.owed);
    if (it.out.kind == MERGE_READ)
        answer_read(feed, &it.out.read, rc);
    else if (it.out.kind == MERGE_SUM)
        answer_sum(feed, &it, rc);
    else
        answer_commit(&it, rc);
}

static void local(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1);
    const struct vector_run it = {.origin = origin_id(what % ORIGINS),
                                  .node = node_id(1),
                                  .seq = 1 + feed_number(feed, 1) % 60,
                                  .ended = what >> 6 & 1,
                                  .frozen = (what >> 3) % 8 == 7};

    CHECK(vector_raise(run.vector, &it, NULL) == 0);
}

static void run_step(struct feed *feed)
{
    unsigned what = (unsigned)feed_number(feed, 1), node = 1 + (what >> 4) % (NODES - 1);
    struct merge_input input = {.kind = MERGE_TICK};

    run.now_ms += feed_number(feed, 1) << (what >> 6 << 2);
    switch (what % 16) {
    case 0:
        local(feed);
        return;
    case 1:
        input.kind = MERGE_PEER;
        input.peer.node = node_id(node);
        input.peer.alive = !(what & 128);
        if (run.alive[node] && !input.peer.alive)
            run.lent[node].session = 0;
        run.alive[node] = input.peer.alive;
        break;
    case 2:
        input.kind = MERGE_BEHIND;
        input.behind = node_id(node);
        break;
    case 3:
        input.kind = MERGE_COMPARE;
        input.compare.node = node_id(node);
        input.compare.equal = what & 128;
        input.compare.rows = what * 100;
        break;
    case 4:
    case 5:
    case 6:
        say_part(feed);
        return;
    case 7:
    case 8:
    case 9:
        answer(feed);
        return;
    case 10:
        say_ask(feed, node);
        return;
    case 11:
        say_flow(feed, node, what & 128 ? WIRE_MERGE_END : WIRE_MERGE_CREDIT);
        return;
    case 12:
        say_sums_ask(feed, node);
        return;
    case 13:
        say_sums(feed, node);
        return;
    case 14:
        say_bytes(feed);
        return;
    default:
        break;
    }
    step(&input);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    struct merge_config config = {.self = node_id(0), .seed = feed_number(&feed, 2)};
    struct merge_input own = {.kind = MERGE_OWN, .own = origin_id(OWN)};

    memset(&run, 0, sizeof run);
    run.now_ms = 100000;
    CHECK(vector_create(&run.vector, ORIGINS, 7) == 0);
    config.vector = run.vector;
    CHECK(merge_create(&run.core, &config) == 0);
    CHECK(merge_create(&run.twin, &config) == 0);
    step(&own);
    while (feed.left > 0)
        run_step(&feed);
    merge_destroy(&run.core);
    merge_destroy(&run.twin);
    vector_destroy(&run.vector);
    return 0;
}
