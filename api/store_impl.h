/* What the store_*.c files share; nobody else includes it. */
#ifndef API_STORE_IMPL_H
#define API_STORE_IMPL_H

#include "api/store.h"
#include "base/container.h"

#include <pthread.h>
#include <stdatomic.h>

/* Threads that finish and check large bodies: apart from the readers, so that no GET waits behind
 * an upload's sync. */
#define STORE_WRITER_THREADS 4

struct store {
    struct journal *journal;
    struct cluster *cluster; /* NULL: runs alone */
    struct peer_bodies *peer_bodies;
    struct peer_fills *peer_fills; /* NULL: no cluster, or no … */
    struct disk_cache *disk_cache;
    struct adoptions *adoptions; /* NULL: no cloud */
    struct ram *ram;
    struct hot_blocks *hot;
    struct env *env;
    struct budget *memory;
    struct log *log;
    struct large_store *large;
    uint64_t max_body_bytes;
    bool whole_ranges;
    struct pool *readers, *writers;
    atomic_uint waiting;        /* jobs in the readers' queue */
    atomic_ullong upload_bytes; /* see STORE_UPLOAD_BYTES */
    pthread_mutex_t lock;       /* guards the two below */
    struct store_put *idle;     /* a list of puts to be used again */
    unsigned idle_count;
    _Atomic uint64_t served; /* see store_serves */
};

/* The disk is full: the disk cache gives its room back. True: there was some. */
bool store_give_way(struct store *store);
/* Free the idle puts. */
void store_put_drain(struct store *store);

#endif
