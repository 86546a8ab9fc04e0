/*
 * One object of the bucket, on a thread of the import's pool.
 *
 *   known with this etag, or deleted ─► counted
 *   else ─► look ─┬─ SHA-256 known ────────────────────► CHANGE_ADOPT
 *                 └─ else GET, hashed, not kept ──────►
 *
 * Failure: what the cloud or the journal does not answer is tried again, with delays; then the
 * import ends. What the object itself has against being adopted is counted, and the first such
 * said.
 */
#include "cluster/cloud_import_internal.h"
#include "cluster/cloud_look.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void refuse(struct import_entry *entry, const char *why)
{
    struct cloud_import *import = entry->import;

    (void)pthread_mutex_lock(&import->lock);
    if (import->status.refused++ == 0)
        (void)snprintf(import->status.refusal, sizeof import->status.refusal, "%.*s: %s",
                       (int)(entry->key_len < 128 ? entry->key_len : 128), entry->text, why);
    (void)pthread_mutex_unlock(&import->lock);
}

struct looking {
    struct cloud_look look; /* first */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool over;
    int rc;
};

static void on_looked(struct cloud_look *look, int rc)
{
    struct looking *looking = container_of(look, struct looking, look);

    (void)pthread_mutex_lock(&looking->lock);
    looking->over = true;
    looking->rc = rc;
    (void)pthread_cond_signal(&looking->ended);
    (void)pthread_mutex_unlock(&looking->lock);
}

/* What the cloud says of ENTRY; LOOKING is to be released where it is 0. */
static int look_once(struct import_entry *entry, struct looking *looking)
{
    struct cloud_import *import = entry->import;

    *looking = (struct looking){.look = {.cloud = import->cloud, .done = on_looked}};
    memcpy(looking->look.key.text, entry->text, entry->key_len);
    looking->look.key.len = entry->key_len;
    (void)pthread_mutex_init(&looking->lock, NULL);
    (void)pthread_cond_init(&looking->ended, NULL);
    cloud_look_start(&looking->look);
    (void)pthread_mutex_lock(&looking->lock);
    while (!looking->over)
        (void)pthread_cond_wait(&looking->ended, &looking->lock);
    (void)pthread_mutex_unlock(&looking->lock);
    (void)pthread_cond_destroy(&looking->ended);
    (void)pthread_mutex_destroy(&looking->lock);
    if (looking->rc)
        cloud_look_release(&looking->look);
    return looking->rc;
}

struct reading {
    struct cloud_wait wait; /* first */
    struct cloud *cloud;
    struct digest *digest;
    uint64_t size;
};

static void on_data(struct cloud_request *request, const void *bytes, size_t len)
{
    struct reading *reading =
        container_of(container_of(request, struct cloud_wait, request), struct reading, wait);

    digest_update(reading->digest, bytes, len);
    reading->size += len;
    cloud_consumed(reading->cloud, request, len);
}

/* Read the whole body, to know its SHA-256. */
static int read_once(struct import_entry *entry, struct looking *looking)
{
    struct cloud_import *import = entry->import;
    struct cloud_look *look = &looking->look;
    struct reading reading = {.cloud = import->cloud};

    int rc = digest_create(&reading.digest, DIGEST_SHA256);
    if (rc)
        return rc;
    reading.wait.request =
        (struct cloud_request){.op = CLOUD_GET,
                               .key = {look->key.text, look->key.len},
                               .if_match = {look->etag, (uint32_t)strlen(look->etag)},
                               .data = on_data};
    rc = cloud_wait_for(import->cloud, &reading.wait, &import->stop);
    if (rc == 0 && reading.size != look->size)
        rc = ERR_MISMATCH;
    if (rc == 0) {
        digest_final(reading.digest, look->facts.sha256);
        look->facts.fields |= CLOUD_FACTS_SHA256;
        import_add(import, &import->status.read, 1);
        import_add(import, &import->status.read_bytes, reading.size);
    }
    digest_destroy(&reading.digest);
    return rc;
}

struct adopting {
    struct change change; /* first */
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool over;
};

static void on_adopted(struct change *change)
{
    struct adopting *adopting = container_of(change, struct adopting, change);

    (void)pthread_mutex_lock(&adopting->lock);
    adopting->over = true;
    (void)pthread_cond_signal(&adopting->ended);
    (void)pthread_mutex_unlock(&adopting->lock);
}

static struct text text_of(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

static void fill(struct request *request, const struct import_entry *entry,
                 const struct cloud_look *look)
{
    const struct cloud_facts *facts = &look->facts;
    const struct cloud *cloud = entry->import->cloud;
    struct text key = {entry->text, entry->key_len};

    *request = (struct request){.kind = CHANGE_ADOPT,
                                .id = entry->id,
                                .fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL |
                                          EVENT_HAS_CLOUD,
                                .size = look->size,
                                .level = facts->level,
                                .name = entry->other ? key : facts->name,
                                .type = facts->type,
                                .user_meta = facts->user_meta,
                                .expires_ms = facts->expires_ms,
                                .stamp = facts->stamp,
                                .cloud_state = CLOUD_UPLOADED,
                                .backend = text_of(cloud->backend->name),
                                .bucket = text_of(cloud->bucket),
                                .key = key,
                                .etag = text_of(look->etag)};
    memcpy(request->sha256, facts->sha256, SHA256_BYTES);
    if (request->name.len)
        request->fields |= EVENT_HAS_NAME;
    if (request->type.len)
        request->fields |= EVENT_HAS_TYPE;
    if (request->user_meta.len)
        request->fields |= EVENT_HAS_USER_META;
    if (request->expires_ms)
        request->fields |= EVENT_HAS_EXPIRES;
}

/* Journal it; what came of it, and *FRESH: it was not known. */
static int adopt_once(struct import_entry *entry, const struct cloud_look *look, bool *fresh)
{
    struct adopting adopting = {.change = {.done = on_adopted}};

    fill(&adopting.change.request, entry, look);
    (void)pthread_mutex_init(&adopting.lock, NULL);
    (void)pthread_cond_init(&adopting.ended, NULL);
    int rc = journal_submit(entry->import->journal, &adopting.change);
    (void)pthread_mutex_lock(&adopting.lock);
    while (rc == 0 && !adopting.over)
        (void)pthread_cond_wait(&adopting.ended, &adopting.lock);
    (void)pthread_mutex_unlock(&adopting.lock);
    if (rc == 0) {
        rc = adopting.change.rc;
        *fresh = adopting.change.first;
        object_destroy(&adopting.change.object);
    }
    (void)pthread_cond_destroy(&adopting.ended);
    (void)pthread_mutex_destroy(&adopting.lock);
    return rc;
}

static bool is_text(struct text text, const char *ptr, size_t len)
{
    return text.len == len && memcmp(text.ptr, ptr, len) == 0;
}

/* What the journal knows of ENTRY's id already: ERR_DELETED, ERR_EXISTS (it is there, and the row
 * says that it is), 0: nothing, or too little. */
static int known(struct import_entry *entry, struct db_reader *reader)
{
    struct object *object = NULL;
    struct cloud_place place;

    int rc = journal_find(entry->import->journal, reader, &entry->id, &object);
    if (rc == ERR_NOT_FOUND)
        return 0;
    if (rc == 0 && object->flags & OBJECT_DELETED)
        rc = ERR_DELETED;
    else if (rc == 0 && object->flags & OBJECT_UPLOADED && object_cloud(object, &place) &&
             is_text(place.key, entry->text, entry->key_len) &&
             is_text(place.etag, entry->text + entry->key_len, entry->etag_len))
        rc = ERR_EXISTS;
    object_destroy(&object);
    return rc;
}

/* Look, read, journal: as far as it goes this time. */
static int try_once(struct import_entry *entry, struct db_reader *reader, const char **why)
{
    struct cloud_import *import = entry->import;
    struct looking looking;
    bool fresh = true, dry = import->status.dry_run;

    *why = "the journal cannot be read";
    int rc = known(entry, reader);
    if (rc)
        return rc;
    *why = "what the cloud says of it contradicts itself";
    rc = look_once(entry, &looking);
    if (rc)
        return rc;
    if (!(looking.look.facts.fields & CLOUD_FACTS_SHA256)) {
        *why = "it cannot be read";
        if (dry) {
            import_add(import, &import->status.read, 1);
            import_add(import, &import->status.read_bytes, looking.look.size);
        } else {
            rc = read_once(entry, &looking);
        }
    }
    *why = rc ? *why : "other bytes are known under its id";
    if (rc == 0 && !dry)
        rc = adopt_once(entry, &looking.look, &fresh);
    if (rc == 0) {
        import_add(import, fresh ? &import->status.adopted : &import->status.known, 1);
        import_add(import, &import->status.adopted_bytes, fresh ? looking.look.size : 0);
    }
    cloud_look_release(&looking.look);
    return rc;
}

static void settle(struct import_entry *entry, int rc, const char *why)
{
    struct cloud_import *import = entry->import;

    switch (rc) {
    case 0:
    case ERR_NOT_FOUND: /* it was removed just now */
        break;
    case ERR_EXISTS:
        import_add(import, &import->status.known, 1);
        break;
    case ERR_DELETED:
        import_add(import, &import->status.deleted, 1);
        break;
    case ERR_CONFLICT:
    case ERR_CORRUPT:
    case ERR_MISMATCH:
    case ERR_TOO_BIG:
    case ERR_PRECONDITION:
    case ERR_RANGE:
    case ERR_INVALID:
        refuse(entry, why);
        break;
    default:
        if (!import_stopping(import))
            import_give_up(import, err_text(rc));
    }
}

void import_run_entry(struct job *job, void *context)
{
    struct import_entry *entry = container_of(job, struct import_entry, job);
    struct cloud_import *import = entry->import;
    const char *why = "";
    int rc = ERR_CLOSED;

    for (unsigned tries = 0; !import_stopping(import); tries++) {
        rc = try_once(entry, context, &why);
        if (!import_may_pass(rc) || tries == CLOUD_IMPORT_TRIES || !import_rest(import, tries))
            break;
    }
    settle(entry, rc, why);
    (void)pthread_mutex_lock(&import->lock);
    assert(import->waiting > 0);
    if (--import->waiting == 0)
        (void)pthread_cond_signal(&import->settled);
    (void)pthread_mutex_unlock(&import->lock);
}
