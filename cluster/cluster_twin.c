/*
 * What this node does about twins (twin.h): it tells its peers which process it is, tells two
 * processes of one other node of each other, and, where the twin is its own, says so loudly and
 * stops, if it is the younger of the two.
 *
 *   third node        hears both over a few seconds -> tells each of the other (WIRE_TWIN)
 *   the twins         one asks where its id was last said to be reached, before it journals another
 *                     address; so they find each other without a third one, and before anybody is
 *                     led astray
 *
 * Nothing is lost by the stop: what was acknowledged is on the disk of the process that stops, and
 * becomes part of the cluster again when that is started with an id of its own.
 *
 * A machine that was copied while it ran has one process id twice. What tells is another address,
 * or its run, which is frozen then (journal/freeze.c); with that a process draws a new id for
 * itself.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <string.h>

#define SAY_AGAIN_MS 10000
#define MOVE_MS      3000 /* for an answer from where this node was before */

int twin_open(struct cluster *cluster)
{
    cluster->process = ulid_make(cluster->env, env_wall_ms(cluster->env));
    return twins_create(&cluster->twins);
}

static struct wire_message which_process(const struct cluster *cluster, enum wire_type type)
{
    return (struct wire_message){
        .type = type,
        .process = {cluster->process, {cluster->advertise, (uint32_t)strlen(cluster->advertise)}}};
}

void twin_tick(struct cluster *cluster, uint64_t now_ms)
{
    const struct wire_message message = which_process(cluster, WIRE_PROCESS);

    if (now_ms - cluster->process_said_ms < TWIN_SAY_MS)
        return;
    cluster->process_said_ms = now_ms;
    for (size_t i = 0; i < cluster->peer_count; i++)
        if (cluster->peers[i].alive)
            peer_send(cluster, &cluster->peers[i].node, &message);
}

void twin_ask(struct cluster *cluster, const char *address)
{
    const struct wire_message message = which_process(cluster, WIRE_PROCESS);

    peer_send_to(cluster, address, &message);
}

bool twin_may_move(struct cluster *cluster, const char *before)
{
    uint64_t now_ms = cluster_now(cluster);

    if (!cluster->moving_since_ms)
        cluster->moving_since_ms = now_ms;
    if (cluster->displaced || now_ms - cluster->moving_since_ms >= MOVE_MS)
        return !cluster->displaced;
    if (now_ms - cluster->moving_asked_ms >= TWIN_SAY_MS / 2) {
        cluster->moving_asked_ms = now_ms;
        twin_ask(cluster, before);
    }
    return false;
}

void twin_run_frozen(struct cluster *cluster)
{
    cluster->process = ulid_make(cluster->env, env_wall_ms(cluster->env));
}

static void found_own(struct cluster *cluster, const struct wire_process *other)
{
    bool yields = twin_yields(&cluster->process, &other->process);
    uint64_t now_ms = cluster_now(cluster);
    char id[ULID_TEXT_BYTES + 1];

    if (cluster->twin_said_ms && now_ms - cluster->twin_said_ms < SAY_AGAIN_MS)
        return;
    cluster->twin_said_ms = now_ms;
    ulid_format(id, &cluster->self);
    log_error(
        "cluster: another process answers as this node, %s, at %.*s: one of the two runs on a "
        "copy of the other's directories. %s",
        id, (int)other->address.len, other->address.len ? other->address.ptr : "?",
        yields ? "It was started first, so this one stops"
               : "This one was started first and goes on; the other one has to stop");
    log_error(
        "cluster: give the copy an id of its own, with 'objctl journal new-node-id', before it "
        "is started again; nothing that it has taken is lost");
    if (!yields || cluster->displaced)
        return;
    cluster->displaced = true;
    if (cluster->on_displaced)
        cluster->on_displaced(cluster->on_displaced_arg);
}

/* A process of our id: is it another one than this? One of our very ULID, too, if it says to be
 * reached elsewhere. */
static bool is_another(const struct cluster *cluster, const struct wire_process *process)
{
    struct text address = process->address;

    if (!id_equal(&process->process, &cluster->process))
        return true;
    return address.len && *cluster->advertise &&
           (address.len != strlen(cluster->advertise) ||
            memcmp(address.ptr, cluster->advertise, address.len) != 0);
}

/* We are told of another process of our id. */
static void heard_twin(struct cluster *cluster, const struct wire_process *other)
{
    if (!is_another(cluster, other))
        return;
    if (id_equal(&other->process, &cluster->process))
        twin_run_frozen(cluster); /* copied while it ran: whoever is told first is the younger */
    found_own(cluster, other);
}

/* Somebody told us who it is. */
static void heard_process(struct cluster *cluster, const struct wire_message *message)
{
    struct wire_message answer = which_process(cluster, WIRE_TWIN);
    uint64_t now_ms = cluster_now(cluster);
    char id[ULID_TEXT_BYTES + 1];

    if (id_equal(&message->from, &cluster->self)) {
        if (!is_another(cluster, &message->process))
            return; /* an address in our list is our own */
        peer_reply(cluster, &answer);
        found_own(cluster, &message->process);
        return;
    }
    if (!twins_heard(cluster->twins, &message->from, &message->process, now_ms, &answer.process))
        return;
    peer_reply(cluster, &answer);
    if (cluster->twins_said_ms && now_ms - cluster->twins_said_ms < SAY_AGAIN_MS)
        return;
    cluster->twins_said_ms = now_ms;
    ulid_format(id, &message->from);
    log_warn(
        "cluster: two processes answer as node %s, at %.*s and at %.*s: the younger one is told "
        "to stop",
        id, (int)message->process.address.len,
        message->process.address.len ? message->process.address.ptr : "?",
        (int)answer.process.address.len,
        answer.process.address.len ? answer.process.address.ptr : "?");
}

bool twin_message(struct cluster *cluster, const struct wire_message *message)
{
    if (message->type == WIRE_PROCESS)
        heard_process(cluster, message);
    else if (message->type != WIRE_TWIN)
        return false;
    else
        heard_twin(cluster, &message->process);
    return true;
}
