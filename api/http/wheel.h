/*
 * A timer wheel for deadlines that are moved far more often than they pass: moving one to a later
 * time is a store, the wheel finds out when it gets there. Pure: time comes in as an argument. Not
 * thread-safe. Source: Varghese & Lauck, "Hashed and Hierarchical Timing Wheels", 1987, scheme 6.
 */
#ifndef API_HTTP_WHEEL_H
#define API_HTTP_WHEEL_H

#include <stdint.h>

#define WHEEL_TICK_MS 32
#define WHEEL_SLOTS   1024
#define WHEEL_NEVER   UINT64_MAX

/* Embedded in what has the deadline; all zero is a timer at rest. */
struct wheel_timer {
    struct wheel_timer *next, **link; /* link NULL: in no slot */
    uint64_t deadline_ms;             /* when it is to fire */
    uint64_t tick;                    /* when the wheel looks at it, never after the deadline's */
};

struct wheel {
    struct wheel_timer *slots[WHEEL_SLOTS];
    uint64_t used[WHEEL_SLOTS / 64]; /* a bit for each slot that may hold something */
    uint64_t tick;                   /* all up to here has been looked at */
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);

/* Fire TIMER at DEADLINE_MS, or up to two ticks later; WHEEL_NEVER: not at all. Replaces what was
 * set before. */
void wheel_set(struct wheel *wheel, struct wheel_timer *timer, uint64_t deadline_ms);

/* Take TIMER out; it may be freed then. */
void wheel_remove(struct wheel_timer *timer);

/* Call FIRE for each timer whose deadline has passed at NOW_MS. It is out of the wheel then, and
 * may be set again or freed, as may any other. */
void wheel_advance(struct wheel *wheel, uint64_t now_ms,
                   void (*fire)(struct wheel_timer *timer, void *arg), void *arg);

/* Milliseconds until wheel_advance has something to look at, at most MAX_MS. */
uint64_t wheel_wait_ms(const struct wheel *wheel, uint64_t now_ms, uint64_t max_ms);

#endif
