/* A breaker, a lock, a clock and dice. */
#include "cluster/cloud_gate.h"

#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>

struct cloud_gate {
    struct env *env;
    pthread_mutex_t lock;
    struct breaker breaker;
};

int cloud_gate_create(struct cloud_gate **out, struct env *env)
{
    struct cloud_gate *gate = calloc(1, sizeof *gate);

    *out = gate;
    if (!gate)
        return ERR_NO_MEMORY;
    gate->env = env;
    (void)pthread_mutex_init(&gate->lock, NULL);
    return 0;
}

void cloud_gate_destroy(struct cloud_gate **gate)
{
    if (!*gate)
        return;
    (void)pthread_mutex_destroy(&(*gate)->lock);
    free(*gate);
    *gate = NULL;
}

uint32_t cloud_gate_ask(struct cloud_gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    uint32_t ticket = breaker_ask(&gate->breaker, env_mono_ms(gate->env));

    (void)pthread_mutex_unlock(&gate->lock);
    return ticket;
}

/* A trial that fails changes it back and forth: only whole outages are told. */
static void say(enum breaker_state before, enum breaker_state after)
{
    if (before == BREAKER_CLOSED && after == BREAKER_OPEN)
        log_warn("cloud: it does not answer; it is asked again now and then, and what is owed to "
                 "it waits");
    else if (after == BREAKER_CLOSED)
        log_info("cloud: it answers again");
}

void cloud_gate_step(struct cloud_gate *gate, uint32_t ticket, enum breaker_outcome outcome,
                     uint32_t retry_after_ms)
{
    uint64_t dice;

    gate->env->random(gate->env, &dice, sizeof dice);
    (void)pthread_mutex_lock(&gate->lock);
    enum breaker_state before = gate->breaker.state;
    bool changed =
        breaker_step(&gate->breaker, ticket, outcome, retry_after_ms, env_mono_ms(gate->env), dice);
    enum breaker_state after = gate->breaker.state;

    (void)pthread_mutex_unlock(&gate->lock);
    if (changed)
        say(before, after);
}

uint64_t cloud_gate_wait_ms(struct cloud_gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    uint64_t wait_ms = breaker_wait_ms(&gate->breaker, env_mono_ms(gate->env));

    (void)pthread_mutex_unlock(&gate->lock);
    return wait_ms;
}

struct breaker cloud_gate_state(struct cloud_gate *gate)
{
    (void)pthread_mutex_lock(&gate->lock);
    struct breaker state = gate->breaker;

    (void)pthread_mutex_unlock(&gate->lock);
    return state;
}
