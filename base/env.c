/*
 * The real world, as a struct env: the system's clocks and random bytes beside its files.
 *
 * A clock or a random source that fails means a broken system; there is nothing sensible to answer
 * a caller then, so the process ends.
 */
#include "base/env.h"

#include "base/io.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;

    if (clock_gettime(clock, &now) != 0)
        abort();
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t system_wall_ns(struct env *env)
{
    (void)env;
    return read_clock(CLOCK_REALTIME);
}

static uint64_t system_mono_ns(struct env *env)
{
    (void)env;
    return read_clock(CLOCK_MONOTONIC);
}

static void system_random(struct env *env, void *buf, size_t len)
{
    char *at = buf;

    (void)env;
    while (len > 0) {
        ssize_t got = getrandom(at, len, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            abort();
        at += got;
        len -= (size_t)got;
    }
}

static struct env system_env = {
    .wall_ns = system_wall_ns,
    .mono_ns = system_mono_ns,
    .random = system_random,
};

static void complete(void)
{
    system_env.io = io_system();
}

struct env *env_system(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, complete);
    return &system_env;
}
