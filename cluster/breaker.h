/*
 * A circuit breaker: whether the cloud is to be asked at all. While it does not answer, requests
 * are not even sent, so that nobody waits for a deadline again and again; now and then one is let
 * through to see. Pure, and not thread-safe: time and dice come in, the owner has a lock.
 *
 *   closed ──BREAKER_FAILURES in a row, or told to come back later──► open
 *     ▲                                                                │ the delay is over
 *     └───────── it answered ───────── half-open ◄────────────────────┘
 *                                          └── it failed ──► open, for longer
 *
 *     uint32_t ticket = breaker_ask(&breaker, now);
 *     if (ticket && cloud_start(cloud, &request) == 0) …
 *     done: breaker_step(&breaker, ticket, breaker_outcome(rc), request.retry_after_ms, now, dice);
 *
 * Delays are drawn at random between nothing and a bound that doubles ("full jitter": Brooker,
 * "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so that nodes which lost the
 * cloud together do not come back together.
 */
#ifndef CLUSTER_BREAKER_H
#define CLUSTER_BREAKER_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES 5
#define BREAKER_DELAY_MS 1000  /* the bound of the first delay, doubled up to … */
#define BREAKER_MAX_MS   60000 /* … this */
#define BREAKER_MAX_TOLD_MS                                                                        \
    (15 * 60 * 1000)           /* what the cloud may ask for is believed up to this                \
                                */
#define BREAKER_TRIAL_MS 30000 /* a trial without an outcome for so long: another one may go */

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

enum breaker_outcome {
    BREAKER_ANSWERED, /* it is there, whatever it said about the object */
    BREAKER_FAILED,   /* it was not reached, did not answer in time, or cannot serve now */
    BREAKER_UNKNOWN,  /* nothing can be said: cancelled, or this node's own fault */
};

/* Embedded in its owner; all zero is a closed one. */
struct breaker {
    enum breaker_state state;
    unsigned failures;   /* in a row */
    unsigned delays;     /* in a row, since it was closed last */
    uint32_t generation; /* of tickets: what was sent under another state says nothing now */
    uint64_t until_ms;   /* open: no request before; half-open: another trial may go */
    bool trial;          /* half-open: one is under way */
    uint64_t opened;     /* how often, for stats */
    uint64_t refused;    /* requests that were not sent */
};

/* Whether a request may be sent: its ticket, or 0. Whoever has a ticket calls breaker_step once (or
 * early with BREAKER_ANSWERED, when the answer begins, and again at the end). */
uint32_t breaker_ask(struct breaker *breaker, uint64_t now_ms) MUST_CHECK;

/* What came of the request with TICKET. RETRY_AFTER_MS: the cloud asked to be left alone for so
 * long (0: it did not); DICE: any random number. True: the state has changed, which is worth a line
 * in the log. */
bool breaker_step(struct breaker *breaker, uint32_t ticket, enum breaker_outcome outcome,
                  uint32_t retry_after_ms, uint64_t now_ms, uint64_t dice);

/* Until the next request may be sent; 0: now. */
uint64_t breaker_wait_ms(const struct breaker *breaker, uint64_t now_ms);

/* What RC, as cloud_request's `done` got it, says about the cloud. A caller who cancelled the
 * request says BREAKER_UNKNOWN instead. A refusal (ERR_PERMISSION) is an answer: it may be about
 * this key alone. */
enum breaker_outcome breaker_outcome(int rc);

/* The delay before the ATTEMPT-th retry (from 0 on) of one piece of work: full jitter between 0 and
 * min(BREAKER_MAX_MS, BREAKER_DELAY_MS * 2^ATTEMPT). */
uint64_t breaker_backoff_ms(unsigned attempt, uint64_t dice);

/* "closed", "open", "half-open". */
const char *breaker_name(enum breaker_state state);

#endif
