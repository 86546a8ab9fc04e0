/*
 * One thread lists the bucket page by page; the keys of a page that may be objects go to a small
 * pool, whose threads look at them (cluster/cloud_look.h), read what has to be read, and journal
 * (CHANGE_ADOPT). The next page is asked for when all of this one is done, so memory is one page.
 *
 *   list ─► key: known with this etag ─► counted
 *                marked deleted ────────► counted
 *                else ─► look ─┬─ SHA-256 known ──────────────► CHANGE_ADOPT
 *                              └─ else GET, hashed, not kept ──►
 *
 * Marks are listed beside the keys: both come in the order of their ids, so one more list, of which
 * one page is kept, answers for every key of a folder.
 *
 * Failure: what the cloud does not answer is asked again, with delays; then the import ends as
 * failed and says why. What one object has against being adopted is that object's matter, and
 * counted.
 */
#include "cluster/cloud_import.h"

#include "base/log.h"
#include "base/pool.h"
#include "cluster/breaker.h"
#include "cluster/cloud_look.h"
#include "cluster/cloud_wait.h"
#include "journal/ulid.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    struct job job;
    struct cloud_import *import;
    struct id128 id;
    bool other; /* its key is no ULID */
    uint64_t size;
    int64_t modified_s;
    uint32_t key_len, etag_len;
    char text[]; /* key, etag */
};

/* One page of a list. */
struct page {
    struct cloud_wait wait; /* first */
    struct entry *entries[LIMIT_CLOUD_LIST];
    size_t count;
    bool failed; /* no memory */
};

/* The marks of one folder, in order, as far as they were asked for. */
struct marks {
    char folder[LIMIT_CLOUD_KEY_BYTES + 1];
    size_t folder_len;
    bool open; /* the two below are about FOLDER */
    bool more; /* there are marks above the last one in PAGE */
    struct page page;
};

struct cloud_import {
    struct journal *journal;
    struct cloud *cloud;
    struct env *env;
    pthread_t thread;
    bool joinable;
    struct pool *pool; /* while one runs */
    char prefix[LIMIT_CLOUD_KEY_BYTES + 1];
    struct marks *marks;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t settled;
    unsigned waiting; /* entries of this page that are not done */
    struct cloud_import_status status;
    atomic_bool stop, cancelled;
};

/* ---- Pure ---- */

#define MARKS   ".deleted/"
#define SIDECAR ".usermeta"

static bool ends_in(const char *text, size_t len, const char *with)
{
    size_t with_len = strlen(with);

    return len >= with_len && memcmp(text + len - with_len, with, with_len) == 0;
}

enum import_kind cloud_import_kind(struct id128 *id, size_t *folder, struct text key, uint64_t size)
{
    size_t at = key.len;

    while (at > 0 && key.ptr[at - 1] != '/')
        at--;
    *folder = at;
    enum cloud_key_kind kind = cloud_key_read(id, NULL, key.ptr + at, key.len - at);
    if (kind == CLOUD_KEY_OBJECT)
        return ends_in(key.ptr, at, "/" MARKS) ||
                       (at == strlen(MARKS) && ends_in(key.ptr, at, MARKS))
                   ? IMPORT_MARK
                   : IMPORT_OBJECT;
    if (kind == CLOUD_KEY_SIDECAR && !id_is_zero(id))
        return IMPORT_SIDECAR;
    return at == key.len && size == 0 ? IMPORT_FOLDER : IMPORT_OTHER;
}

struct id128 cloud_import_id(struct text key, struct text etag, int64_t modified_s)
{
    uint64_t ms = modified_s > 0 ? (uint64_t)modified_s * 1000 : 0;
    char text[LIMIT_CLOUD_KEY_BYTES + 1 + 256];
    uint8_t sha[SHA256_BYTES];
    struct id128 id;
    uint32_t etag_len = etag.len < 255 ? etag.len : 255;

    assert(key.len <= LIMIT_CLOUD_KEY_BYTES);
    if (ms < ULID_MIN_MS || ms >= ULID_MAX_MS)
        ms = ULID_MIN_MS;
    memcpy(text, key.ptr, key.len);
    text[key.len] = 0; /* no key has one */
    if (etag_len)
        memcpy(text + key.len + 1, etag.ptr, etag_len);
    sha256(text, key.len + 1 + etag_len, sha);
    for (unsigned i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t)(ms >> (8 * (5 - i)));
    memcpy(id.bytes + 6, sha, 10);
    return id;
}

const char *cloud_import_phase_name(enum cloud_import_phase phase)
{
    static const char *const names[] = {"none", "running", "done", "failed", "cancelled"};

    assert(phase <= IMPORT_CANCELLED);
    return names[phase];
}

/* ---- Counting ---- */

static void add(struct cloud_import *import, uint64_t *counter, uint64_t count)
{
    (void)pthread_mutex_lock(&import->lock);
    *counter += count;
    (void)pthread_mutex_unlock(&import->lock);
}

static bool stopping(struct cloud_import *import)
{
    return atomic_load(&import->stop);
}

/* The import cannot go on. */
static void give_up(struct cloud_import *import, const char *message)
{
    (void)pthread_mutex_lock(&import->lock);
    if (!*import->status.message)
        (void)snprintf(import->status.message, sizeof import->status.message, "%s", message);
    (void)pthread_mutex_unlock(&import->lock);
    atomic_store(&import->stop, true);
}

static void refuse(struct entry *entry, const char *why)
{
    struct cloud_import *import = entry->import;

    (void)pthread_mutex_lock(&import->lock);
    if (import->status.refused++ == 0)
        (void)snprintf(import->status.refusal, sizeof import->status.refusal, "%.*s: %s",
                       (int)(entry->key_len < 128 ? entry->key_len : 128), entry->text, why);
    (void)pthread_mutex_unlock(&import->lock);
}

/* Wait before the TRY-th time, unless it stops. */
static bool rest(struct cloud_import *import, unsigned tries)
{
    uint64_t dice, until;

    import->env->random(import->env, &dice, sizeof dice);
    until = env_mono_ms(import->env) + CLOUD_WAIT_MS + breaker_backoff_ms(tries, dice);
    while (!stopping(import) && env_mono_ms(import->env) < until) {
        const struct timespec pause = {0, CLOUD_WAIT_MS * 1000000};

        (void)nanosleep(&pause, NULL);
    }
    return !stopping(import);
}

/* Whether what failed with RC may go well another time. */
static bool may_pass(int rc)
{
    return rc == ERR_CLOUD || rc == ERR_FULL || rc == ERR_NO_MEMORY ||
           breaker_outcome(rc) == BREAKER_FAILED;
}

/* ---- Lists ---- */

static struct page *page_of(struct cloud_request *request)
{
    return container_of(container_of(request, struct cloud_wait, request), struct page, wait);
}

static void on_entry(struct cloud_request *request, const struct cloud_entry *found)
{
    struct page *page = page_of(request);
    struct entry *entry = calloc(1, sizeof *entry + found->key.len + found->etag.len);

    if (!entry || page->count == LIMIT_CLOUD_LIST || found->key.len > LIMIT_CLOUD_KEY_BYTES) {
        page->failed |= !entry;
        free(entry);
        return;
    }
    entry->size = found->size;
    entry->modified_s = found->modified_s;
    entry->key_len = found->key.len;
    entry->etag_len = found->etag.len;
    memcpy(entry->text, found->key.ptr, found->key.len);
    if (found->etag.len)
        memcpy(entry->text + found->key.len, found->etag.ptr, found->etag.len);
    page->entries[page->count++] = entry;
}

static void clear(struct page *page)
{
    while (page->count > 0)
        free(page->entries[--page->count]);
    page->failed = false;
}

/* The next page of keys that begin with PREFIX, above AFTER. */
static int list(struct cloud_import *import, struct page *page, struct cloud_text prefix,
                struct cloud_text after)
{
    for (unsigned tries = 0;; tries++) {
        clear(page);
        page->wait.request = (struct cloud_request){
            .op = CLOUD_LIST, .key = prefix, .after = after, .entry = on_entry};
        int rc = cloud_wait_for(import->cloud, &page->wait, &import->stop);
        if (rc == 0 && page->failed)
            rc = ERR_NO_MEMORY;
        if (rc == 0 || stopping(import))
            return rc ? ERR_CLOSED : 0;
        if (may_pass(rc) && tries < CLOUD_IMPORT_TRIES) {
            if (!rest(import, tries))
                return ERR_CLOSED;
        } else {
            const char *said = page->wait.request.message;

            give_up(import, *said ? said : err_text(rc));
            return rc;
        }
    }
}

/* ---- Marks ---- */

static struct cloud_text last_key(const struct page *page, struct cloud_text otherwise)
{
    if (page->count == 0)
        return otherwise;
    const struct entry *last = page->entries[page->count - 1];
    return (struct cloud_text){last->text, last->key_len};
}

/* The page of marks that ID's would be in. */
static int turn_to(struct cloud_import *import, const struct entry *entry, size_t folder)
{
    struct marks *marks = import->marks;
    char prefix[LIMIT_CLOUD_KEY_BYTES + sizeof MARKS], after[LIMIT_CLOUD_KEY_BYTES + 64];
    int len = snprintf(prefix, sizeof prefix, "%.*s" MARKS, (int)folder, entry->text);
    char ulid[ULID_TEXT_BYTES + 1];

    /* The mark itself is above its key without the last character. */
    ulid_format(ulid, &entry->id);
    int after_len = snprintf(after, sizeof after, "%s%.*s", prefix, ULID_TEXT_BYTES - 1, ulid);
    int rc = list(import, &marks->page, (struct cloud_text){prefix, (uint32_t)len},
                  (struct cloud_text){after, (uint32_t)after_len});
    marks->open = rc == 0;
    marks->more = marks->page.wait.request.more;
    marks->folder_len = folder;
    memcpy(marks->folder, entry->text, folder);
    return rc;
}

/* Whether ENTRY, an object in FOLDER, was marked as deleted. Keys come in order. */
static int is_marked(struct cloud_import *import, const struct entry *entry, size_t folder,
                     bool *marked)
{
    struct marks *marks = import->marks;
    char key[LIMIT_CLOUD_KEY_BYTES + sizeof MARKS + ULID_TEXT_BYTES];
    struct cloud_text none = {"", 0};

    *marked = false;
    int key_len = snprintf(key, sizeof key, "%.*s" MARKS "%.*s", (int)folder, entry->text,
                           (int)(entry->key_len - folder), entry->text + folder);
    bool here = marks->open && marks->folder_len == folder &&
                memcmp(marks->folder, entry->text, folder) == 0;
    if (here && marks->more) {
        struct cloud_text last = last_key(&marks->page, none);
        size_t len = last.len < (uint32_t)key_len ? last.len : (size_t)key_len;

        here = memcmp(last.ptr, key, len) >= 0;
    }
    int rc = here ? 0 : turn_to(import, entry, folder);
    for (size_t i = 0; i < marks->page.count && rc == 0 && !*marked; i++)
        *marked = marks->page.entries[i]->key_len == (uint32_t)key_len &&
                  memcmp(marks->page.entries[i]->text, key, (size_t)key_len) == 0;
    return rc;
}

/* ---- One object ---- */

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
static int look_once(struct entry *entry, struct looking *looking)
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
static int read_once(struct entry *entry, struct looking *looking)
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
        add(import, &import->status.read, 1);
        add(import, &import->status.read_bytes, reading.size);
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

static void fill(struct request *request, const struct entry *entry, const struct cloud_look *look)
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
static int adopt_once(struct entry *entry, const struct cloud_look *look, bool *fresh)
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
static int known(struct entry *entry, struct db_reader *reader)
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
static int try_once(struct entry *entry, struct db_reader *reader, const char **why)
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
            add(import, &import->status.read, 1);
            add(import, &import->status.read_bytes, looking.look.size);
        } else {
            rc = read_once(entry, &looking);
        }
    }
    *why = rc ? *why : "other bytes are known under its id";
    if (rc == 0 && !dry)
        rc = adopt_once(entry, &looking.look, &fresh);
    if (rc == 0) {
        add(import, fresh ? &import->status.adopted : &import->status.known, 1);
        add(import, &import->status.adopted_bytes, fresh ? looking.look.size : 0);
    }
    cloud_look_release(&looking.look);
    return rc;
}

static void settle(struct entry *entry, int rc, const char *why)
{
    struct cloud_import *import = entry->import;

    switch (rc) {
    case 0:
    case ERR_NOT_FOUND: /* it was removed just now */
        break;
    case ERR_EXISTS:
        add(import, &import->status.known, 1);
        break;
    case ERR_DELETED:
        add(import, &import->status.deleted, 1);
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
        if (!stopping(import))
            give_up(import, err_text(rc));
    }
}

static void run_entry(struct job *job, void *context)
{
    struct entry *entry = container_of(job, struct entry, job);
    struct cloud_import *import = entry->import;
    const char *why = "";
    int rc = ERR_CLOSED;

    for (unsigned tries = 0; !stopping(import); tries++) {
        rc = try_once(entry, context, &why);
        if (!may_pass(rc) || tries == CLOUD_IMPORT_TRIES || !rest(import, tries))
            break;
    }
    settle(entry, rc, why);
    (void)pthread_mutex_lock(&import->lock);
    assert(import->waiting > 0);
    if (--import->waiting == 0)
        (void)pthread_cond_signal(&import->settled);
    (void)pthread_mutex_unlock(&import->lock);
}

/* ---- The whole ---- */

/* Begin with one key of a page. */
static int take(struct cloud_import *import, struct entry *entry)
{
    struct text key = {entry->text, entry->key_len};
    size_t folder;
    bool marked = false;

    (void)pthread_mutex_lock(&import->lock);
    import->status.listed++;
    memcpy(import->status.key, entry->text, entry->key_len);
    import->status.key[entry->key_len] = 0;
    (void)pthread_mutex_unlock(&import->lock);
    switch (cloud_import_kind(&entry->id, &folder, key, entry->size)) {
    case IMPORT_OBJECT: {
        int rc = is_marked(import, entry, folder, &marked);

        if (rc)
            return rc;
        break;
    }
    case IMPORT_OTHER: {
        struct text etag = {entry->text + entry->key_len, entry->etag_len};

        entry->other = true;
        entry->id = cloud_import_id(key, etag, entry->modified_s);
        break;
    }
    case IMPORT_MARK:
    case IMPORT_SIDECAR:
    case IMPORT_FOLDER:
        add(import, &import->status.others, 1);
        return 0;
    }
    if (marked) {
        add(import, &import->status.deleted, 1);
        return 0;
    }
    entry->import = import;
    entry->job.run = run_entry;
    (void)pthread_mutex_lock(&import->lock);
    import->waiting++;
    (void)pthread_mutex_unlock(&import->lock);
    int rc = pool_submit(import->pool, &entry->job);
    assert(rc == 0); /* it has room for a page */
    return rc;
}

static void walk(struct cloud_import *import, struct page *page)
{
    struct cloud_text prefix = {import->prefix, (uint32_t)strlen(import->prefix)};
    char after[LIMIT_CLOUD_KEY_BYTES + 1] = "";
    bool more = true;

    while (more && !stopping(import)) {
        struct cloud_text from = {after, (uint32_t)strlen(after)};
        int rc = list(import, page, prefix, from);

        more = page->wait.request.more && page->count > 0;
        for (size_t i = 0; i < page->count && rc == 0 && !stopping(import); i++)
            rc = take(import, page->entries[i]);
        (void)pthread_mutex_lock(&import->lock);
        while (import->waiting > 0)
            (void)pthread_cond_wait(&import->settled, &import->lock);
        (void)pthread_mutex_unlock(&import->lock);
        if (rc)
            return;
        struct cloud_text last = last_key(page, from);
        memmove(after, last.ptr, last.len);
        after[last.len] = 0;
    }
}

static int open_reader(void *arg, void **context)
{
    struct cloud_import *import = arg;
    struct db_reader *reader = NULL;
    int rc = journal_reader_open(import->journal, &reader);

    *context = reader;
    return rc;
}

static void close_reader(void *arg, void *context)
{
    struct db_reader *reader = context;

    (void)arg;
    db_reader_close(&reader);
}

static void *run(void *arg)
{
    struct cloud_import *import = arg;
    const struct pool_context context = {open_reader, close_reader, import};
    struct page *page = calloc(1, sizeof *page);

    import->marks = calloc(1, sizeof *import->marks);
    int rc = page && import->marks ? pool_start(&import->pool, "cloud-import", CLOUD_IMPORT_AT_ONCE,
                                                LIMIT_CLOUD_LIST, &context)
                                   : ERR_NO_MEMORY;
    if (rc)
        give_up(import, err_text(rc));
    else
        walk(import, page);
    pool_stop(&import->pool);
    if (page)
        clear(page);
    if (import->marks)
        clear(&import->marks->page);
    free(import->marks);
    free(page);
    (void)pthread_mutex_lock(&import->lock);
    struct cloud_import_status *s = &import->status;
    s->phase = *s->message                       ? IMPORT_FAILED
               : atomic_load(&import->cancelled) ? IMPORT_CANCELLED
               : stopping(import)                ? IMPORT_CANCELLED
                                                 : IMPORT_DONE;
    log_info(
        "cloud import: %s; %llu keys, %llu adopted, %llu known, %llu deleted, %llu refused%s%s",
        cloud_import_phase_name(s->phase), (unsigned long long)s->listed,
        (unsigned long long)s->adopted, (unsigned long long)s->known,
        (unsigned long long)s->deleted, (unsigned long long)s->refused, *s->message ? ": " : "",
        s->message);
    (void)pthread_mutex_unlock(&import->lock);
    return NULL;
}

int cloud_import_create(struct cloud_import **out, struct journal *journal, struct cloud *cloud,
                        struct env *env)
{
    struct cloud_import *import = calloc(1, sizeof *import);

    *out = import;
    if (!import)
        return ERR_NO_MEMORY;
    import->journal = journal;
    import->cloud = cloud;
    import->env = env;
    (void)pthread_mutex_init(&import->lock, NULL);
    (void)pthread_cond_init(&import->settled, NULL);
    return 0;
}

int cloud_import_begin(struct cloud_import *import, const char *prefix, bool dry_run)
{
    sigset_t all, before;

    if (strlen(prefix) > LIMIT_CLOUD_KEY_BYTES)
        return ERR_TOO_BIG;
    (void)pthread_mutex_lock(&import->lock);
    bool running = import->status.phase == IMPORT_RUNNING;
    if (!running) {
        import->status = (struct cloud_import_status){.phase = IMPORT_RUNNING, .dry_run = dry_run};
        atomic_store(&import->stop, false);
        atomic_store(&import->cancelled, false);
    }
    (void)pthread_mutex_unlock(&import->lock);
    if (running)
        return ERR_EXISTS;
    if (import->joinable)
        (void)pthread_join(import->thread, NULL);
    memcpy(import->prefix, prefix, strlen(prefix) + 1);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&import->thread, NULL, run, import);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    import->joinable = rc == 0;
    if (rc) {
        (void)pthread_mutex_lock(&import->lock);
        import->status.phase = IMPORT_FAILED;
        (void)pthread_mutex_unlock(&import->lock);
    }
    return rc ? ERR_NO_MEMORY : 0;
}

void cloud_import_cancel(struct cloud_import *import)
{
    atomic_store(&import->cancelled, true);
    atomic_store(&import->stop, true);
}

void cloud_import_status(struct cloud_import *import, struct cloud_import_status *out)
{
    (void)pthread_mutex_lock(&import->lock);
    *out = import->status;
    (void)pthread_mutex_unlock(&import->lock);
}

void cloud_import_stop(struct cloud_import *import)
{
    if (!import)
        return;
    atomic_store(&import->stop, true);
    if (import->joinable)
        (void)pthread_join(import->thread, NULL);
    import->joinable = false;
}

void cloud_import_destroy(struct cloud_import **import)
{
    struct cloud_import *it = *import;

    if (!it)
        return;
    cloud_import_stop(it);
    (void)pthread_cond_destroy(&it->settled);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *import = NULL;
}
