/*
 * cluster/link.h over a simulated network: frames with a delay, some of them lost, doubled or
 * overtaken; paths that are cut in one direction or both; connections that break with their process
 * or after a while without a way, and are made again.
 *
 * The real link keeps each connection's frames in order and delivers none twice; here both may
 * happen all the same, since its users must not rely on it (a connection that was made again does
 * both).
 */
#include "base/hash.h"
#include "tests/cluster_sim/world.h"

#include <stdio.h>
#include <stdlib.h>

#define BREAKS_AFTER (10 * SECOND) /* without a way */
#define BYTES_PER_MS 100000
#define INBOX        256

struct connection {
    link_peer handle; /* 0: free */
    char address[LINK_ADDRESS_BYTES];
    unsigned to;
    bool up;
    uint32_t life; /* of the process it leads to */
    uint64_t retry_at, cut_since;
};

struct link {
    struct node *node;
    struct link_config config;
    struct connection connections[4 * NODES];
    link_peer last;
    unsigned patience;
    struct link_stats count;
    struct frame **inbox;
    size_t inbox_count, inbox_cap;
};

/* ---- The wire ---- */

static bool earlier(const struct frame *a, const struct frame *b)
{
    return a->at != b->at ? a->at < b->at : a->serial < b->serial;
}

static void push(struct frame *frame)
{
    if (world.frame_count == world.frame_cap) {
        world.frame_cap = world.frame_cap ? 2 * world.frame_cap : 256;
        world.heap = realloc(world.heap, world.frame_cap * sizeof *world.heap);
        if (!world.heap)
            abort();
    }
    size_t i = world.frame_count++;

    for (; i > 0 && earlier(frame, world.heap[(i - 1) / 2]); i = (i - 1) / 2)
        world.heap[i] = world.heap[(i - 1) / 2];
    world.heap[i] = frame;
}

static struct frame *pop(void)
{
    struct frame *first = world.heap[0], *last = world.heap[--world.frame_count];
    size_t i = 0;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= world.frame_count)
            break;
        if (child + 1 < world.frame_count && earlier(world.heap[child + 1], world.heap[child]))
            child++;
        if (!earlier(world.heap[child], last))
            break;
        world.heap[i] = world.heap[child];
        i = child;
    }
    world.heap[i] = last;
    return first;
}

static void launch(struct path *path, const struct frame *model, const void *data)
{
    struct frame *frame = malloc(sizeof *frame + model->len);
    uint64_t at = path->busy_until > world.now ? path->busy_until : world.now;

    if (!frame)
        abort();
    *frame = *model;
    memcpy(frame->data, data, model->len);
    path->busy_until = at + model->len * MS / BYTES_PER_MS;
    at = path->busy_until + path->delay_ns + (path->jitter_ns ? dice(path->jitter_ns) : 0);
    if (chance(path->swap))
        at += around(200 * MS);
    else if (at <= path->last[model->back])
        at = path->last[model->back] + 1000;
    if (at > path->last[model->back])
        path->last[model->back] = at;
    frame->at = at;
    frame->serial = world.serial++;
    path->under_way++;
    push(frame);
}

static int post(struct link *link, struct frame *model, const void *data)
{
    struct path *path = &world.paths[model->from][model->to];

    if (model->len > LIMIT_WIRE_BYTES)
        return ERR_TOO_BIG;
    if (path->under_way >= LIMIT_LINK_FRAMES_OUT) {
        link->count.full++;
        return ERR_FULL;
    }
    link->count.frames_out++;
    link->count.bytes_out += model->len;
    if (link->node->sim.disk->dead)
        return 0; /* a dead process sends nothing */
    if (path->cut || chance(path->loss)) {
        atomic_fetch_add(&world.counts->lost, 1);
        return 0;
    }
    launch(path, model, data);
    if (chance(path->twice)) {
        atomic_fetch_add(&world.counts->doubled, 1);
        launch(path, model, data);
    }
    return 0;
}

uint64_t network_next(void)
{
    return world.frame_count ? world.heap[0]->at : NEVER;
}

void network_deliver(void)
{
    struct frame *frame = pop();
    struct node *node = &world.nodes[frame->to];

    world.paths[frame->from][frame->to].under_way--;
    if (!node->up || node->life != frame->to_life || node->sim.disk->dead) {
        free(frame);
        return;
    }
    struct link *link = node->link;
    if (link->inbox_count == link->inbox_cap) {
        link->inbox_cap = link->inbox_cap ? 2 * link->inbox_cap : INBOX;
        link->inbox = realloc(link->inbox, link->inbox_cap * sizeof(struct frame *));
        if (!link->inbox)
            abort();
    }
    link->inbox[link->inbox_count++] = frame;
    atomic_fetch_add(&world.counts->frames, 1);
    if (node->due[STEP_TURN] > world.now)
        node->due[STEP_TURN] = world.now;
}

void network_calm(void)
{
    for (unsigned a = 0; a < NODES; a++)
        for (unsigned b = 0; b < NODES; b++) {
            struct path *path = &world.paths[a][b];

            path->cut = false;
            path->loss = path->twice = path->swap = 0;
            path->delay_ns = MS / 4;
            path->jitter_ns = MS / 2;
        }
}

void network_release(void)
{
    while (world.frame_count)
        free(pop());
    free(world.heap);
}

/* ---- Connections ---- */

static bool is_cut(const struct link *link, const struct connection *c)
{
    return world.paths[link->node->index][c->to].cut || world.paths[c->to][link->node->index].cut;
}

static void lose(struct connection *c)
{
    c->up = false;
    c->cut_since = 0;
    c->retry_at = world.now + (100 + dice(900)) * MS;
}

/* How it stands now: there are no events for that, it is found out when somebody asks. */
static void follow(const struct link *link, struct connection *c)
{
    const struct node *other = &world.nodes[c->to];

    if (c->up && (!other->up || other->life != c->life)) {
        lose(c);
    } else if (c->up && is_cut(link, c)) {
        if (c->cut_since == 0)
            c->cut_since = world.now;
        else if (world.now - c->cut_since >= BREAKS_AFTER)
            lose(c);
    } else if (c->up) {
        c->cut_since = 0;
    } else if (world.now >= c->retry_at) {
        if (other->up && !other->sim.disk->dead && !is_cut(link, c) && c->to != link->node->index) {
            c->up = true;
            c->life = other->life;
            c->cut_since = 0;
        } else {
            lose(c);
        }
    }
}

static struct connection *find(const struct link *link, link_peer handle)
{
    for (size_t i = 0; handle && i < 4 * NODES; i++)
        if (link->connections[i].handle == handle)
            return (struct connection *)&link->connections[i];
    return NULL;
}

int link_peer_open(struct link *link, const char *address, link_peer *peer)
{
    struct connection *free_one = NULL;
    unsigned to = NODES;

    for (unsigned i = 0; i < NODES; i++)
        if (strcmp(world.nodes[i].address, address) == 0)
            to = i;
    if (to == NODES)
        return ERR_INVALID;
    for (size_t i = 0; i < 4 * NODES; i++) {
        struct connection *c = &link->connections[i];

        if (c->handle && strcmp(c->address, address) == 0) {
            *peer = c->handle;
            return 0;
        }
        if (!c->handle)
            free_one = c;
    }
    if (!free_one)
        return ERR_FULL;
    *free_one = (struct connection){
        .handle = ++link->last, .to = to, .retry_at = world.now + 2 * MS + dice(5 * MS)};
    (void)snprintf(free_one->address, sizeof free_one->address, "%s", address);
    *peer = free_one->handle;
    return 0;
}

void link_peer_close(struct link *link, link_peer handle)
{
    struct connection *c = find(link, handle);

    if (c)
        *c = (struct connection){.handle = 0};
}

enum link_state link_peer_state(const struct link *link, link_peer handle)
{
    struct connection *c = find(link, handle);

    if (!c)
        return LINK_DOWN;
    follow(link, c);
    return c->up ? LINK_UP : LINK_DOWN;
}

const char *link_peer_address(const struct link *link, link_peer handle)
{
    const struct connection *c = find(link, handle);

    return c ? c->address : "";
}

int link_send(struct link *link, link_peer handle, const void *data, size_t len)
{
    struct connection *c = find(link, handle);

    if (c)
        follow(link, c);
    if (!c || !c->up) {
        link->count.gone++;
        return ERR_CLOSED;
    }
    struct frame frame = {.from = (uint8_t)link->node->index,
                          .to = (uint8_t)c->to,
                          .from_life = link->node->life,
                          .to_life = c->life,
                          .handle = handle,
                          .len = (uint32_t)len};
    return post(link, &frame, data);
}

int link_reply(struct link *link, const struct link_from *from, const void *data, size_t len)
{
    uint32_t life;
    link_peer handle;

    if (from->peer)
        return link_send(link, from->peer, data, len);
    memcpy(&life, from->id + 4, sizeof life);
    memcpy(&handle, from->id + 8, sizeof handle);
    const struct node *other = &world.nodes[from->id[0]];
    const struct connection *c =
        other->up && other->life == life ? find(other->link, handle) : NULL;
    if (!c || !c->up || c->life != link->node->life) {
        link->count.gone++;
        return ERR_CLOSED;
    }
    struct frame frame = {.from = (uint8_t)link->node->index,
                          .to = (uint8_t)other->index,
                          .back = true,
                          .from_life = link->node->life,
                          .to_life = life,
                          .handle = handle,
                          .len = (uint32_t)len};
    return post(link, &frame, data);
}

/* ---- The whole ---- */

int link_open(struct link **out, const struct link_config *config, char *message, size_t cap)
{
    struct link *link = calloc(1, sizeof *link);

    (void)message, (void)cap;
    if (!link)
        abort();
    link->node = world.at;
    link->config = *config;
    world.at->link = link;
    *out = link;
    return 0;
}

void link_close(struct link **link)
{
    if (!*link)
        return;
    for (size_t i = 0; i < (*link)->inbox_count; i++)
        free((*link)->inbox[i]);
    (*link)->node->link = NULL;
    free((*link)->inbox);
    free(*link);
    *link = NULL;
}

const char *link_address(const struct link *link)
{
    return link->node->address;
}

static void hand_over(struct link *link, const struct frame *frame)
{
    struct link_from from = {.id_len = LINK_ID_BYTES};

    (void)snprintf(from.ip, sizeof from.ip, "10.0.0.%u", frame->from + 1u);
    if (frame->back) {
        const struct connection *c = find(link, frame->handle);

        if (!c || !c->up)
            return; /* it was closed meanwhile */
        from.peer = frame->handle;
    }
    from.id[0] = frame->from;
    memcpy(from.id + 4, &frame->from_life, sizeof frame->from_life);
    memcpy(from.id + 8, &frame->handle, sizeof frame->handle);
    link->count.frames_in++;
    link->count.bytes_in += frame->len;
    note(1 + frame->from + 16 * frame->to, frame->len, xxh64(frame->data, frame->len, 0));
    link->config.receive(link->config.arg, &from, frame->data, frame->len);
}

int link_poll(struct link *link, unsigned timeout_ms)
{
    size_t count = link->inbox_count < LIMIT_LINK_BURST ? link->inbox_count : LIMIT_LINK_BURST;
    struct frame *taken[LIMIT_LINK_BURST];

    link->patience = timeout_ms;
    if (count == 0)
        return 0;
    memcpy(taken, link->inbox, count * sizeof *taken);
    link->inbox_count -= count;
    memmove(link->inbox, link->inbox + count, link->inbox_count * sizeof *taken);
    for (size_t i = 0; i < count; i++) {
        if (!link->node->sim.disk->dead)
            hand_over(link, taken[i]);
        free(taken[i]);
    }
    return (int)count;
}

void link_wake(struct link *link)
{
    struct node *node = link->node;
    uint64_t at = world.now + dice(MS);

    if (node->due[STEP_TURN] > at)
        node->due[STEP_TURN] = at;
}

void link_stats(struct link *link, struct link_stats *out)
{
    *out = link->count;
}

unsigned link_patience(const struct link *link)
{
    return link->patience;
}

bool link_has_frames(const struct link *link)
{
    return link->inbox_count > 0;
}
