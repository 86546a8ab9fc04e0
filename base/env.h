/*
 * What a node gets from the outside: files, clocks, randomness. Production code receives a struct
 * env and calls nothing else for these, so that a simulator can hand it a simulated disk, time and
 * dice. All parts are safe to use from any thread.
 */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include <stddef.h>
#include <stdint.h>

struct io;

struct env {
    struct io *io;
    /* Unix time, nanoseconds. May jump either way. */
    uint64_t (*wall_ns)(struct env *env);
    /* Monotonic time since some fixed moment, nanoseconds. */
    uint64_t (*mono_ns)(struct env *env);
    /* Fill BUF with LEN unpredictable bytes. Never fails (aborts where the system has none). */
    void (*random)(struct env *env, void *buf, size_t len);
    void *arg; /* the implementation's own */
};

/* The system's files, clocks and getrandom(). Static, for the process's life. */
struct env *env_system(void);

static inline uint64_t env_wall_ms(struct env *env)
{
    return env->wall_ns(env) / 1000000;
}

static inline uint64_t env_mono_ms(struct env *env)
{
    return env->mono_ns(env) / 1000000;
}

#endif
