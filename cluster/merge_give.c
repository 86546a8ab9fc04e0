/*
 * Giving our rows to whoever asks for them.
 *
 * Nothing is kept of a session but where it stands: each chunk is read when there is credit for it,
 * in a transaction of its own, and sent. Where the asker wants all (whole), our vector goes first,
 * page by page: everything that is read later knows at least that. Members come before rows, and so
 * do the events that are in no row, which whoever adopts our vector could not get afterwards.
 *
 *   PAGES -> MEMBERS -> EVENTS -> ROWS -> over    whole, from the first id on
 *   PAGES -> ROWS -> over                         whole, the rest of it
 *   ROWS -> over                                  a range
 *   SUMS -> over
 *
 * Who was given a vector is a guest: our caller keeps the events above it (merge.c's hold) until
 * the guest says that it has adopted it (END, done), wants no more (cancel), or is silent too long.
 * A session may end, or be lost, long before that.
 *
 * Nothing from the asker for MERGE_SERVE_MS: the session is dropped. A read that fails ends it.
 */
#include "cluster/merge_internal.h"

#include <assert.h>
#include <string.h>

static struct given *find_given(struct merge *core, const struct id128 *peer, uint64_t session)
{
    for (size_t i = 0; session && i < LIMIT_MERGE_SERVED; i++) {
        struct given *g = &core->given[i];

        if (g->session == session && id_equal(&g->peer, peer))
            return g;
    }
    return NULL;
}

static void drop(struct given *g)
{
    buf_release(&g->fences);
    *g = (struct given){0};
}

void merge_give_release(struct merge *core)
{
    for (size_t i = 0; i < LIMIT_MERGE_SERVED; i++)
        drop(&core->given[i]);
}

void merge_give_peer_gone(struct merge *core, const struct id128 *peer)
{
    for (size_t i = 0; i < LIMIT_MERGE_SERVED; i++)
        if (core->given[i].session && id_equal(&core->given[i].peer, peer))
            drop(&core->given[i]);
}

static void end(struct merge *core, struct given *g, enum wire_end code)
{
    merge_send_flow(core, &g->peer, WIRE_MERGE_END, g->session, 0, code);
    drop(g);
}

/* A peer has one session: a new question takes the old one's place. */
static struct given *place_for(struct merge *core, const struct id128 *peer)
{
    struct given *place = NULL;

    for (size_t i = 0; i < LIMIT_MERGE_SERVED; i++) {
        struct given *g = &core->given[i];

        if (g->session && id_equal(&g->peer, peer)) {
            drop(g);
            return g;
        }
        if (!g->session && !place)
            place = g;
    }
    return place;
}

static struct given *begin(struct merge *core, const struct id128 *peer, uint64_t session)
{
    struct given *g = merge_mate(core, peer) ? place_for(core, peer) : NULL;

    if (!g) {
        merge_send_flow(core, peer, WIRE_MERGE_END, session, 0, WIRE_END_BUSY);
        return NULL;
    }
    *g = (struct given){.session = session, .peer = *peer, .progress_ms = core->now_ms};
    core->stats.served++;
    return g;
}

static uint64_t believed(uint64_t credit)
{
    return credit < MERGE_CREDIT_BYTES ? credit : MERGE_CREDIT_BYTES;
}

static void ask(struct merge *core, const struct wire_message *message)
{
    const struct wire_merge_ask *ask = &message->merge_ask;

    if (find_given(core, &message->from, ask->session)) {
        core->stats.ignored++; /* once more the same */
        return;
    }
    struct given *g = begin(core, &message->from, ask->session);
    if (!g)
        return;
    g->state = ask->whole ? GIVE_PAGES : GIVE_ROWS;
    g->after = g->first = ask->after;
    g->through = ask->through;
    g->credit = believed(ask->credit_bytes);
    if (ask->whole)
        merge_mate(core, &message->from)->guest_until = core->now_ms + MERGE_GUEST_MS;
}

static int sums_ask(struct merge *core, const struct wire_message *message)
{
    const struct wire_merge_sums_ask *ask = &message->merge_sums_ask;

    if (find_given(core, &message->from, ask->session)) {
        core->stats.ignored++;
        return 0;
    }
    struct given *g = begin(core, &message->from, ask->session);
    if (!g)
        return 0;
    g->state = GIVE_SUMS;
    g->after = ask->after;
    buf_add(&g->fences, ask->fences.ptr, ask->fences.len);
    int rc = buf_check(&g->fences);
    if (rc)
        end(core, g, WIRE_END_BUSY);
    return rc;
}

static void credit(struct merge *core, const struct wire_message *message)
{
    struct given *g = find_given(core, &message->from, message->flow.session);

    if (!g)
        return; /* what is last is sent on credit that comes back later */
    g->credit = believed(g->credit + believed(message->flow.bytes));
    g->progress_ms = core->now_ms;
}

static void ended(struct merge *core, const struct wire_message *message)
{
    struct mate *mate = merge_mate(core, &message->from);
    struct given *g = find_given(core, &message->from, message->flow.session);

    if (g)
        drop(g);
    if (mate && (message->flow.end == WIRE_END_DONE || message->flow.end == WIRE_END_CANCEL))
        mate->guest_until = 0;
}

int merge_give_message(struct merge *core, const struct wire_message *message)
{
    struct mate *mate = merge_mate(core, &message->from);

    if (mate && mate->guest_until)
        mate->guest_until = core->now_ms + MERGE_GUEST_MS;
    switch (message->type) {
    case WIRE_MERGE_ASK:
        ask(core, message);
        return 0;
    case WIRE_MERGE_SUMS_ASK:
        return sums_ask(core, message);
    case WIRE_MERGE_CREDIT:
        credit(core, message);
        return 0;
    case WIRE_MERGE_END:
        ended(core, message);
        return 0;
    default:
        core->stats.ignored++;
        return 0;
    }
}

/* ---- What was read ---- */

static enum merge_part part_of(const struct given *g)
{
    return g->state == GIVE_MEMBERS  ? MERGE_MEMBERS
           : g->state == GIVE_EVENTS ? MERGE_EVENTS
                                     : MERGE_ROWS;
}

void merge_give_read_done(struct merge *core, const struct merge_read_done *done)
{
    struct given *g = find_given(core, &done->read.peer, done->read.session);

    /* A peer may give another question the number of the one that this was read for. */
    if (!g || !g->reading || g->state == GIVE_SUMS || part_of(g) != done->read.part ||
        !id_equal(&g->after, &done->read.after))
        return;
    g->reading = false;
    if (done->rc || done->data.len > LIMIT_WIRE_MERGE_BYTES) {
        end(core, g,
            done->rc == ERR_FULL || done->rc == ERR_NO_MEMORY ? WIRE_END_BUSY : WIRE_END_DAMAGED);
        return;
    }
    bool rows = g->state == GIVE_ROWS;
    bool last = rows && id_equal(&done->last, &g->through);
    uint64_t charge = merge_charge(done->data.len);
    struct wire_message *message = merge_send(core, &g->peer, WIRE_MERGE_CHUNK);

    message->merge_chunk = (struct wire_merge_chunk){
        .session = g->session, .number = g->number++, .last = last, .data = done->data};
    if (rows)
        message->merge_chunk.through = done->last;
    g->credit -= charge < g->credit ? charge : g->credit;
    g->after = done->last;
    core->stats.bytes_out += done->data.len;
    core->stats.rows_out += merge_row_count(done->data);
    if (!rows && id_equal(&done->last, &db_last_id)) {
        static const struct id128 zero;

        g->after = g->state == GIVE_MEMBERS ? zero : g->first;
        g->state = g->state == GIVE_MEMBERS ? GIVE_EVENTS : GIVE_ROWS;
    }
    if (last)
        drop(g);
}

void merge_give_summed(struct merge *core, const struct merge_summed *summed)
{
    struct given *g = find_given(core, &summed->peer, summed->session);

    if (!g || !g->reading || g->state != GIVE_SUMS)
        return;
    struct text fences = {g->fences.data, (uint32_t)g->fences.len};
    size_t left = wire_fence_count(fences) - g->fence_next;

    g->reading = false;
    if (summed->rc || summed->count == 0 || summed->count > left) {
        end(core, g, WIRE_END_DAMAGED);
        return;
    }
    buf_reset(&core->sums);
    for (size_t i = 0; i < summed->count; i++) {
        const struct wire_sum sum = {summed->fences[i].sum, summed->fences[i].count};

        wire_sum_add(&core->sums, &sum);
    }
    if (buf_check(&core->sums) != 0) {
        end(core, g, WIRE_END_BUSY);
        return;
    }
    struct wire_message *message = merge_send(core, &g->peer, WIRE_MERGE_SUMS);

    message->merge_sums = (struct wire_merge_sums){
        g->session, (uint32_t)g->fence_next, {core->sums.data, (uint32_t)core->sums.len}};
    g->fence_next += summed->count;
    g->after = wire_fence_at(fences, g->fence_next - 1);
    g->progress_ms = core->now_ms;
    if (summed->count == left)
        drop(g);
}

/* ---- Going on ---- */

static void send_page(struct merge *core, struct given *g)
{
    const struct vector_run *run = NULL;
    struct buf *list = merge_list(core);
    size_t count = 0;

    if (!list)
        return;
    run = vector_after(core->vector, g->page ? &g->page_after : NULL, VECTOR_ALL);
    for (; run && count < LIMIT_WIRE_MERGE_RUNS;
         run = vector_after(core->vector, &g->page_after, VECTOR_ALL)) {
        struct wire_merge_run entry = {
            .origin = run->origin, .node = run->node, .seq = run->seq, .ended = run->ended};

        memcpy(entry.hash, run->hash, SHA256_BYTES);
        g->page_after = run->origin;
        if (run->frozen || run->seq == 0)
            continue;
        wire_merge_run_add(list, &entry);
        count++;
    }
    if (buf_check(list) != 0) {
        end(core, g, WIRE_END_BUSY);
        return;
    }
    struct wire_message *message = merge_send(core, &g->peer, WIRE_MERGE_VECTOR);
    uint64_t charge = merge_charge(list->len);

    message->merge_vector = (struct wire_merge_vector){
        g->session, g->page++, run == NULL, {list->data, (uint32_t)list->len}};
    g->credit -= charge < g->credit ? charge : g->credit;
    if (!run)
        g->state = id_is_zero(&g->first) ? GIVE_MEMBERS : GIVE_ROWS;
}

static void read_on(struct merge *core, struct given *g)
{
    g->reading = true;
    if (g->state == GIVE_SUMS) {
        struct merge_sum *sum = &merge_emit(core, MERGE_SUM)->sum;
        size_t skipped = g->fence_next * sizeof(struct id128);

        *sum = (struct merge_sum){
            .peer = g->peer,
            .session = g->session,
            .after = g->after,
            .fences = {g->fences.data + skipped, (uint32_t)(g->fences.len - skipped)}};
        return;
    }
    merge_emit(core, MERGE_READ)->read = (struct merge_read){.peer = g->peer,
                                                             .session = g->session,
                                                             .part = part_of(g),
                                                             .after = g->after,
                                                             .through = g->through};
}

void merge_give_pump(struct merge *core)
{
    for (size_t i = 0; i < LIMIT_MERGE_SERVED; i++) {
        struct given *g = &core->given[i];

        if (!g->session || !merge_room(core))
            continue;
        if (core->now_ms - g->progress_ms >= MERGE_SERVE_MS) {
            core->stats.timeouts++;
            end(core, g, WIRE_END_UNKNOWN);
            continue;
        }
        if (g->reading || (g->credit == 0 && g->state != GIVE_SUMS))
            continue;
        if (g->state == GIVE_PAGES) {
            send_page(core, g);
            core->more |= g->session != 0; /* the next one, or the first chunk */
        } else {
            read_on(core, g);
        }
    }
}
