/*
 * Conflicts in the simulator: ids of their own that are put here, and then, as on the other side of
 * a partition, by a peer whose events arrive later; sometimes they are deleted after that. Each
 * goes through these stages once, one request at a time:
 *
 *   nothing ─► put here ─► beaten by a peer's put ─► deleted
 *
 * Checked: what was acknowledged is there; and from the moment of the loss on the bytes that lost
 * can be read, at the place that the table of conflicts names, or as an object of its own. At a
 * run's end nothing is owed any more.
 */
#include "base/hash.h"
#include "journal/conflict.h"
#include "journal/db_conflict.h"
#include "journal/journal_internal.h"
#include "tests/sim/sim.h"

#include <stdlib.h>

/* Bodies are the model's, of the ids from 0 on: variant 0 here, 1 on the peer. */
struct conflict_request {
    struct change change; /* first */
    struct sim *sim;
    unsigned id;
    enum conflict_stage stage; /* that it leads to */
    uint8_t *body;
    struct large_writer *writer;
    struct buf event;
    bool answered;
};

static struct id128 fought_id(unsigned id)
{
    struct id128 out = {{0x01, 0x8b, 0xcf, 0xe5, 0x69}};

    out.bytes[15] = (uint8_t)(id + 1);
    return out;
}

static struct id128 loser_id(unsigned id)
{
    struct id128 fought = fought_id(id);

    return conflict_id(&fought, model_sha256(id, 0));
}

static const struct id128 peer_origin = {{2, 2, 2}}, peer_node = {{2, 2, 3}};

static void forget(struct sim *sim)
{
    struct conflict_request *request = sim->fight;

    if (!request)
        return;
    object_destroy(&request->change.object);
    large_writer_destroy(&request->writer, !request->change.stored);
    buf_release(&request->event);
    free(request->body);
    free(request);
    sim->fight = NULL;
}

void conflict_abandon(struct sim *sim)
{
    if (sim->fight && !sim->fight->answered)
        sim->fight_maybe = true; /* it may have happened: the next look tells */
    forget(sim);
}

static void answered(struct change *change)
{
    struct conflict_request *request = (struct conflict_request *)change;
    struct sim *sim = request->sim;

    if (sim->disk->dead)
        return; /* nobody hears it */
    request->answered = true;
    if (change->rc == 0)
        sim->fought[request->id] = request->stage;
    else if (!sim->faulted)
        sim_fail(sim, "fought id %u was refused: %s", request->id, err_text(change->rc));
    else
        sim->fight_maybe = true;
}

/* ---- The stages ---- */

static bool put_here(struct sim *sim, struct conflict_request *request)
{
    struct change *change = &request->change;
    size_t size = model_size(request->id, 0);
    uint64_t written;

    request->body = malloc(size + 8);
    if (!request->body)
        abort();
    model_body(request->id, 0, request->body);
    change->request.kind = CHANGE_PUT;
    change->request.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME;
    change->request.size = size;
    change->request.level = request->id % 3;
    change->request.name = (struct text){"here", 4};
    memcpy(change->request.sha256, model_sha256(request->id, 0), SHA256_BYTES);
    if (!model_large(request->id, 0)) {
        change->body = request->body;
        for (uint64_t i = 0; i < block_count(size); i++) {
            size_t left = size - (size_t)(i * BLOCK_BYTES);

            change->sums[i] = block_checksum(request->body + i * BLOCK_BYTES,
                                             left < BLOCK_BYTES ? left : BLOCK_BYTES, i);
        }
        return true;
    }
    int rc = large_create(&request->writer, journal_large(sim->journal));

    if (rc == 0)
        rc = large_write(request->writer, request->body, size);
    if (rc == 0)
        rc = large_finish(request->writer, &change->file, &written, &change->trailer);
    if (rc && !sim->faulted)
        sim_fail(sim, "a large body was not written: %s", err_text(rc));
    return rc == 0;
}

/* The peer's next event: a put that is later than ours. */
static bool put_there(struct sim *sim, struct conflict_request *request)
{
    struct head *head = heads_get(&sim->journal->committer.heads, &peer_origin);
    struct id128 id = fought_id(request->id);
    struct object *object = NULL;
    struct buf raw;

    if (!head || journal_find(sim->journal, sim->reader, &id, &object) != 0)
        return false;
    struct event event = {.origin = peer_origin,
                          .node = peer_node,
                          .seq = head->seq + 1,
                          .stamp = object->put_at.stamp + 1,
                          .kind = EVENT_PUT,
                          .id = id,
                          .fields =
                              EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME,
                          .size = model_size(request->id, 1),
                          .name = {"there", 5}};

    object_destroy(&object);
    memcpy(event.prev, head->hash, SHA256_BYTES);
    memcpy(event.sha256, model_sha256(request->id, 1), SHA256_BYTES);
    buf_init(&raw, LIMIT_EVENT_BYTES);
    event_encode(&raw, &event);
    uint32_t length = (uint32_t)raw.len;

    buf_add(&request->event, &length, sizeof length);
    buf_add(&request->event, raw.data, raw.len);
    if (buf_check(&raw) || buf_check(&request->event))
        abort();
    buf_release(&raw);
    request->change.request.kind = CHANGE_PEER;
    request->change.events = (const uint8_t *)request->event.data;
    request->change.events_bytes = request->event.len;
    return true;
}

void conflict_step(struct sim *sim)
{
    unsigned id = (unsigned)sim_roll(sim, SIM_FOUGHT);
    struct conflict_request *request;

    if (sim->fight && !sim->fight->answered)
        return;
    forget(sim);
    if (sim->fight_maybe || sim->fought[id] == FOUGHT_DELETED ||
        memcmp(model_sha256(id, 0), model_sha256(id, 1), SHA256_BYTES) == 0 ||
        (sim->fought[id] == FOUGHT_NONE && journal_room(sim->journal, model_size(id, 0)) != 0))
        return;
    if (sim->fought[id] == FOUGHT_LOST && sim_roll(sim, 3))
        return;
    request = calloc(1, sizeof *request);
    if (!request)
        abort();
    sim->fight = request;
    request->sim = sim;
    request->id = sim->fight_id = id;
    request->stage = sim->fought[id] + 1;
    request->change.done = answered;
    request->change.request.kind = CHANGE_DELETE;
    request->change.request.id = fought_id(id);
    buf_init(&request->event, 0);
    bool ready = request->stage == FOUGHT_HERE   ? put_here(sim, request)
                 : request->stage == FOUGHT_LOST ? put_there(sim, request)
                                                 : true;
    int rc = ready ? journal_submit(sim->journal, &request->change) : 0;

    if (rc && !sim->faulted)
        sim_fail(sim, "fought id %u was not queued: %s", id, err_text(rc));
    if (!ready || rc)
        forget(sim);
}

/* ---- What has to hold ---- */

static enum conflict_stage stage_of(unsigned id, const struct object *object)
{
    if (!object)
        return FOUGHT_NONE;
    if (object->flags & OBJECT_DELETED)
        return FOUGHT_DELETED;
    return memcmp(object->sha256, model_sha256(id, 0), SHA256_BYTES) == 0 ? FOUGHT_HERE
                                                                          : FOUGHT_LOST;
}

/* The bytes of variant 0 at OBJECT's place, in a record that bears OBJECT's id. */
static int read_body(struct sim *sim, unsigned id, const struct object *object)
{
    static uint8_t want[SIM_BODY_BYTES], buf[RECORD_MAX_BYTES];
    struct large_reader *reader;
    struct record_view view;
    int rc;

    model_body(id, 0, want);
    if (object->place.volume != PLACE_LARGE) {
        rc = log_read(journal_log(sim->journal), &object->place, &object->id, object->record_bytes,
                      buf, sizeof buf, false, &view);
        if (rc == 0 && (view.header.body_bytes != model_size(id, 0) ||
                        memcmp(view.body, want, model_size(id, 0)) != 0))
            sim_fail(sim, "fought id %u: wrong bytes", id);
        return rc;
    }
    rc =
        large_reader_open(&reader, journal_large(sim->journal), object->place.offset, object->size);
    for (uint64_t i = 0; rc == 0 && i < block_count(object->size); i++) {
        size_t len = 0;

        rc = large_read_block(reader, i, buf, &len, false);
        if (rc == 0 && memcmp(buf, want + i * BLOCK_BYTES, len) != 0)
            sim_fail(sim, "fought id %u: wrong bytes in a large file", id);
    }
    large_reader_close(&reader);
    return rc;
}

/* What lost: an object of its own, or kept. */
static void check_loser(struct sim *sim, unsigned id)
{
    struct id128 fought = fought_id(id), own = loser_id(id);
    struct db_conflict conflict = {.loser = NULL};
    struct object *object = NULL;
    int rc = journal_find(sim->journal, sim->reader, &own, &object);

    if (rc == ERR_NOT_FOUND) {
        rc = db_reader_conflict(sim->reader, &fought, model_sha256(id, 0), &conflict);
        object = conflict.loser;
    }
    if (rc == 0)
        rc = read_body(sim, id, object);
    if (rc)
        sim_fail(sim, "the bytes of fought id %u that lost cannot be read: %s", id, err_text(rc));
    object_destroy(&object);
}

void conflict_check(struct sim *sim, bool bodies)
{
    for (unsigned id = 0; id < SIM_FOUGHT && !sim->disk->dead; id++) {
        struct id128 fought = fought_id(id);
        struct object *object = NULL;
        int rc = journal_find(sim->journal, sim->reader, &fought, &object);

        if (rc && rc != ERR_NOT_FOUND)
            sim_fail(sim, "fought id %u cannot be looked up: %s", id, err_text(rc));
        enum conflict_stage stage = stage_of(id, object);

        if (sim->fight_maybe && id == sim->fight_id && stage == sim->fought[id] + 1)
            sim->fought[id] = stage;
        if (stage != sim->fought[id])
            sim_fail(sim, "fought id %u was at stage %d and is at %d", id, (int)sim->fought[id],
                     (int)stage);
        if (bodies && stage == FOUGHT_HERE && (rc = read_body(sim, id, object)) != 0)
            sim_fail(sim, "fought id %u cannot be read: %s", id, err_text(rc));
        object_destroy(&object);
        if (bodies && stage == FOUGHT_LOST)
            check_loser(sim, id);
    }
}

void conflict_settle_outcome(struct sim *sim)
{
    conflict_check(sim, false);
    if (!sim->disk->dead)
        sim->fight_maybe = false;
}

void conflict_check_end(struct sim *sim)
{
    struct journal_stats stats;

    for (int i = 0; i < 200 && !sim->disk->dead; i++) {
        (void)journal_upkeep_step(sim->journal);
        (void)journal_commit_step(sim->journal);
        (void)journal_apply_step(sim->journal);
        sim_pass_time(sim, 1000);
    }
    journal_stats(sim->journal, &stats);
    if (!sim->disk->dead && !sim->faulted && !stats.read_only && stats.losers)
        sim_fail(sim, "%llu bodies that lost are still owed", (unsigned long long)stats.losers);
    atomic_fetch_add(&sim->counts->reputs, sim->point_kind ? 0 : stats.reputs);
}
