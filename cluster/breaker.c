/*
 * The circuit breaker: the header draws its states.
 *
 * Each change of state begins a new generation of tickets. What was sent before says nothing any
 * more: a failure that was under way when the breaker opened must not prolong the delay, nor a late
 * answer close it while everything else fails.
 *
 * Half-open lets one request through at a time. It may be a large upload that takes minutes, so
 * after BREAKER_TRIAL_MS without an outcome another one may go; whichever ends first decides.
 */
#include "cluster/breaker.h"

#include <assert.h>

static void enter(struct breaker *breaker, enum breaker_state state)
{
    assert(breaker->state != state);
    breaker->state = state;
    breaker->failures = 0;
    breaker->trial = false;
    breaker->generation++;
    if (breaker->generation == UINT32_MAX)
        breaker->generation = 0;
}

/* Tickets are never 0. */
static uint32_t ticket_of(const struct breaker *breaker)
{
    return breaker->generation + 1;
}

uint32_t breaker_ask(struct breaker *breaker, uint64_t now_ms)
{
    if (breaker->state == BREAKER_OPEN && now_ms >= breaker->until_ms)
        enter(breaker, BREAKER_HALF_OPEN);
    bool may =
        breaker->state == BREAKER_CLOSED ||
        (breaker->state == BREAKER_HALF_OPEN && (!breaker->trial || now_ms >= breaker->until_ms));
    if (!may) {
        breaker->refused++;
        return 0;
    }
    if (breaker->state == BREAKER_HALF_OPEN) {
        breaker->trial = true;
        breaker->until_ms = now_ms + BREAKER_TRIAL_MS;
    }
    return ticket_of(breaker);
}

uint64_t breaker_backoff_ms(unsigned attempt, uint64_t dice)
{
    uint64_t bound = BREAKER_DELAY_MS;

    while (attempt > 0 && bound < BREAKER_MAX_MS) {
        bound *= 2;
        attempt--;
    }
    return dice % ((bound < BREAKER_MAX_MS ? bound : BREAKER_MAX_MS) + 1);
}

static void open_for(struct breaker *breaker, uint32_t told_ms, uint64_t now_ms, uint64_t dice)
{
    uint64_t told = told_ms < BREAKER_MAX_TOLD_MS ? told_ms : BREAKER_MAX_TOLD_MS;

    enter(breaker, BREAKER_OPEN);
    breaker->opened++;
    /* Never sooner than the cloud asked for, and not all at once then either. */
    breaker->until_ms = now_ms + told + breaker_backoff_ms(breaker->delays, dice);
    breaker->delays++;
}

bool breaker_step(struct breaker *breaker, uint32_t ticket, enum breaker_outcome outcome,
                  uint32_t retry_after_ms, uint64_t now_ms, uint64_t dice)
{
    assert(ticket != 0);
    if (ticket != ticket_of(breaker))
        return false;
    assert(breaker->state != BREAKER_OPEN); /* nothing is sent then */

    switch (outcome) {
    case BREAKER_ANSWERED:
        breaker->failures = breaker->delays = 0;
        if (breaker->state == BREAKER_CLOSED)
            return false;
        enter(breaker, BREAKER_CLOSED);
        return true;
    case BREAKER_FAILED:
        breaker->failures++;
        if (breaker->state == BREAKER_CLOSED && breaker->failures < BREAKER_FAILURES &&
            retry_after_ms == 0)
            return false;
        open_for(breaker, retry_after_ms, now_ms, dice);
        return true;
    case BREAKER_UNKNOWN:
        breaker->trial = false;
        return false;
    }
    assert(!"an outcome");
    return false;
}

uint64_t breaker_wait_ms(const struct breaker *breaker, uint64_t now_ms)
{
    bool waits =
        breaker->state == BREAKER_OPEN || (breaker->state == BREAKER_HALF_OPEN && breaker->trial);

    return waits && breaker->until_ms > now_ms ? breaker->until_ms - now_ms : 0;
}

enum breaker_outcome breaker_outcome(int rc)
{
    switch (rc) {
    case 0:
    case ERR_NOT_FOUND:
    case ERR_PRECONDITION:
    case ERR_RANGE:
    case ERR_PERMISSION:
    case ERR_MISMATCH:
        return BREAKER_ANSWERED;
    case ERR_TIMEOUT:
    case ERR_CLOSED:
    case ERR_AGAIN:
    case ERR_INVALID: /* what answers there makes no sense */
    case ERR_NO_SPACE:
    case ERR_IO:
        return BREAKER_FAILED;
    default:
        return BREAKER_UNKNOWN;
    }
}

const char *breaker_name(enum breaker_state state)
{
    static const char *const names[] = {"closed", "open", "half-open"};

    assert(state <= BREAKER_HALF_OPEN);
    return names[state];
}
