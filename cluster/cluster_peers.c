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
 * came to us. A node of another tag is told ours, so that both sides can say why they do not join.
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

/* Of what goes on and on one line now and then is enough. */
static bool may_complain(struct cluster *cluster)
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
    if (rc == ERR_PERMISSION && may_complain(cluster))
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
static void welcome(struct cluster *cluster, const struct id128 *node, struct text address,
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
        welcome(cluster, &output->node, where, NULL);
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

/* ---- Frames ---- */

static void refuse_tag(struct cluster *cluster, const struct link_from *from,
                       const struct wire_message *message)
{
    cluster->other_tag++;
    if (may_complain(cluster))
        log_warn(
            "cluster: a node at %s has the tag \"%.*s\", not \"%s\": it is not of this cluster",
            from->ip, (int)message->tag.len, message->tag.ptr, cluster->tag);
    /* It shall know, too. Acks are not answered, so this ends here. */
    if (message->type == WIRE_PROBE) {
        const struct wire_message answer = {.type = WIRE_PROBE_ACK,
                                            .probe = {.nonce = message->probe.nonce,
                                                      .to = message->from,
                                                      .wall_ms = env_wall_ms(cluster->env)}};

        peer_reply(cluster, &answer);
    }
}

static bool is_probe(enum wire_type type)
{
    return type == WIRE_PROBE || type == WIRE_PROBE_ACK || type == WIRE_PROBE_FOR ||
           type == WIRE_PROBE_SAW;
}

static void dispatch(struct cluster *cluster, const struct link_from *from,
                     const struct wire_message *message)
{
    uint64_t now_ms = cluster_now(cluster);
    struct peer *peer;

    if (cluster->displaced)
        return; /* the other process speaks for this node */
    if (is_probe(message->type)) {
        struct probe_input input = {.kind = PROBE_MESSAGE,
                                    .message = {.message = message, .peer = text_of(from->ip)}};

        cluster->unfit = !say_fits(cluster, message);
        /* Before the answer, which goes back over `from` in any case. */
        if (message->type == WIRE_PROBE && !id_equal(&message->from, &cluster->self))
            welcome(cluster, &message->from, message->probe.address, &message->probe.summary);
        else if (message->type == WIRE_PROBE_ACK && peer_find(cluster, &message->from))
            welcome(cluster, &message->from, (struct text){NULL, 0}, &message->probe.summary);
        peer = peer_find(cluster, &message->from);
        if (peer && from->peer == 0) {
            peer->back = *from;
            peer->has_back = true;
        }
        peer_probe(cluster, &input);
        cluster->unfit = false;
        return;
    }
    if (twin_message(cluster, message))
        return;
    peer = peer_find(cluster, &message->from);
    if (cluster->leaving)
        return; /* nothing new begins */
    if (!peer) {
        cluster->refused++; /* nobody we know: it has to probe first */
        return;
    }
    peer->heard_ms = now_ms;
    if (peer->member) {
        struct probe_input input = {.kind = PROBE_HEARD, .heard = message->from};

        peer_probe(cluster, &input);
    }
    switch (message->type) {
    case WIRE_SYNC_ASK:
    case WIRE_SYNC_MORE:
    case WIRE_SYNC_VECTOR:
    case WIRE_SYNC_EVENTS:
    case WIRE_SYNC_CREDIT:
    case WIRE_SYNC_FROZEN:
    case WIRE_SYNC_END: {
        struct sync_input input = {.kind = SYNC_MESSAGE, .message = *message};

        cluster_sync(cluster, &input);
        return;
    }
    case WIRE_BODY_ASK:
    case WIRE_BODY_CREDIT:
        serve_message(cluster->serve, message, now_ms);
        return;
    case WIRE_BODY_DATA:
    case WIRE_BODY_COMING:
        fetch_message(cluster->fetches, message, now_ms);
        return;
    case WIRE_BODY_END:
        if (message->flow.end == WIRE_END_CANCEL)
            serve_message(cluster->serve, message, now_ms);
        else
            fetch_message(cluster->fetches, message, now_ms);
        return;
    case WIRE_MERGE_ASK:
    case WIRE_MERGE_VECTOR:
    case WIRE_MERGE_CHUNK:
    case WIRE_MERGE_CREDIT:
    case WIRE_MERGE_SUMS_ASK:
    case WIRE_MERGE_SUMS:
    case WIRE_MERGE_END: {
        struct merge_input input = {.kind = MERGE_MESSAGE, .message = *message};

        cluster_merge(cluster, &input);
        return;
    }
    case WIRE_MERGE_CUT_ASK:
    case WIRE_MERGE_CUT_KNOWN:
        cluster_cut_message(cluster, message);
        return;
    case WIRE_NOTE:
    case WIRE_NOTE_IDS:
        notes_message(cluster->notes, message, orders_times(cluster));
        return;
    case WIRE_ADOPT:
        if (peer->member)
            operate_adopt(cluster, message);
        return;
    case WIRE_KNOWN_ASK:
    case WIRE_KNOWN:
    case WIRE_RANGE_ASK:
    case WIRE_RANGE:
    case WIRE_ROW_ASK:
    case WIRE_ROW:
        inquiry_receive(cluster, message);
        return;
    default:
        cluster->refused++;
        return;
    }
}

/* A wrong secret is the operator's to mend; told once until the connection's state changes. */
void peer_link_changed(void *arg, link_peer peer, enum link_state state)
{
    const struct cluster *cluster = arg;

    if (state == LINK_REFUSED)
        log_warn("cluster: %s lets nobody in without its secret, and this node has %s",
                 link_peer_address(cluster->link, peer),
                 cluster->secret.count ? "another one" : "none");
}

/* One message; PACKED: out of a pack, which holds no packs. */
static void receive(struct cluster *cluster, const struct link_from *from, const void *data,
                    size_t len, bool packed)
{
    struct wire_message message;

    if (wire_decode(&message, data, len) != 0 || (packed && message.type == WIRE_PACK)) {
        cluster->malformed++;
        return;
    }
    if (message.tag.len != strlen(cluster->tag) ||
        memcmp(message.tag.ptr, cluster->tag, message.tag.len) != 0) {
        refuse_tag(cluster, from, &message);
        return;
    }
    if (message.type != WIRE_PACK) {
        dispatch(cluster, from, &message);
        return;
    }
    struct text part;
    size_t offset = 0;
    while (wire_next_event(message.pack.data, &offset, &part))
        receive(cluster, from, part.ptr, part.len, true);
}

void peer_receive(void *arg, const struct link_from *from, const uint8_t *data, size_t len)
{
    struct cluster *cluster = arg;

    cluster->current = from;
    receive(cluster, from, data, len, false);
    cluster->current = NULL;
}

/* ---- For other threads ---- */

static void say_clock(const struct standing *now)
{
    double off_s = (double)(now->behind_ms < 0 ? -now->behind_ms : now->behind_ms) / 1000;

    if (now->clock_is_skewed)
        log_error("cluster: this node's clock is %.1f s %s those of the others: clients can change "
                  "nothing here until it is right",
                  off_s, now->behind_ms < 0 ? "ahead of" : "behind");
    else if (now->clock_judged)
        log_info("cluster: this node's clock is right again (%.1f s %s): clients can change things",
                 off_s, now->behind_ms < 0 ? "ahead" : "behind");
    else
        log_info("cluster: too few members answer to tell whether this node's clock is wrong: "
                 "clients can change things");
}

static unsigned joined(struct cluster *cluster)
{
    size_t rows = members_count(cluster->members);
    unsigned count = 1; /* this node, unless it is out */

    for (size_t i = 0; i < rows; i++) {
        const struct member *row = members_at(cluster->members, i);

        if (id_equal(&row->node, &cluster->self))
            count -= row->state != MEMBER_JOINED;
        else
            count += row->state == MEMBER_JOINED;
    }
    return count;
}

void peer_standing(struct cluster *cluster)
{
    struct standing now = standing_of(cluster->probe);

    if (now.clock_is_skewed != cluster->standing.clock_is_skewed)
        say_clock(&now);
    cluster->standing = now;
    atomic_store_explicit(&cluster->health, (int)now.health, memory_order_relaxed);
    atomic_store_explicit(&cluster->clock_is_skewed, now.clock_is_skewed, memory_order_relaxed);
    atomic_store_explicit(&cluster->joined, joined(cluster), memory_order_relaxed);
    copies_others(cluster->copies, now.others);
}

static struct cluster_member view_of(struct cluster *cluster, const struct member *row)
{
    struct cluster_member view = {.node = row->node,
                                  .self = id_equal(&row->node, &cluster->self),
                                  .joined = row->state,
                                  .stamp = row->at.stamp,
                                  .rtt_ms = -1};
    const struct peer *peer = peer_find(cluster, &row->node);
    struct probe_peer probed;

    memcpy(view.address, row->address, sizeof view.address);
    if (view.self) {
        view.state = PROBE_ALIVE;
        view.digest_equal = true;
        view.feature = FEATURE_LEVEL;
        view.draining = cluster->draining_said;
        (void)snprintf(view.version, sizeof view.version, "%s", OBJSTORE_VERSION);
        view.rtt_ms = 0;
    } else if (row->state == MEMBER_JOINED && probe_peer(cluster->probe, &row->node, &probed)) {
        view.state = probed.state;
        view.rtt_ms = probed.rtt_ms;
        view.feature = probed.feature;
        view.draining = probed.draining;
        view.answered_ms = probed.answered_ms;
        memcpy(view.version, probed.version, sizeof view.version);
        view.digest_equal = peer && peer->digest_equal;
    } else {
        view.state = PROBE_LEFT;
    }
    return view;
}

/* How many events the member has that has most of those that answer; each one's lag to it. */
static uint64_t lags_of(struct cluster *cluster, struct cluster_member *view, size_t count)
{
    uint64_t events[LIMIT_MEMBERS + 1], most = 0;

    for (size_t i = 0; i < count; i++) {
        struct probe_peer probed;

        events[i] = view[i].self ? cluster->events : 0;
        if (!view[i].self && probe_peer(cluster->probe, &view[i].node, &probed) && probed.heard)
            events[i] = probed.summary.events;
        if (view[i].joined == MEMBER_JOINED && view[i].state == PROBE_ALIVE && events[i] > most)
            most = events[i];
    }
    for (size_t i = 0; i < count; i++)
        if (view[i].joined == MEMBER_JOINED && events[i] && events[i] < most)
            view[i].lag_events = most - events[i];
    return most;
}

void peer_view(struct cluster *cluster)
{
    struct cluster_member view[LIMIT_MEMBERS + 1];
    struct link_stats link;
    struct fetch_stats fetch;
    struct serve_stats serve;
    struct notes_stats notes;
    const struct sync_stats *sync = sync_stats(cluster->sync);
    const struct merge_stats *merge = merge_stats(cluster->merge);
    size_t count = 0, rows = members_count(cluster->members);

    /* Those that have joined first, then those that left or were forgotten, as many as fit. */
    for (size_t pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < rows && count < LIMIT_MEMBERS; i++) {
            const struct member *row = members_at(cluster->members, i);

            if ((row->state == MEMBER_JOINED) == (pass == 0))
                view[count++] = view_of(cluster, row);
        }
    if (!members_find(cluster->members, &cluster->self)) {
        struct member self = {.node = cluster->self, .state = MEMBER_JOINED};

        memcpy(self.address, cluster->advertise, sizeof self.address);
        view[count++] = view_of(cluster, &self);
    }
    uint64_t most = lags_of(cluster, view, count);
    uint64_t now_ms = cluster_now(cluster);
    struct replicator_stats replicator;

    lag_observe(&cluster->lag, now_ms, most, cluster->events);
    replicator_stats(cluster->replicator, &replicator);
    link_stats(cluster->link, &link);
    say_strangers(cluster, &link);
    fetch_stats(cluster->fetches, &fetch);
    serve_stats(cluster->serve, &serve);
    notes_stats(cluster->notes, &notes);
    pthread_mutex_lock(&cluster->lock);
    memcpy(cluster->view, view, count * sizeof *view);
    cluster->view_count = count;
    cluster->stats = (struct cluster_stats){
        .health = cluster->standing.health,
        .clock_judged = cluster->standing.clock_judged,
        .clock_is_skewed = cluster->standing.clock_is_skewed,
        .clock_behind_ms = cluster->standing.behind_ms,
        .events_in = sync->events_in,
        .bytes_in = sync->bytes_in,
        .events_out = sync->events_out,
        .bytes_out = sync->bytes_out,
        .sessions = sync->asks,
        .timeouts = sync->timeouts,
        .rows_in = merge->rows_in,
        .row_bytes_in = merge->bytes_in,
        .rows_out = merge->rows_out,
        .row_bytes_out = merge->bytes_out,
        .merges_adopted = merge->adopted,
        .merges_repaired = merge->repaired,
        .merges_given_up = merge->given_up,
        .merges_served = merge->served,
        .merge_timeouts = merge->timeouts,
        .fetches = fetch.begun,
        .fetch_bytes = fetch.bytes,
        .fetch_failures = fetch.failed,
        .served_bytes = serve.bytes,
        .notes_said = notes.said,
        .notes_received = notes.taken,
        .notes_refused = notes.refused,
        .frames_in = link.frames_in,
        .frames_out = link.frames_out,
        .link_bytes_in = link.bytes_in,
        .link_bytes_out = link.bytes_out,
        .malformed = cluster->malformed + link.malformed,
        .other_tag = cluster->other_tag,
        .replicated_rate = rate_observe(&cluster->rate, now_ms, replicator.bytes),
        .lag_events = most > cluster->events ? most - cluster->events : 0,
        .lag_ms = lag_ms(&cluster->lag, now_ms),
        .level = cluster->level,
        .refused = cluster->refused + link.handshake_failures};
    pthread_mutex_unlock(&cluster->lock);
}
