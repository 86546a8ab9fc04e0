/*
 * The node under test, driven by steps, and its clients' requests.
 *
 * A request is answered in done(), where the model says what the answer has to be. Where a call was
 * made to fail, the journal may refuse instead; whether such a request has happened is open only
 * where the log is poisoned (a failed sync), and is settled at the next start.
 */
#include "base/hash.h"
#include "journal/journal_internal.h"
#include "storage/log_internal.h"
#include "tests/sim/sim.h"

#include <stdlib.h>

/* ---- Start and stop ---- */

/* So many bytes of events are worth a snapshot: a few events each; one seed in four makes none. */
static uint64_t compact_bytes(const struct sim *sim)
{
    static const uint64_t choice[] = {600, 250, 2000, 1 * GIB};

    return choice[sim->seed / 2 % 4]; /* odd seeds have faults, even ones have none */
}

int node_open(struct sim *sim)
{
    struct journal_config config = {.dirs = &sim->dirs,
                                    .sync = true,
                                    .segment_bytes = 64 * KIB,
                                    .compact_bytes = compact_bytes(sim)};
    int rc;

    sim->journal = NULL;
    sim->ram = NULL;
    sim->reader = NULL;
    rc = store_dirs_open(&sim->dirs, &sim->env, SIM_STATE, SIM_FILES, false, sim->message,
                         sizeof sim->message);
    if (rc)
        return rc;
    if (ram_create(&sim->ram, 1 * MIB) != 0)
        abort();
    config.ram = sim->ram;
    rc = journal_open(&sim->journal, &config, sim->message, sizeof sim->message);
    if (rc == 0)
        rc = journal_reader_open(sim->journal, &sim->reader);
    atomic_fetch_add(&sim->counts->restarts, 1);
    return rc;
}

static void forget_slow(struct sim *sim, unsigned slot)
{
    object_destroy(&sim->slow[slot].object);
    large_reader_close(&sim->slow[slot].file);
}

static void node_free(struct sim *sim)
{
    for (unsigned i = 0; i < SIM_SLOW_READERS; i++)
        forget_slow(sim, i);
    db_reader_close(&sim->reader);
    if (sim->journal) {
        atomic_fetch_add(&sim->counts->moved, sim->journal->moved_records);
        atomic_fetch_add(&sim->counts->cleaned, sim->journal->cleaned_segments);
        atomic_fetch_add(&sim->counts->snapshots, atomic_load(&sim->journal->snapshot_count));
        atomic_fetch_add(&sim->counts->compacted, atomic_load(&sim->journal->compacted_events));
    }
    journal_close(&sim->journal);
    if (sim->ram)
        ram_destroy(&sim->ram);
    store_dirs_close(&sim->dirs);
}

static void free_request(struct sim_request *request)
{
    object_destroy(&request->change.object);
    large_writer_destroy(&request->writer, !request->change.stored);
    free(request->body);
    free(request);
}

static void free_requests(struct sim *sim, bool remember)
{
    if (!remember)
        sim->lost_count = 0;
    while (sim->first) {
        struct sim_request *request = sim->first;

        sim->first = request->next;
        if (remember && sim->lost_count < sizeof sim->lost / sizeof *sim->lost)
            sim->lost[sim->lost_count++] = request->wish;
        sim->lost_to_faults |= sim->faulted;
        free_request(request);
    }
    sim->last = NULL;
    sim->open_requests = 0;
}

void node_stop(struct sim *sim)
{
    journal_stop(sim->journal);
    if (sim->disk->dead)
        return; /* the caller sees to it */
    free_requests(sim, true);
    conflict_abandon(sim);
    node_free(sim);
}

void node_abandon(struct sim *sim)
{
    struct journal *journal = sim->journal;

    if (journal) {
        /* Nothing reaches the disk any more; this only frees what is queued. */
        for (int i = 0; i < 64 && journal_commit_step(journal); i++)
            ;
    }
    free_requests(sim, true);
    conflict_abandon(sim);
    node_free(sim);
    sim->retry_id = -1;
}

/* ---- Requests ---- */

static bool is_refusal(int rc)
{
    return rc == ERR_IO || rc == ERR_NO_SPACE || rc == ERR_READ_ONLY;
}

static void forget(struct sim *sim, struct sim_request *request)
{
    struct sim_request **at = &sim->first, *before = NULL;

    while (*at != request) {
        before = *at;
        at = &(*at)->next;
    }
    *at = request->next;
    if (sim->last == request)
        sim->last = before;
    sim->open_requests--;
    free_request(request);
}

static void done(struct change *change)
{
    struct sim_request *request = (struct sim_request *)change;
    struct sim *sim = request->sim;
    struct fact *fact = &sim->facts[request->wish.id], after;
    struct sim_request *oldest = sim->first;

    if (sim->disk->dead)
        return; /* nobody hears it; node_abandon frees it */
    atomic_fetch_add(&sim->counts->answers, 1);
    while (oldest && oldest->limbo)
        oldest = oldest->next;
    if (oldest != request)
        sim_fail(sim, "answers come out of order");
    int expected = model_expect(fact, &request->wish, &after);

    if (change->rc == expected) {
        if (expected == 0)
            *fact = after;
        if (expected == ERR_UNVERIFIED) {
            sim->retry_id = (int)request->wish.id;
            sim->retry_variant = request->wish.variant;
        }
    } else if (change->rc == ERR_UNVERIFIED && request->wish.kind == CHANGE_PUT &&
               fact->kind == FACT_LIVE && expected == 0) {
        sim->retry_id = (int)request->wish.id; /* the copy has moved since */
        sim->retry_variant = request->wish.variant;
    } else if (is_refusal(change->rc) && sim->faulted) {
        if (atomic_load(&sim->journal->log->poisoned) && change->rc != ERR_READ_ONLY) {
            /* As a door does: what was refused is thrown away, its large file as well. */
            large_writer_destroy(&request->writer, !change->stored);
            request->limbo = true;
            return;
        }
    } else {
        char text[80];

        sim_fail(sim, "request of kind %d for id %u (%s): answered %d (%s), expected %d (%s)",
                 (int)request->wish.kind, request->wish.id, fact_text(fact, text), change->rc,
                 err_text(change->rc), expected, err_text(expected));
    }
    forget(sim, request);
}

/* A large file with the body of REQUEST. False: the disk did not take it. */
static bool write_large(struct sim *sim, struct sim_request *request)
{
    size_t size = request->change.request.size, at = 0;
    uint64_t written;
    int rc = large_create(&request->writer, journal_large(sim->journal));

    while (rc == 0 && at < size) {
        size_t step = 1 + (size_t)sim_roll(sim, 100000);

        if (step > size - at)
            step = size - at;
        rc = large_write(request->writer, request->body + at, step);
        at += step;
    }
    if (rc == 0)
        rc = large_finish(request->writer, &request->change.file, &written,
                          &request->change.trailer);
    if (rc && !sim->faulted)
        sim_fail(sim, "a large body was not written: %s", err_text(rc));
    return rc == 0;
}

static bool prepare_put(struct sim *sim, struct sim_request *request)
{
    struct change *change = &request->change;
    const struct wish *wish = &request->wish;
    size_t size = model_size(wish->id, wish->variant);

    change->request.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL | EVENT_HAS_NAME;
    change->request.size = size;
    change->request.level = (uint8_t)wish->level;
    change->request.name = (struct text){model_name(wish->name), 2};
    memcpy(change->request.sha256, model_sha256(wish->id, wish->variant), SHA256_BYTES);
    request->body = malloc(size + 8);
    if (!request->body)
        abort();
    model_body(wish->id, wish->variant, request->body);
    if (model_large(wish->id, wish->variant))
        return write_large(sim, request);
    change->body = request->body;
    for (uint64_t i = 0; i < block_count(size); i++) {
        size_t left = size - (size_t)(i * BLOCK_BYTES);

        change->sums[i] = block_checksum(request->body + i * BLOCK_BYTES,
                                         left < BLOCK_BYTES ? left : BLOCK_BYTES, i);
    }
    return true;
}

static struct sim_request *new_request(struct sim *sim, const struct wish *wish)
{
    struct sim_request *request = calloc(1, sizeof *request);

    if (!request)
        abort();
    request->sim = sim;
    request->wish = *wish;
    request->change.done = done;
    request->change.request.kind = wish->kind;
    request->change.request.id = model_id(wish->id);
    return request;
}

static void prepare_cloud(struct sim_request *sim_request)
{
    struct request *request = &sim_request->change.request;
    const struct wish *wish = &sim_request->wish;
    const char *place = model_place(wish->id, wish->variant, sim_request->place);

    request->fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256;
    request->cloud_state = (uint8_t)wish->cloud_state;
    request->backend = (struct text){"sim", 3};
    request->key = request->etag = (struct text){place, (uint32_t)strlen(place)};
    memcpy(request->sha256, model_sha256(wish->id, wish->variant), SHA256_BYTES);
}

static void submit(struct sim *sim, struct sim_request *request)
{
    if (sim->last)
        sim->last->next = request;
    else
        sim->first = request;
    sim->last = request;
    sim->open_requests++;
    int rc = journal_submit(sim->journal, &request->change);
    if (rc == 0)
        return;
    if (!is_refusal(rc) || !sim->faulted)
        sim_fail(sim, "a request was not queued: %s", err_text(rc));
    forget(sim, request);
}

void node_submit(struct sim *sim, const struct wish *wish)
{
    struct sim_request *request = new_request(sim, wish);

    if (wish->kind == CHANGE_PUT && !prepare_put(sim, request)) {
        free_request(request);
        return;
    }
    if (wish->kind == CHANGE_META) {
        if (wish->has_level)
            request->change.request.fields |= EVENT_HAS_LEVEL;
        if (wish->has_name)
            request->change.request.fields |= EVENT_HAS_NAME;
        request->change.request.level = (uint8_t)wish->level;
        request->change.request.name = (struct text){model_name(wish->name), 2};
    }
    request->change.request.purge = wish->purge;
    if (wish->kind == CHANGE_CLOUD)
        prepare_cloud(request);
    submit(sim, request);
}

void node_retry(struct sim *sim)
{
    struct wish wish = {.kind = CHANGE_PUT, .id = (unsigned)sim->retry_id, .verified = true};
    struct id128 id = model_id(wish.id);
    struct object *object;

    wish.variant = sim->retry_variant;
    sim->retry_id = -1;
    if (journal_find(sim->journal, sim->reader, &id, &object) != 0)
        return;
    if (!(object->flags & OBJECT_DELETED) && node_read(sim, wish.id, object) == 0) {
        struct sim_request *request = new_request(sim, &wish);

        wish.level = request->wish.level = (unsigned)sim_roll(sim, 3);
        wish.name = request->wish.name = (unsigned)sim_roll(sim, 8);
        if (prepare_put(sim, request)) {
            request->change.request.verified = true;
            request->change.request.checked = object->place;
            submit(sim, request);
        } else {
            free_request(request);
        }
    }
    object_destroy(&object);
}

/* ---- Reading ---- */

static int read_blocks(struct sim *sim, struct large_reader *reader, uint64_t size,
                       const uint8_t *want)
{
    static uint8_t buf[BLOCK_BYTES];
    int rc = ERR_NONE;

    for (uint64_t i = 0; rc == 0 && i < block_count(size); i++) {
        size_t len = 0;

        rc = large_read_block(reader, i, buf, &len, false);
        if (rc == 0 && memcmp(buf, want + i * BLOCK_BYTES, len) != 0)
            sim_fail(sim, "wrong bytes in a large file");
    }
    return rc;
}

static int read_large(struct sim *sim, const struct object *object, const uint8_t *want)
{
    struct large_reader *reader;
    int rc =
        large_reader_open(&reader, journal_large(sim->journal), object->place.offset, object->size);

    if (rc)
        return rc;
    rc = read_blocks(sim, reader, object->size, want);
    large_reader_close(&reader);
    return rc;
}

int node_read(struct sim *sim, unsigned id, const struct object *object)
{
    static uint8_t want[SIM_BODY_BYTES], buf[RECORD_MAX_BYTES];
    struct record_view view;
    struct fact fact;
    int rc;

    if (!model_observe(id, object, &fact))
        sim_fail(sim, "id %u: a row that nobody asked for", id);
    model_body(id, fact.variant, want);
    if (place_is_none(&object->place))
        return ERR_NOT_FOUND;
    if (object->place.volume == PLACE_LARGE)
        return read_large(sim, object, want);
    rc = log_read(journal_log(sim->journal), &object->place, &object->id, object->record_bytes, buf,
                  sizeof buf, false, &view);
    if (rc)
        return rc;
    if (view.header.body_bytes != object->size || memcmp(view.body, want, object->size) != 0)
        sim_fail(sim, "id %u: wrong bytes", id);
    return 0;
}

/* Keep what a look-up of some id says, and sometimes its open file. */
static void begin_slowly(struct sim *sim, unsigned slot)
{
    unsigned id = (unsigned)sim_roll(sim, SIM_IDS);
    struct id128 key = model_id(id);
    struct object *object = NULL;
    struct fact fact;

    if (journal_find(sim->journal, sim->reader, &key, &object) != 0)
        return;
    if (object->flags & OBJECT_DELETED || place_is_none(&object->place) ||
        !model_observe(id, object, &fact)) {
        object_destroy(&object);
        return;
    }
    sim->slow[slot].object = object;
    sim->slow[slot].id = id;
    sim->slow[slot].variant = fact.variant;
    if (object->place.volume == PLACE_LARGE && sim_roll(sim, 2) &&
        large_reader_open(&sim->slow[slot].file, journal_large(sim->journal), object->place.offset,
                          object->size) != 0)
        sim->slow[slot].file = NULL;
}

void node_read_slowly(struct sim *sim)
{
    unsigned slot = (unsigned)sim_roll(sim, SIM_SLOW_READERS), id;
    static uint8_t want[SIM_BODY_BYTES];
    int rc;

    for (unsigned i = 0; i < SIM_SLOW_READERS && !sim->slow[slot].object && sim_roll(sim, 2); i++)
        slot = (slot + 1) % SIM_SLOW_READERS;
    id = sim->slow[slot].id;
    if (!sim->slow[slot].object) {
        begin_slowly(sim, slot);
        return;
    }
    if (sim->slow[slot].file) {
        model_body(id, sim->slow[slot].variant, want);
        rc = read_blocks(sim, sim->slow[slot].file, sim->slow[slot].object->size, want);
    } else {
        rc = node_read(sim, id, sim->slow[slot].object);
        /* Its segment or file may be gone by now: then the reader looks up again. */
        if (rc == ERR_NOT_FOUND)
            rc = 0;
    }
    if (rc && !sim->faulted)
        sim_fail(sim, "id %u, looked up earlier, cannot be read: %s", id, err_text(rc));
    atomic_fetch_add(&sim->counts->slow_reads, !sim->point_kind);
    forget_slow(sim, slot);
}
