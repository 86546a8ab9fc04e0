/*
 * Whom this node talks to: its table of peers, frames to and from them, and what the probe core
 * says about them.
 *
 *   joining   a seed answers (MET), or a node with our tag probes us: it becomes a guest. Guests
 * are synced with as members are, since the event that makes them members comes that way. A node
 * with company whose joining is not journaled journals it. member    known by a member event;
 * probed each second leaving   says so in its probes; stays a member
 *
 * A peer is spoken to over our own connection where that is up, else back over the one on which it
 * came to us. What comes from them is cluster_hear.c's.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUEST_MS    10000 /* without a word: forgotten */
#define COMPLAIN_MS 10000

static struct text text_of(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

/* TEXT into OUT, terminated; false where it does not fit. */
static bool copy_text(char *out, size_t cap, struct text text)
{
    if (text.len >= cap)
        return false;
    if (text.len)
        memcpy(out, text.ptr, text.len);
    out[text.len] = '\0';
    return true;
}

struct peer *peer_find(struct cluster *cluster, const struct id128 *node)
{
    for (size_t i = 0; i < cluster->peer_count; i++)
        if (id_equal(&cluster->peers[i].node, node))
            return &cluster->peers[i];
    return NULL;
}

size_t peer_alive(struct cluster *cluster, struct id128 *out, size_t max)
{
    size_t count = 0;

    for (size_t i = 0; i < cluster->peer_count && count < max; i++)
        if (cluster->peers[i].alive)
            out[count++] = cluster->peers[i].node;
    return count;
}

/* ---- Sending ---- */

bool peer_may_complain(struct cluster *cluster)
{
    uint64_t now_ms = cluster_now(cluster);

    if (cluster->complained_ms && now_ms - cluster->complained_ms < COMPLAIN_MS)
        return false;
    cluster->complained_ms = now_ms;
    return true;
}

/* Our connection to the place named ADDRESS; 0: there is none yet. */
static link_peer connection(struct cluster *cluster, const char *address)
{
    const char *place = *address ? places_find(cluster->places, address) : NULL;
    link_peer link = 0;

    if (!place)
        return 0;
    int rc = link_peer_open(cluster->link, place, &link);
    if (rc == ERR_PERMISSION && peer_may_complain(cluster))
        log_warn("cluster: without a secret no node beyond this machine is connected to: %s",
                 address);
    return rc ? 0 : link;
}

static const struct buf *encode(struct cluster *cluster, const struct wire_message *message)
{
    struct wire_message whole = *message;

    whole.tag = text_of(cluster->tag);
    whole.from = cluster->self;
    buf_reset(&cluster->frame);
    wire_encode(&cluster->frame, &whole);
    return buf_check(&cluster->frame) == 0 ? &cluster->frame : NULL;
}

/* Our connection is not PEER's any more; it stays where another one is reached by it. */
static void drop_link(struct cluster *cluster, struct peer *peer)
{
    bool shared = false;

    for (size_t i = 0; i < cluster->peer_count; i++)
        shared |= &cluster->peers[i] != peer && cluster->peers[i].link == peer->link;
    if (peer->link && !shared)
        link_peer_close(cluster->link, peer->link);
    peer->link = 0;
}

/* PEER is reached at ADDRESS from now on. Whoever answers at the old place may be another node. */
static void move(struct cluster *cluster, struct peer *peer, struct text address)
{
    char text[MEMBER_ADDRESS_BYTES + 1];

    if (!copy_text(text, sizeof text, address) || strcmp(text, peer->address) == 0)
        return;
    memcpy(peer->address, text, sizeof peer->address);
    drop_link(cluster, peer);
}

void peer_transmit(struct cluster *cluster, struct peer *peer, const void *data, size_t len)
{
    int rc = ERR_CLOSED;

    if (!peer->link || link_peer_state(cluster->link, peer->link) != LINK_UP) {
        link_peer now = connection(cluster, peer->address);

        /* Its name leads to another place: what is left of the old one is closed. */
        if (now && now != peer->link) {
            drop_link(cluster, peer);
            peer->link = now;
        }
    }
    if (peer->link)
        rc = link_send(cluster->link, peer->link, data, len);
    if (rc == ERR_CLOSED && peer->has_back) {
        rc = link_reply(cluster->link, &peer->back, data, len);
        if (rc == ERR_CLOSED)
            peer->has_back = false;
    }
    if (rc)
        cluster->undelivered++;
}

void peer_send(struct cluster *cluster, const struct id128 *node,
               const struct wire_message *message)
{
    struct peer *peer = peer_find(cluster, node);
    const struct buf *frame = peer ? encode(cluster, message) : NULL;

    if (frame)
        pack_send(cluster, peer, frame);
    else
        cluster->undelivered++;
}

static void send_to_seed(struct cluster *cluster, const struct probe_output *output)
{
    char address[MEMBER_ADDRESS_BYTES + 1];

    if (!copy_text(address, sizeof address, output->address))
        return;
    link_peer link = connection(cluster, address);
    const struct buf *frame = link ? encode(cluster, &output->message) : NULL;
    if (!frame || link_send(cluster->link, link, frame->data, frame->len) != 0) {
        cluster->undelivered++; /* the core asks again, later and later */
        say_seed(cluster, address, link_peer_state(cluster->link, link));
    }
}

void peer_send_to(struct cluster *cluster, const char *address, const struct wire_message *message)
{
    link_peer link = connection(cluster, address);
    const struct buf *frame = link ? encode(cluster, message) : NULL;

    if (!frame || link_send(cluster->link, link, frame->data, frame->len) != 0)
        cluster->undelivered++;
}

void peer_reply(struct cluster *cluster, const struct wire_message *message)
{
    const struct buf *frame = cluster->current ? encode(cluster, message) : NULL;

    if (!frame || link_reply(cluster->link, cluster->current, frame->data, frame->len) != 0)
        cluster->undelivered++;
}

/* ---- The table ---- */

static void set_alive(struct cluster *cluster, struct peer *peer, bool alive)
{
    struct sync_input input = {.kind = SYNC_PEER, .peer = {.node = peer->node, .alive = alive}};

    if (peer->alive == alive)
        return;
    peer->alive = alive;
    cluster_sync(cluster, &input);
    cluster_merge(cluster, &(struct merge_input){.kind = MERGE_PEER,
                                                 .peer = {.node = peer->node, .alive = alive}});
    fetch_peer(cluster->fetches, &peer->node, alive, cluster_now(cluster));
    notes_peer(cluster->notes, &peer->node, alive);
    if (alive)
        replicator_revive(cluster->replicator);
    else
        serve_peer_failed(cluster->serve, &peer->node);
}

/* NODE's row, made where it is missing. NULL: there are too many. */
static struct peer *peer_need(struct cluster *cluster, const struct id128 *node)
{
    struct peer *peer = peer_find(cluster, node);

    if (peer || id_equal(node, &cluster->self) || id_is_zero(node))
        return peer;
    if (cluster->peer_count == LIMIT_PEERS)
        return NULL;
    peer = &cluster->peers[cluster->peer_count++];
    *peer = (struct peer){.node = *node, .heard_ms = cluster_now(cluster)};
    buf_init(&peer->pack, LIMIT_WIRE_PACK_BYTES);
    journal_share_events(cluster->journal);
    pthread_mutex_lock(&cluster->lock);
    cluster->alone = false;
    pthread_mutex_unlock(&cluster->lock);
    return peer;
}

static void forget(struct cluster *cluster, struct peer *peer)
{
    set_alive(cluster, peer, false);
    pack_flush(cluster, peer);
    buf_release(&peer->pack);
    drop_link(cluster, peer);
    *peer = cluster->peers[--cluster->peer_count];
}

/* A node of ours that is no member (yet) was heard of at ADDRESS. */
void peer_welcome(struct cluster *cluster, const struct id128 *node, struct text address,
                  const struct wire_summary *summary)
{
    const struct member *row = members_find(cluster->members, node);
    /* Who left or was thrown out is a guest: it brings and gets facts, and is no member until
     * somebody there says so (cluster_rejoin). */
    bool news = row && row->state == MEMBER_FORGOTTEN && !peer_find(cluster, node);
    struct peer *peer = cluster->unfit ? NULL : peer_need(cluster, node);

    if (!peer)
        return;
    if (news)
        say_back(cluster, node);
    peer->heard_ms = cluster_now(cluster);
    /* Also of a member, which may have moved: that is journaled, but where its old place has been
     * taken by another node nothing would ever reach it to fetch the news. */
    if (address.len)
        move(cluster, peer, address);
    if (row && row->state == MEMBER_JOINED)
        return; /* the probes see to it */
    set_alive(cluster, peer, true);
    if (summary) {
        struct sync_input input = {.kind = SYNC_PEER_SUMMARY,
                                   .summary = {.node = *node, .summary = *summary}};

        cluster_sync(cluster, &input);
    }
    peer_join(cluster);
}

void peer_tick(struct cluster *cluster, uint64_t now_ms)
{
    for (size_t i = cluster->peer_count; i-- > 0;) {
        struct peer *peer = &cluster->peers[i];

        if (!peer->member && now_ms - peer->heard_ms >= GUEST_MS)
            forget(cluster, peer);
    }
}

/* ---- Membership ---- */

void peer_members(struct cluster *cluster, const struct db_member *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct member row = {.node = rows[i].node, .at = rows[i].at, .state = rows[i].state};
        const struct member *known = members_find(cluster->members, &row.node);
        enum member_state before = known ? known->state : 0;
        bool changed = false;

        if (!copy_text(row.address, sizeof row.address, text_of(rows[i].address)) ||
            members_set(cluster->members, &row, &changed) != 0 || !changed)
            continue;
        if (id_equal(&row.node, &cluster->self)) {
            cluster->fact_under_way = false;
            say_self(cluster, row.state);
            continue;
        }
        say_member(cluster, &row, before);
        bool joined = row.state == MEMBER_JOINED;
        struct peer *peer = joined ? peer_need(cluster, &row.node) : peer_find(cluster, &row.node);
        if (peer) {
            if (joined)
                move(cluster, peer, text_of(row.address));
            peer->member = joined;
            peer->heard_ms = cluster_now(cluster);
        }
        struct probe_input input = {
            .kind = PROBE_MEMBER,
            .member = {.node = row.node, .address = text_of(row.address), .joined = joined}};
        peer_probe(cluster, &input);
        if (peer && !joined && !peer->alive)
            forget(cluster, peer); /* when it is heard again, that is news */
        cluster->view_ms = 0;      /* others shall see it at once */
    }
}

struct fact_job {
    struct change change; /* first: the committer hands it back */
    struct delivery delivery;
    struct cluster *cluster;
    struct event event;
    char address[MEMBER_ADDRESS_BYTES + 1];
};

static void fact_done(struct cluster *cluster, struct delivery *delivery)
{
    struct fact_job *job = container_of(delivery, struct fact_job, delivery);

    /* Where it succeeded, the news bring it. */
    if (job->change.rc) {
        log_error("cluster: that this node has joined could not be journaled: %s",
                  err_text(job->change.rc));
        cluster->fact_under_way = false;
    }
    object_destroy(&job->change.object);
    free(job);
    cluster_end(cluster);
}

static void fact_committed(struct change *change)
{
    struct fact_job *job = (struct fact_job *)change;

    cluster_deliver(job->cluster, &job->delivery);
}

void peer_join(struct cluster *cluster)
{
    const struct member *row = members_find(cluster->members, &cluster->self);

    if (cluster->peer_count == 0 || !*cluster->advertise || cluster->fact_under_way ||
        cluster->leaving)
        return;
    if (row && row->state == MEMBER_JOINED && strcmp(row->address, cluster->advertise) == 0)
        return;
    if (row && row->state != MEMBER_JOINED && !atomic_load(&cluster->rejoin))
        return; /* it left or was thrown out: that is for people to decide */
    if (row && row->state == MEMBER_JOINED && !twin_may_move(cluster, row->address))
        return;
    struct fact_job *job = calloc(1, sizeof *job);
    if (!job)
        return;
    memcpy(job->address, cluster->advertise, sizeof job->address);
    job->event = (struct event){.kind = EVENT_MEMBER,
                                .fields = EVENT_HAS_MEMBER,
                                .stamp = row ? row->at.stamp : 0,
                                .subject = cluster->self,
                                .address = text_of(job->address),
                                .member_state = MEMBER_JOINED};
    job->change.request.kind = CHANGE_FACT;
    job->change.fact = &job->event;
    job->change.done = fact_committed;
    job->delivery.run = fact_done;
    job->cluster = cluster;
    cluster_begin(cluster);
    cluster->fact_under_way = true;
    if (journal_submit(cluster->journal, &job->change) == 0)
        return;
    cluster->fact_under_way = false; /* with a later tick */
    cluster_end(cluster);
    free(job);
}

/* ---- The probe core ---- */

void peer_local(struct cluster *cluster)
{
    struct vector_sum sum = vector_sum(sync_vector(cluster->sync), VECTOR_ALL);
    struct probe_input input = {
        .kind = PROBE_LOCAL,
        .local = {
            .address = text_of(cluster->advertise),
            .summary = {.vector = sum.hash, .digest = cluster->digest, .events = cluster->events},
            .feature = FEATURE_LEVEL,
            .level = cluster->level,
            .draining = atomic_load(&cluster->draining),
            .leaving = cluster->leaving}};

    cluster->local_due = false;
    peer_probe(cluster, &input);
    /* Probes of this very millisecond may have gone out before. */
    if (input.local.draining != cluster->draining_said)
        atomic_store(&cluster->draining_ms, input.local.draining ? input.now_ms + 1 : 0);
    cluster->draining_said = input.local.draining;
}

/* Our own address as a peer sees it: its IP with the port that we listen on. */
static void learn_address(struct cluster *cluster, struct text seen)
{
    struct link_address bound, ip;
    char text[MEMBER_ADDRESS_BYTES + 1];

    if (*cluster->advertise || seen.len == 0 || !copy_text(text, sizeof text, seen) ||
        link_address_parse(&bound, link_address(cluster->link)) != 0)
        return;
    char *colon = strrchr(text, ':');
    if (link_address_parse(&ip, text) == 0 && colon)
        *colon = '\0'; /* with a port, which is that of a connection of ours */
    (void)snprintf(cluster->advertise, sizeof cluster->advertise,
                   strchr(text, ':') && text[0] != '[' ? "[%s]:%u" : "%s:%u", text, bound.port);
    log_info("cluster: others reach this node at %s", cluster->advertise);
    cluster->local_due = true;
}

static void state_changed(struct cluster *cluster, const struct probe_output *output)
{
    struct peer *peer = peer_find(cluster, &output->node);
    enum probe_state state = output->state.state;
    char id[ULID_TEXT_BYTES + 1];

    if (!peer || (state == PROBE_SUSPECT && !peer->seen))
        return; /* not heard of yet: no news to anybody */
    peer->seen = true;
    ulid_format(id, &output->node);
    log_info("cluster: node %s at %s %s %s", id, *peer->address ? peer->address : "?",
             state == PROBE_LEFT ? "has" : "is", probe_state_name(state));
    /* Whoever is only late is still worth asking. */
    if (state != PROBE_SUSPECT)
        set_alive(cluster, peer, state == PROBE_ALIVE);
}

static void summary_came(struct cluster *cluster, const struct probe_output *output)
{
    struct peer *peer = peer_find(cluster, &output->node);
    struct vector_sum own = vector_sum(sync_vector(cluster->sync), VECTOR_ALL);
    const struct wire_summary *theirs = &output->summary.summary;
    struct sync_input input = {.kind = SYNC_PEER_SUMMARY,
                               .summary = {.node = output->node, .summary = *theirs}};

    if (peer && hash128_equal(&own.hash, &theirs->vector))
        cluster_merge(cluster,
                      &(struct merge_input){
                          .kind = MERGE_COMPARE,
                          .compare = {.node = output->node,
                                      .equal = hash128_equal(&cluster->digest, &theirs->digest),
                                      .rows = cluster->rows}});
    if (peer)
        peer->digest_equal = hash128_equal(&own.hash, &theirs->vector) &&
                             hash128_equal(&cluster->digest, &theirs->digest);
    cluster_sync(cluster, &input);
    orders_summary(cluster, &output->node);
}

/* It has our id, but may be another process. */
static void ask_seed(struct cluster *cluster, struct text where)
{
    char address[MEMBER_ADDRESS_BYTES + 1];

    if (copy_text(address, sizeof address, where))
        twin_ask(cluster, address);
}

static void perform(struct cluster *cluster, const struct probe_output *output)
{
    switch (output->kind) {
    case PROBE_SEND:
        peer_send(cluster, &output->node, &output->message);
        return;
    case PROBE_SEND_SEED:
        send_to_seed(cluster, output);
        return;
    case PROBE_REPLY:
        peer_reply(cluster, &output->message);
        return;
    case PROBE_STATE:
        state_changed(cluster, output);
        return;
    case PROBE_MET: {
        struct text where = output->met.advertised.len ? output->met.advertised : output->address;

        learn_address(cluster, output->met.seen);
        peer_welcome(cluster, &output->node, where, NULL);
        orders_met(cluster, output->address, &output->node);
        return;
    }
    case PROBE_SELF:
        log_info("cluster: seed %.*s is this node itself", (int)output->address.len,
                 output->address.ptr);
        ask_seed(cluster, output->address);
        orders_met(cluster, output->address, &cluster->self);
        return;
    case PROBE_PEER_SUMMARY:
        summary_came(cluster, output);
        return;
    }
}

/* Performing an output takes no step of the core: they are lent until then. */
int peer_probe(struct cluster *cluster, struct probe_input *input)
{
    const struct probe_output *outputs;
    size_t count;

    input->now_ms = cluster_now(cluster);
    input->wall_ms = env_wall_ms(cluster->env);
    int rc = probe_step(cluster->probe, input, &outputs, &count);
    if (rc) {
        log_error("cluster: a member or seed cannot be probed: %s", err_text(rc));
        return rc;
    }
    for (size_t i = 0; i < count; i++)
        perform(cluster, &outputs[i]);
    return 0;
}
