/*
 * One thread lists the bucket page by page (cloud_import_list.c); the keys of a page that may be
 * objects go to a small pool, whose threads look at them, read what has to be read, and journal
 * (cloud_import_object.c). The next page is asked for when all of this one is done, so memory is
 * one page.
 *
 * Failure: what the cloud does not answer is asked again, with delays; then the import ends as
 * failed and says why. What one object has against being adopted is that object's matter, and
 * counted.
 */
#include "cluster/cloud_import_internal.h"

#include "base/log.h"
#include "cluster/breaker.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cloud_import_phase_name(enum cloud_import_phase phase)
{
    static const char *const names[] = {"none", "running", "done", "failed", "cancelled"};

    assert(phase <= IMPORT_CANCELLED);
    return names[phase];
}

/* ---- What its threads share ---- */

void import_add(struct cloud_import *import, uint64_t *counter, uint64_t count)
{
    (void)pthread_mutex_lock(&import->lock);
    *counter += count;
    (void)pthread_mutex_unlock(&import->lock);
}

bool import_stopping(struct cloud_import *import)
{
    return atomic_load(&import->stop);
}

void import_give_up(struct cloud_import *import, const char *message)
{
    (void)pthread_mutex_lock(&import->lock);
    if (!*import->status.message)
        (void)snprintf(import->status.message, sizeof import->status.message, "%s", message);
    (void)pthread_mutex_unlock(&import->lock);
    atomic_store(&import->stop, true);
}

bool import_rest(struct cloud_import *import, unsigned tries)
{
    uint64_t dice, until;

    import->env->random(import->env, &dice, sizeof dice);
    until = env_mono_ms(import->env) + CLOUD_WAIT_MS + breaker_backoff_ms(tries, dice);
    while (!import_stopping(import) && env_mono_ms(import->env) < until) {
        const struct timespec pause = {0, CLOUD_WAIT_MS * 1000000};

        (void)nanosleep(&pause, NULL);
    }
    return !import_stopping(import);
}

bool import_may_pass(int rc)
{
    return rc == ERR_CLOUD || rc == ERR_FULL || rc == ERR_NO_MEMORY ||
           breaker_outcome(rc) == BREAKER_FAILED;
}

/* ---- The thread that lists ---- */

/* Begin with one key of a page. */
static int take(struct cloud_import *import, struct import_entry *entry)
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
        int rc = import_is_marked(import, entry, folder, &marked);

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
        import_add(import, &import->status.others, 1);
        return 0;
    }
    if (marked) {
        import_add(import, &import->status.deleted, 1);
        return 0;
    }
    entry->import = import;
    entry->job.run = import_run_entry;
    (void)pthread_mutex_lock(&import->lock);
    import->waiting++;
    (void)pthread_mutex_unlock(&import->lock);
    int rc = pool_submit(import->pool, &entry->job);
    assert(rc == 0); /* it has room for a page */
    return rc;
}

static void walk(struct cloud_import *import, struct import_page *page)
{
    struct cloud_text prefix = {import->prefix, (uint32_t)strlen(import->prefix)};
    char after[LIMIT_CLOUD_KEY_BYTES + 1] = "";
    bool more = true;

    while (more && !import_stopping(import)) {
        struct cloud_text from = {after, (uint32_t)strlen(after)};
        int rc = import_list(import, page, prefix, from);

        more = page->wait.request.more && page->count > 0;
        for (size_t i = 0; i < page->count && rc == 0 && !import_stopping(import); i++)
            rc = take(import, page->entries[i]);
        (void)pthread_mutex_lock(&import->lock);
        while (import->waiting > 0)
            (void)pthread_cond_wait(&import->settled, &import->lock);
        (void)pthread_mutex_unlock(&import->lock);
        if (rc)
            return;
        struct cloud_text last = import_last_key(page, from);
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
    struct import_page *page = calloc(1, sizeof *page);

    import->marks = calloc(1, sizeof *import->marks);
    int rc = page && import->marks ? pool_start(&import->pool, "cloud-import", CLOUD_IMPORT_AT_ONCE,
                                                LIMIT_CLOUD_LIST, &context)
                                   : ERR_NO_MEMORY;
    if (rc)
        import_give_up(import, err_text(rc));
    else
        walk(import, page);
    pool_stop(&import->pool);
    if (page)
        import_clear(page);
    if (import->marks)
        import_clear(&import->marks->page);
    free(import->marks);
    free(page);
    (void)pthread_mutex_lock(&import->lock);
    struct cloud_import_status *s = &import->status;
    s->phase = *s->message                       ? IMPORT_FAILED
               : atomic_load(&import->cancelled) ? IMPORT_CANCELLED
               : import_stopping(import)         ? IMPORT_CANCELLED
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

/* ---- From outside ---- */

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
