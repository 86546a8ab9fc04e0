/*
 * Administration of the cloud. The outbox is walked whole, page by page, and the oldest entries of
 * it are kept: it is ordered by id, and may have millions.
 */
#include "api/control_cloud.h"

#include "api/figures.h"
#include "cluster/cloud_check.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define OUTBOX_LIMIT 100
#define OUTBOX_MOST  1000
#define PAGE         512

static bool has_cloud(struct admin_call *call)
{
    if (cluster_cloud(call->cluster))
        return true;
    admin_refuse(call, 409, "no_cloud", "this node has no cloud: see --cloud");
    return false;
}

/* ---- Check ---- */

void control_cloud_check(struct admin_call *call)
{
    struct cloud_check check;

    if (!has_cloud(call))
        return;
    struct cloud *cloud = cluster_cloud(call->cluster);
    cloud_check_run(&check, cloud, cluster_cloud_prefix(call->cluster), call->env, call->stop);
    buf_char(call->out, '{');
    figures_string(call->out, "backend", cloud->backend->name);
    figures_string(call->out, "bucket", cloud->bucket);
    figures_boolean(call->out, "good", check.good);
    figures_key(call->out, "steps");
    buf_char(call->out, '[');
    for (size_t i = 0; i < check.count; i++) {
        const struct cloud_check_step *step = &check.steps[i];

        buf_text(call->out, i ? ",{" : "{");
        figures_string(call->out, "name", step->name);
        figures_boolean(call->out, "good", step->rc == 0);
        figures_number(call->out, "took_ms", step->took_ms);
        if (step->rc) {
            figures_string(call->out, "error", err_name(step->rc));
            figures_string(call->out, "message", step->message);
            figures_string(call->out, "advice", step->advice);
        }
        buf_char(call->out, '}');
    }
    buf_text(call->out, "]}\n");
}

/* ---- Outbox ---- */

static const struct {
    enum outbox_kind kind;
    const char *name;
} kinds[] = {{OUTBOX_UPLOAD, "upload"}, {OUTBOX_MARK, "mark"}, {OUTBOX_PURGE, "purge"}};
#define KINDS (sizeof kinds / sizeof *kinds)

struct owed {
    struct db_owed it;
    unsigned kind;
};

/* The oldest ones so far, in order. */
struct oldest {
    struct owed *list;
    size_t count, most;
    unsigned kind;
    struct id128 last; /* of this page */
    unsigned page;
    uint64_t counts[KINDS], bytes;
};

static int consider(void *arg, const struct db_owed *owed)
{
    struct oldest *oldest = arg;
    size_t at = oldest->count;

    oldest->last = owed->id;
    oldest->page++;
    oldest->counts[oldest->kind]++;
    oldest->bytes += kinds[oldest->kind].kind == OUTBOX_UPLOAD ? owed->size : 0;
    while (at > 0 && oldest->list[at - 1].it.since_ms > owed->since_ms)
        at--;
    if (at == oldest->most)
        return 0;
    if (oldest->count < oldest->most)
        oldest->count++;
    memmove(&oldest->list[at + 1], &oldest->list[at],
            (oldest->count - 1 - at) * sizeof *oldest->list);
    oldest->list[at] = (struct owed){*owed, oldest->kind};
    return 0;
}

static int walk_outbox(struct oldest *oldest, struct db_reader *reader)
{
    for (unsigned i = 0; i < KINDS; i++) {
        bool begun = false;

        oldest->kind = i;
        do {
            struct id128 after = oldest->last;

            oldest->page = 0;
            int rc = db_reader_outbox(reader, kinds[i].kind, begun ? &after : NULL, PAGE, consider,
                                      oldest);
            if (rc)
                return rc;
            begun = true;
        } while (oldest->page == PAGE);
    }
    return 0;
}

static void add_owed(struct admin_call *call, const struct owed *owed)
{
    struct object *object = NULL;
    char id[ULID_TEXT_BYTES + 1];
    uint64_t now = env_wall_ms(call->env), since = owed->it.since_ms;

    ulid_format(id, &owed->it.id);
    buf_char(call->out, '{');
    figures_string(call->out, "what", kinds[owed->kind].name);
    figures_string(call->out, "id", id);
    figures_number(call->out, "age_s", now > since ? (now - since) / 1000 : 0);
    figures_number(call->out, "size", owed->it.size);
    if (journal_find(call->journal, call->reader, &owed->it.id, &object) == 0) {
        struct text name = object_name(object);

        figures_key(call->out, "name");
        buf_json(call->out, name.ptr, name.len);
    }
    object_destroy(&object);
    buf_char(call->out, '}');
}

void control_cloud_outbox(struct admin_call *call)
{
    json_t *asked = json_object_get(call->args, "limit");
    json_int_t limit = json_is_integer(asked) ? json_integer_value(asked) : OUTBOX_LIMIT;
    struct oldest oldest = {.most = (size_t)limit};

    if ((asked && !json_is_integer(asked)) || limit < 1 || limit > OUTBOX_MOST) {
        admin_refuse(call, 400, "invalid_argument", "limit must be 1 to %d", OUTBOX_MOST);
        return;
    }
    oldest.list = calloc(oldest.most, sizeof *oldest.list);
    int rc = oldest.list ? walk_outbox(&oldest, call->reader) : ERR_NO_MEMORY;
    if (rc) {
        admin_refuse(call, 500, err_name(rc), "the outbox cannot be read: %s", err_text(rc));
        free(oldest.list);
        return;
    }
    buf_char(call->out, '{');
    figures_number(call->out, "uploads", oldest.counts[0]);
    figures_number(call->out, "upload_bytes", oldest.bytes);
    figures_number(call->out, "marks", oldest.counts[1]);
    figures_number(call->out, "purges", oldest.counts[2]);
    figures_key(call->out, "owed");
    buf_char(call->out, '[');
    for (size_t i = 0; i < oldest.count; i++) {
        if (i)
            buf_char(call->out, ',');
        add_owed(call, &oldest.list[i]);
    }
    buf_text(call->out, "]}\n");
    free(oldest.list);
}

/* ---- Import ---- */

void control_cloud_status(struct admin_call *call)
{
    struct cloud_import_status s;
    struct buf *out = call->out;

    if (!call->import) {
        (void)has_cloud(call);
        return;
    }
    cloud_import_status(call->import, &s);
    buf_char(out, '{');
    figures_string(out, "phase", cloud_import_phase_name(s.phase));
    figures_boolean(out, "dry_run", s.dry_run);
    figures_number(out, "listed", s.listed);
    figures_number(out, "adopted", s.adopted);
    figures_number(out, "adopted_bytes", s.adopted_bytes);
    figures_number(out, "known", s.known);
    figures_number(out, "deleted", s.deleted);
    figures_number(out, "others", s.others);
    figures_number(out, "refused", s.refused);
    figures_number(out, "read", s.read);
    figures_number(out, "read_bytes", s.read_bytes);
    figures_string(out, "key", s.key);
    figures_string(out, "refusal", s.refusal);
    figures_string(out, "message", s.message);
    buf_text(out, "}\n");
}

void control_cloud_import(struct admin_call *call)
{
    json_t *prefix = json_object_get(call->args, "prefix");
    const char *text = json_is_string(prefix) ? json_string_value(prefix) : NULL;
    const char *own = cluster_cloud_prefix(call->cluster);
    char begin[LIMIT_CLOUD_KEY_BYTES + 2];

    if (!has_cloud(call))
        return;
    assert(call->import);
    if (json_is_true(json_object_get(call->args, "cancel"))) {
        cloud_import_cancel(call->import);
        control_cloud_status(call);
        return;
    }
    if (prefix && (!text || strlen(text) != json_string_length(prefix) ||
                   strlen(text) > LIMIT_CLOUD_KEY_BYTES)) {
        admin_refuse(call, 400, "invalid_argument", "prefix must be a text of at most %d bytes",
                     LIMIT_CLOUD_KEY_BYTES);
        return;
    }
    /* What this cluster itself would write, unless another prefix is named. */
    if (!own)
        own = "";
    (void)snprintf(begin, sizeof begin, "%s%s", text ? text : own,
                   !text && *own && own[strlen(own) - 1] != '/' ? "/" : "");
    int rc = cloud_import_begin(call->import, begin,
                                json_is_true(json_object_get(call->args, "dry_run")));
    if (rc == ERR_EXISTS)
        admin_refuse(call, 409, "running", "an import is running already");
    else if (rc)
        admin_refuse(call, 503, err_name(rc), "%s", err_text(rc));
    else
        control_cloud_status(call);
}
