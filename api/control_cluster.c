/*
 * Each verb looks at the members as this node sees them, asks cluster/membership.h for the rule,
 * and does it or says why not. What is refused names the command that would do it all the same.
 */
#include "api/control_cluster.h"

#include "api/control_cloud.h"

#include "api/figures.h"
#include "cluster/diff.h"
#include "cluster/drainer.h"
#include "cluster/membership.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DIFF_DEFAULT 10

struct members {
    struct cluster_member list[LIMIT_MEMBERS + 1];
    size_t count;
};

void admin_refuse(struct admin_call *call, unsigned status, const char *code, const char *format,
                  ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(call->message, sizeof call->message, format, args);
    va_end(args);
    call->status = status;
    call->code = code;
}

static void fail(struct admin_call *call, int rc)
{
    switch (rc) {
    case ERR_NO_SPACE:
        admin_refuse(call, 507, "no_space", "the disk is full");
        return;
    case ERR_READ_ONLY:
    case ERR_FULL:
    case ERR_AGAIN:
    case ERR_CLOSED:
    case ERR_TIMEOUT:
        admin_refuse(call, 503, err_name(rc), "%s", err_text(rc));
        return;
    default:
        admin_refuse(call, 500, err_name(rc), "%s", err_text(rc));
    }
}

static void look(struct admin_call *call, struct members *out)
{
    out->count = cluster_members(call->cluster, out->list, LIMIT_MEMBERS + 1);
}

/* The member that NAME, of the arguments, names by id or address; NULL: none, and it is said. */
static const struct cluster_member *named(struct admin_call *call, const struct members *members,
                                          const char *name)
{
    const char *text = json_string_value(json_object_get(call->args, name));
    struct id128 id = {{0}};

    if (!text) {
        admin_refuse(call, 400, "invalid_argument", "%s: a node's id or address is wanted", name);
        return NULL;
    }
    bool is_id = ulid_parse(&id, text, strlen(text)) == 0;
    for (size_t i = 0; i < members->count; i++) {
        const struct cluster_member *m = &members->list[i];

        if (is_id ? id_equal(&m->node, &id)
                  : m->joined == MEMBER_JOINED && strcmp(m->address, text) == 0)
            return m;
    }
    admin_refuse(call, 404, "no_such_node", "no member is known as '%.64s'", text);
    return NULL;
}

/* ---- Drain and join ---- */

static void drain_status(struct admin_call *call)
{
    struct drain_status status;
    char id[ULID_TEXT_BYTES + 1];

    drainer_status(cluster_drainer(call->cluster), &status);
    buf_char(call->out, '{');
    figures_string(call->out, "phase", drain_phase_name(status.phase));
    figures_number(call->out, "objects_left", status.objects_left);
    figures_number(call->out, "bytes_left", status.bytes_left);
    figures_number(call->out, "objects_moved", status.objects_moved);
    figures_number(call->out, "bytes_moved", status.bytes_moved);
    figures_number(call->out, "retries", status.retries);
    figures_number(call->out, "owed", status.owed);
    figures_number(call->out, "takers", status.takers);
    figures_string(call->out, "waiting", status.waiting);
    if (!id_is_zero(&status.stuck)) {
        ulid_format(id, &status.stuck);
        figures_string(call->out, "stuck", id);
    }
    buf_text(call->out, "}\n");
}

static void drain(struct admin_call *call)
{
    struct drainer *drainer = cluster_drainer(call->cluster);
    bool cancel = json_is_true(json_object_get(call->args, "cancel"));
    int rc = cancel ? drainer_cancel(drainer) : drainer_begin(drainer);

    if (rc == 0)
        drain_status(call);
    else if (rc == ERR_UNSUPPORTED && cancel)
        admin_refuse(
            call, 409, "not_draining",
            "nothing is draining that could be cancelled; a node that has left joins again with "
            "'objctl node join'");
    else if (rc == ERR_NOT_FOUND)
        admin_refuse(call, 409, "alone", "there is no other member that could take what is here");
    else if (rc == ERR_OUTSIDE)
        admin_refuse(call, 409, "not_a_member", "this node has left already, or was forgotten");
    else
        fail(call, rc);
}

static void join(struct admin_call *call)
{
    int rc = cluster_rejoin(call->cluster);

    if (rc == ERR_UNSUPPORTED)
        admin_refuse(call, 409, "member", "this node has neither left nor been forgotten");
    else if (rc == ERR_AGAIN)
        admin_refuse(call, 503, "no_other_node", "no other node of the cluster answers yet");
    else if (rc)
        fail(call, rc);
    else
        buf_text(call->out, "{\"joined\":true}\n");
}

/* ---- Forget ---- */

static void add_sole(struct buf *out, const struct cluster_sole *sole)
{
    char id[ULID_TEXT_BYTES + 1];

    figures_number(out, "objects", sole->objects);
    figures_number(out, "bytes", sole->bytes);
    figures_key(out, "ids");
    buf_char(out, '[');
    for (size_t i = 0; i < sole->objects && i < CLUSTER_SOLE_IDS; i++) {
        ulid_format(id, &sole->ids[i]);
        buf_format(out, "%s\"%s\"", i ? "," : "", id);
    }
    buf_char(out, ']');
}

/* As many of the ids as fit into the message; the count is what matters. */
static void refuse_loss(struct admin_call *call, const struct cluster_sole *sole)
{
    char ids[CLUSTER_SOLE_IDS * (ULID_TEXT_BYTES + 1) + 1], *at = ids;

    for (size_t i = 0; i < sole->objects && i < 8; i++) {
        *at++ = ' ';
        ulid_format(at, &sole->ids[i]);
        at += ULID_TEXT_BYTES;
    }
    *at = '\0';
    admin_refuse(
        call, 409, "sole_holder",
        "the only copies of %llu objects (%llu bytes) are on it; --accept-loss gives them up:%s%s",
        (unsigned long long)sole->objects, (unsigned long long)sole->bytes, ids,
        sole->objects > 8 ? " ..." : "");
}

static void forget(struct admin_call *call)
{
    bool force = json_is_true(json_object_get(call->args, "force"));
    bool accept_loss = json_is_true(json_object_get(call->args, "accept_loss"));
    struct cluster_sole sole = {0};
    struct members members;

    look(call, &members);
    const struct cluster_member *node = named(call, &members, "node");
    if (!node)
        return;
    switch (membership_forget(members.list, members.count, &node->node, force)) {
    case FORGET_SELF:
        admin_refuse(call, 409, "self",
                     "this is the node itself: 'objctl node drain' makes it leave");
        return;
    case FORGET_ALIVE:
        admin_refuse(
            call, 409, "alive",
            "it answers, or did a moment ago: drain it there ('objctl node drain'), or --force");
        return;
    default:
        break;
    }
    int rc =
        node->joined == MEMBER_FORGOTTEN ? 0 : cluster_sole_of(call->cluster, &node->node, &sole);
    if (rc == 0 && sole.objects && !accept_loss) {
        refuse_loss(call, &sole);
        return;
    }
    if (rc == 0 && node->joined != MEMBER_FORGOTTEN)
        rc = cluster_declare(call->cluster, node, MEMBER_FORGOTTEN);
    if (rc) {
        fail(call, rc);
        return;
    }
    buf_text(call->out, "{\"forgotten\":true");
    add_sole(call->out, &sole);
    buf_text(call->out, "}\n");
}

/* ---- Diff ---- */

struct showing {
    struct buf *out;
    bool any;
};

static void add_value(struct buf *out, const json_t *value)
{
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    buf_text(out, text ? text : "null");
    free(text);
}

static void add_field(struct buf *out, const char *key, const json_t *a, const json_t *b,
                      bool *first)
{
    if (json_equal(a, b))
        return;
    if (!*first)
        buf_char(out, ',');
    *first = false;
    buf_json(out, key, strlen(key));
    buf_text(out, ":[");
    add_value(out, a);
    buf_char(out, ',');
    add_value(out, b);
    buf_char(out, ']');
}

/* {"id":…,"a":bool,"b":bool,"fields":{name:[of a, of b]}}: what they differ in, where both know it.
 */
static int show_difference(void *arg, const struct id128 *id, struct text text_a,
                           struct text text_b)
{
    struct showing *showing = arg;
    json_t *a = NULL, *b = NULL;
    char text[ULID_TEXT_BYTES + 1];
    bool first = true;
    int rc = text_a.len ? json_read(&a, text_a.ptr, text_a.len, 0) : 0;

    if (rc == 0 && text_b.len)
        rc = json_read(&b, text_b.ptr, text_b.len, 0);
    if (rc)
        goto out;
    ulid_format(text, id);
    buf_format(showing->out, "%s{\"id\":\"%s\",\"a\":%s,\"b\":%s,\"fields\":{",
               showing->any ? "," : "", text, a ? "true" : "false", b ? "true" : "false");
    showing->any = true;
    for (void *at = json_object_iter(a); at; at = json_object_iter_next(a, at))
        add_field(showing->out, json_object_iter_key(at), json_object_iter_value(at),
                  json_object_get(b, json_object_iter_key(at)), &first);
    for (void *at = json_object_iter(b); at; at = json_object_iter_next(b, at))
        if (!json_object_get(a, json_object_iter_key(at)))
            add_field(showing->out, json_object_iter_key(at), NULL, json_object_iter_value(at),
                      &first);
    buf_text(showing->out, "}}");
    rc = buf_check(showing->out);
out:
    json_decref(a);
    json_decref(b);
    return rc;
}

static void diff(struct admin_call *call)
{
    json_int_t limit = json_integer_value(json_object_get(call->args, "limit"));
    struct showing showing = {.out = call->out};
    struct diff_result result;
    struct id128 failed = {{0}};
    char id[ULID_TEXT_BYTES + 1];
    struct members members;

    look(call, &members);
    const struct cluster_member *a = named(call, &members, "a");
    const struct cluster_member *b = a ? named(call, &members, "b") : NULL;
    if (!b)
        return;
    if (limit <= 0 || limit > DIFF_MAX)
        limit = DIFF_DEFAULT;
    buf_text(call->out, "{\"differences\":[");
    int rc = cluster_diff(call->cluster, &a->node, &b->node, (unsigned)limit, show_difference,
                          &showing, &result, &failed);
    if (rc) {
        ulid_format(id, &failed);
        if (rc == ERR_TIMEOUT)
            admin_refuse(call, 503, "no_answer", "node %s does not answer", id);
        else
            fail(call, rc);
        return;
    }
    buf_char(call->out, ']');
    figures_number(call->out, "compared", result.compared);
    figures_boolean(call->out, "more", result.more);
    buf_text(call->out, "}\n");
}

/* ---- Upgrade ---- */

static void upgrade(struct admin_call *call)
{
    json_int_t asked = json_integer_value(json_object_get(call->args, "to"));
    const struct cluster_member *culprit;
    struct cluster_stats stats;
    struct members members;
    char id[ULID_TEXT_BYTES + 1] = "";
    uint32_t to = asked > 0 && asked < UINT32_MAX ? (uint32_t)asked : 0;

    look(call, &members);
    cluster_stats(call->cluster, &stats);
    enum upgrade_verdict verdict =
        membership_upgrade(members.list, members.count, stats.level, &to, &culprit);
    if (culprit)
        ulid_format(id, &culprit->node);
    switch (verdict) {
    case UPGRADE_NOT_BY:
        assert(culprit);
        admin_refuse(call, 409, "not_supported",
                     "node %s at %s understands feature levels up to %u, not %u", id,
                     culprit->address, culprit->feature, to);
        return;
    case UPGRADE_SILENT:
        assert(culprit);
        admin_refuse(
            call, 409, "not_supported",
            "node %s at %s does not answer, so what it understands is not known: start it, or "
            "'objctl node forget' it",
            id, culprit->address);
        return;
    case UPGRADE_LOWER:
        admin_refuse(call, 409, "never_lowered",
                     "the cluster's feature level is %u; it is never lowered", stats.level);
        return;
    default:
        break;
    }
    int rc = verdict == UPGRADE_MAY ? cluster_raise(call->cluster, to) : 0;
    if (rc) {
        fail(call, rc);
        return;
    }
    buf_format(call->out, "{\"level\":%u,\"raised\":%s}\n", to,
               verdict == UPGRADE_MAY ? "true" : "false");
}

/* ---- The door ---- */

#ifdef OBJSTORE_FEATURE_BUILD
static void sample(struct admin_call *call)
{
    const char *text = json_string_value(json_object_get(call->args, "text"));
    int rc = cluster_sample(call->cluster, text ? text : "");

    if (rc)
        fail(call, rc);
    else
        buf_text(call->out, "{\"journaled\":true}\n");
}
#endif

static const struct {
    const char *path;
    bool post;
    enum admin_verb verb;
    void (*run)(struct admin_call *call);
} verbs[] = {
    {"/control/v1/node/drain", false, ADMIN_DRAIN_STATUS, drain_status},
    {"/control/v1/node/drain", true, ADMIN_DRAIN, drain},
    {"/control/v1/node/join", true, ADMIN_JOIN, join},
    {"/control/v1/node/forget", true, ADMIN_FORGET, forget},
    {"/control/v1/cluster/diff", true, ADMIN_DIFF, diff},
    {"/control/v1/cluster/upgrade", true, ADMIN_UPGRADE, upgrade},
    {"/control/v1/cloud/check", true, ADMIN_CLOUD_CHECK, control_cloud_check},
    {"/control/v1/cloud/outbox", true, ADMIN_CLOUD_OUTBOX, control_cloud_outbox},
    {"/control/v1/cloud/import", true, ADMIN_CLOUD_IMPORT, control_cloud_import},
    {"/control/v1/cloud/import", false, ADMIN_CLOUD_STATUS, control_cloud_status},
#ifdef OBJSTORE_FEATURE_BUILD
    {"/control/v1/test/sample", true, ADMIN_SAMPLE, sample},
#endif
};

#define VERBS (sizeof verbs / sizeof *verbs)

enum admin_verb admin_verb(const char *path, size_t len, bool post, const char **allow)
{
    *allow = NULL;
    for (size_t i = 0; i < VERBS; i++) {
        if (strlen(verbs[i].path) != len || memcmp(verbs[i].path, path, len) != 0)
            continue;
        if (verbs[i].post == post)
            return verbs[i].verb;
        *allow = "Allow: POST\r\n";
    }
    return ADMIN_NONE;
}

bool admin_looks(enum admin_verb verb)
{
    return verb == ADMIN_DRAIN_STATUS || verb == ADMIN_CLOUD_STATUS;
}

void admin_run(enum admin_verb verb, struct admin_call *call)
{
    call->status = 200;
    if (!call->cluster) {
        admin_refuse(call, 409, "alone", "this node has no cluster");
        return;
    }
    for (size_t i = 0; i < VERBS; i++)
        if (verbs[i].verb == verb) {
            verbs[i].run(call);
            return;
        }
    assert(!"a verb that admin_verb has not given");
}
