/* What the files of an import share; nobody else includes it. cloud_import.h is the contract. */
#ifndef CLUSTER_CLOUD_IMPORT_INTERNAL_H
#define CLUSTER_CLOUD_IMPORT_INTERNAL_H

#include "base/pool.h"
#include "cluster/cloud_import.h"
#include "cluster/cloud_wait.h"

#include <pthread.h>
#include <stdatomic.h>

/* A key that was listed. */
struct import_entry {
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
struct import_page {
    struct cloud_wait wait; /* first */
    struct import_entry *entries[LIMIT_CLOUD_LIST];
    size_t count;
    bool failed; /* no memory */
};

/* The marks of one folder, in order, as far as they were asked for. */
struct import_marks {
    char folder[LIMIT_CLOUD_KEY_BYTES + 1];
    size_t folder_len;
    bool open; /* the two below are about FOLDER */
    bool more; /* there are marks above the last one in PAGE */
    struct import_page page;
};

struct cloud_import {
    struct journal *journal;
    struct cloud *cloud;
    struct env *env;
    pthread_t thread;
    bool joinable;
    struct pool *pool; /* while one runs */
    char prefix[LIMIT_CLOUD_KEY_BYTES + 1];
    struct import_marks *marks;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t settled;
    unsigned waiting; /* entries of this page that are not done */
    struct cloud_import_status status;
    atomic_bool stop, cancelled;
};

/* ---- cloud_import.c; on any of its threads ---- */

/* Add COUNT to COUNTER, one of its status. */
void import_add(struct cloud_import *import, uint64_t *counter, uint64_t count);
bool import_stopping(struct cloud_import *import);
/* The import cannot go on, and MESSAGE says why; the first one stays. */
void import_give_up(struct cloud_import *import, const char *message);
/* Wait before the next of so many TRIES; false: it stops. */
bool import_rest(struct cloud_import *import, unsigned tries);
/* Whether what failed with RC may go well another time. */
bool import_may_pass(int rc);

/* ---- cloud_import_list.c; on the thread that lists ---- */

/* The next page of keys that begin with PREFIX, above AFTER. ERR_CLOSED: it stops; other errors
 * have ended the import. */
int import_list(struct cloud_import *import, struct import_page *page, struct cloud_text prefix,
                struct cloud_text after) MUST_CHECK;
/* The last key of PAGE; OTHERWISE where it has none. */
struct cloud_text import_last_key(const struct import_page *page, struct cloud_text otherwise);
/* Free its entries. */
void import_clear(struct import_page *page);
/* Whether ENTRY, an object whose key's first FOLDER bytes are its folder, was marked as deleted.
 * Keys come in order. Errors as import_list's. */
int import_is_marked(struct cloud_import *import, const struct import_entry *entry, size_t folder,
                     bool *marked) MUST_CHECK;

/* ---- cloud_import_object.c; on the pool's threads ---- */

/* The job of an entry; CONTEXT: the thread's struct db_reader. */
void import_run_entry(struct job *job, void *context);

#endif
