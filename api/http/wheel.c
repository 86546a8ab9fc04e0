/*
 * The slot of a timer is its tick modulo the number of slots; what lies a turn or more ahead stays
 * in its slot until its tick comes. wheel_set leaves a timer where it is if the new deadline is not
 * earlier, so a busy connection, whose deadline moves with every request, touches no list; the
 * wheel meets it once per old deadline and puts it where it belongs by then.
 */
#include "api/http/wheel.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

/* The first tick at whose beginning the deadline has passed: never early. */
static uint64_t tick_of(uint64_t ms)
{
    return ms / WHEEL_TICK_MS + 1;
}

static void insert(struct wheel *wheel, struct wheel_timer *timer, uint64_t tick)
{
    size_t slot = tick % WHEEL_SLOTS;
    struct wheel_timer **head = &wheel->slots[slot];

    assert(!timer->link && tick > wheel->tick);
    timer->tick = tick;
    timer->next = *head;
    timer->link = head;
    if (timer->next)
        timer->next->link = &timer->next;
    *head = timer;
    wheel->used[slot / 64] |= UINT64_C(1) << slot % 64;
}

void wheel_init(struct wheel *wheel, uint64_t now_ms)
{
    memset(wheel, 0, sizeof *wheel);
    wheel->tick = now_ms / WHEEL_TICK_MS;
}

void wheel_set(struct wheel *wheel, struct wheel_timer *timer, uint64_t deadline_ms)
{
    uint64_t tick;

    timer->deadline_ms = deadline_ms;
    if (deadline_ms == WHEEL_NEVER)
        return; /* the wheel drops it when it gets there */
    tick = tick_of(deadline_ms);
    if (timer->link && timer->tick <= tick)
        return;
    wheel_remove(timer);
    insert(wheel, timer, tick > wheel->tick ? tick : wheel->tick + 1);
}

void wheel_remove(struct wheel_timer *timer)
{
    if (!timer->link)
        return;
    assert(*timer->link == timer);
    *timer->link = timer->next;
    if (timer->next)
        timer->next->link = timer->link;
    timer->next = NULL;
    timer->link = NULL;
}

/* Look at what is in SLOT, all ticks up to wheel->tick being over. */
static void look(struct wheel *wheel, size_t slot, uint64_t now_ms,
                 void (*fire)(struct wheel_timer *, void *), void *arg)
{
    struct wheel_timer *todo = wheel->slots[slot];

    /* FIRE may take any timer out of this list, and put any into the slot. */
    wheel->slots[slot] = NULL;
    wheel->used[slot / 64] &= ~(UINT64_C(1) << slot % 64);
    if (todo)
        todo->link = &todo;
    while (todo) {
        struct wheel_timer *timer = todo;

        wheel_remove(timer);
        if (timer->deadline_ms == WHEEL_NEVER)
            continue;
        if (timer->deadline_ms > now_ms)
            wheel_set(wheel, timer, timer->deadline_ms); /* of a later turn, or moved meanwhile */
        else
            fire(timer, arg);
    }
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms,
                   void (*fire)(struct wheel_timer *timer, void *arg), void *arg)
{
    uint64_t now = now_ms / WHEEL_TICK_MS, from = wheel->tick;

    if (now <= from)
        return;
    wheel->tick = now;
    if (now - from > WHEEL_SLOTS)
        from = now - WHEEL_SLOTS;
    for (uint64_t tick = from + 1; tick <= now; tick++)
        if (wheel->used[tick % WHEEL_SLOTS / 64] >> tick % 64 & 1)
            look(wheel, tick % WHEEL_SLOTS, now_ms, fire, arg);
}

uint64_t wheel_wait_ms(const struct wheel *wheel, uint64_t now_ms, uint64_t max_ms)
{
    for (uint64_t ahead = 1; ahead <= WHEEL_SLOTS;) {
        uint64_t tick = wheel->tick + ahead, at = tick * WHEEL_TICK_MS;
        size_t slot = tick % WHEEL_SLOTS;
        uint64_t bits = wheel->used[slot / 64] >> slot % 64;

        if (!bits) {
            ahead += 64 - slot % 64;
            continue;
        }
        at += (uint64_t)__builtin_ctzll(bits) * WHEEL_TICK_MS;
        if (at <= now_ms)
            return 0;
        return at - now_ms < max_ms ? at - now_ms : max_ms;
    }
    return max_ms;
}
