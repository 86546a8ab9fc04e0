/*
 * Fault injection: what a node calls outside itself (the allocator, SQLite, files, sockets) can be
 * made to fail at the k-th call. The linker hands those calls of the library to fault_calls.c
 * (--wrap), so that base/io and SQLite's VFS are under test themselves.
 *
 * A run: the scenario's `prepare` makes a store without faults, `act` runs with the k-th call of
 * one layer failing (once, or all from then on), and then nothing may be wrong: see fault_store.c.
 */
#ifndef TESTS_FAULT_H
#define TESTS_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What fails, and how. Each is counted apart: only calls that can fail in this way count. */
enum fault_way {
    FAULT_ALLOC,        /* memory of ours, OpenSSL's contexts, jansson's, new threads */
    FAULT_SQLITE,       /* SQLite's memory, and its calls */
    FAULT_FILE_IO,      /* EIO; EMFILE where a file is opened */
    FAULT_FILE_FULL,    /* ENOSPC where something is written or made */
    FAULT_FILE_SIGNAL,  /* EINTR */
    FAULT_FILE_SHORT,   /* half of it */
    FAULT_SOCKET,       /* the error that the call is known for */
    FAULT_SOCKET_RETRY, /* EINTR, and EAGAIN without cause */
    FAULT_SOCKET_SHORT,
    FAULT_WAYS,
};

extern const char *const fault_way_names[FAULT_WAYS];

/* Such a fault is none: whoever meets it goes on as if nothing had been. */
bool fault_is_harmless(enum fault_way way);

#define FAULT_MAX_CALLS (1u << 20)

/* Shared by the runner and the process under test. */
struct fault_shared {
    unsigned calls;                  /* of the way under test, while armed */
    unsigned fired;                  /* of them, made to fail */
    uint64_t sites[FAULT_MAX_CALLS]; /* counting: a hash of the stack of each call */
};

/* Before SQLite, OpenSSL and jansson are used. */
void fault_init(struct fault_shared *shared);
/* From now on count calls of WAY; the one of number K fails (0: none, but stacks are noted), with
 * PERSISTENT all after it too. EXPLAIN: print the stack of the first that fails. */
void fault_arm(enum fault_way way, unsigned k, bool persistent, bool explain);
void fault_disarm(void);
/* Between these, this thread's calls are the test's own: neither counted nor failed. They nest. */
void fault_spare(void);
void fault_unspare(void);
/* The port of the last TCP socket bound. */
unsigned fault_port(void);

/* The test of this process has failed: say why, and end it. */
#define fault_fail(...)                                                                            \
    do {                                                                                           \
        fprintf(stderr, "FAULT: " __VA_ARGS__);                                                    \
        fputc('\n', stderr);                                                                       \
        _exit(3);                                                                                  \
    } while (0)

/* ---- The store under test ---- */

#define OBJECTS 17

/* What may be true of an object: bits, as nobody knows what a request did that was not answered. */
enum { IS_ABSENT = 1, IS_PRESENT = 2, IS_DELETED = 4, NAME_OLD = 8, NAME_NEW = 16 };

struct world {
    char root[96], state[144], files[144], backup[128];
    enum fault_way way;
    unsigned k; /* 0: only count */
    bool persistent, explain;
    unsigned may[OBJECTS];
};

/* From here on calls fail, until fault_disarm. */
static inline void world_arm(const struct world *world)
{
    fault_arm(world->way, world->k, world->persistent, world->explain);
}

size_t world_size(unsigned n); /* of object N */
void world_body(uint8_t *body, size_t size, unsigned n);
void world_id(char text[27], unsigned n);
void world_put_done(struct world *world, unsigned n, bool good);
void world_delete_done(struct world *world, unsigned n, bool good);
void world_rename_done(struct world *world, unsigned n, bool good);

/* Journal and storage without doors and threads, step by step: the same calls in every run. */
void store_prepare(struct world *world); /* a store with some objects, stopped in order */
void store_prepare_killed(struct world *world);
void store_prepare_dead(struct world *world); /* with segments worth cleaning */
void store_restart(struct world *world);
void store_change(struct world *world);
void store_clean(struct world *world);
void store_compact(struct world *world);
void store_backup(struct world *world);
void store_rebuild(struct world *world);
/* Without faults: start it, look at everything, write, rebuild it from its log, and look again. */
void store_check(struct world *world);

/* The whole node, asked over its sockets. */
void node_start_stop(struct world *world);
void node_put_small(struct world *world);
void node_put_large(struct world *world);
void node_get(struct world *world);
void node_meta(struct world *world);
void node_delete(struct world *world);
void node_stats(struct world *world);
void node_backup(struct world *world);
void node_stopping(struct world *world);

/* The cloud's backends, one request after the other. */
void cloud_dir_requests(struct world *world);
void cloud_s3_requests(struct world *world);

/* ---- A bucket of S3 in this process (fault_bucket.c); none of its calls fail ---- */

struct bucket_object {
    char key[64];
    uint8_t *body;
    size_t size;
    char meta[512]; /* lines of the header */
    char tags[256];
};

/* Listen on loopback, on the port returned. */
unsigned bucket_start(void);
void bucket_stop(void);
/* Lent until it is changed; NULL: there is none. */
const struct bucket_object *bucket_find(const char *key);
unsigned bucket_uploads(void); /* begun in parts, and neither completed nor aborted */

#endif
