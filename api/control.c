/*
 * The control door. Its verbs can take minutes (a backup copies the database, a verification reads
 * every event), so they run one after the other on a thread of their own; the request that asked is
 * suspended meanwhile. A few may wait; more get 503.
 */
#include "api/control.h"

#include "api/control_cluster.h"
#include "base/container.h"
#include "base/json.h"
#include "base/log.h"
#include "base/pool.h"
#include "base/text.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WAITING    4
#define MAX_BODY       (16 * KIB)
#define MAX_PATH_BYTES 4096
#define MAX_ANSWER     (1 * MIB)

struct control {
    struct stats_source stats;
    struct http_handler handler;
    pthread_mutex_t lock; /* guards the two below against a stop while the doors are open */
    struct pool *worker;
    bool stopped;
    struct cloud_import *import; /* NULL: there is no cloud */
    atomic_bool stop;            /* what runs shall end soon */
};

enum verb { VERB_BACKUP, VERB_VERIFY, VERB_COMPACT, VERB_ADMIN };

/* One request that takes long. */
struct task {
    struct control *control;
    struct http_request *http;
    struct job job;
    enum verb verb;
    struct buf body;
    char dir[MAX_PATH_BYTES];
    int rc;
    char message[512];
    struct journal_verify_result verified;
    struct journal_compact_result compacted;
    enum admin_verb admin;
    struct admin_call call;
    struct buf answer;
    uint64_t took_ms;
};

static int open_reader(void *arg, void **context)
{
    struct control *control = arg;
    struct db_reader *reader = NULL;
    int rc = journal_reader_open(store_journal(control->stats.store), &reader);

    *context = reader;
    return rc;
}

static void close_reader(void *arg, void *context)
{
    struct db_reader *reader = context;

    (void)arg;
    db_reader_close(&reader);
}

/* ---- The verbs ---- */

static void answer_buf(struct http_request *http, const struct buf *out)
{
    static const char head[] = "Content-Type: application/json\r\nCache-Control: no-store\r\n";
    const struct http_answer answer = {.status = 200,
                                       .head = head,
                                       .head_len = sizeof head - 1,
                                       .body = out->data,
                                       .length = out->len};

    if (buf_check(out))
        http_answer_error(http, 503, "no_memory", "out of memory", "Retry-After: 1\r\n");
    else
        http_answer(http, &answer);
}

static void answer_failure(struct task *task)
{
    static const char *const codes[] = {"backup_failed", "verify_failed", "compact_failed",
                                        "failed"};
    const char *code = codes[task->verb];
    const char *message = task->message[0] ? task->message : err_text(task->rc);
    unsigned status = 500;

    switch (task->rc) {
    case ERR_EXISTS:
        status = 409;
        code = "exists";
        break;
    case ERR_INVALID:
    case ERR_PERMISSION:
        status = 400;
        break;
    case ERR_NO_SPACE:
        status = 507;
        code = "no_space";
        break;
    case ERR_READ_ONLY:
        status = 503;
        code = "read_only";
        break;
    case ERR_FULL:
    case ERR_CLOSED:
        http_answer_error(task->http, 503, "overloaded", "other work is waiting already",
                          "Retry-After: 10\r\n");
        return;
    default:
        break;
    }
    http_answer_error(task->http, status, code, message, NULL);
}

static void answer_admin(struct http_request *http, const struct admin_call *call)
{
    if (call->status == 200)
        answer_buf(http, call->out);
    else
        http_answer_error(http, call->status, call->code, call->message,
                          call->status == 503 ? "Retry-After: 5\r\n" : NULL);
}

static void finished(struct http_request *http)
{
    struct task *task = http_request_data(http);
    struct buf out;

    if (task->rc) {
        answer_failure(task);
        return;
    }
    if (task->verb == VERB_ADMIN) {
        answer_admin(http, &task->call);
        return;
    }
    buf_init(&out, MAX_ANSWER);
    if (task->verb == VERB_BACKUP) {
        buf_text(&out, "{\"dir\":");
        buf_json(&out, task->dir, strlen(task->dir));
    } else if (task->verb == VERB_COMPACT) {
        const struct journal_compact_result *c = &task->compacted;

        buf_format(&out,
                   "{\"events\":%llu,\"event_bytes\":%llu,\"chunks\":%llu,\"snapshot_bytes\":%llu,"
                   "\"waiting\":%s",
                   (unsigned long long)c->events, (unsigned long long)c->event_bytes,
                   (unsigned long long)c->chunks, (unsigned long long)c->snapshot_bytes,
                   c->waiting ? "true" : "false");
    } else {
        const struct journal_verify_result *v = &task->verified;

        buf_format(&out, "{\"origins\":%llu,\"events\":%llu,\"breaks\":%llu,\"message\":",
                   (unsigned long long)v->origins, (unsigned long long)v->events,
                   (unsigned long long)v->breaks);
        buf_json(&out, v->message, strlen(v->message));
        buf_format(&out, ",\"frozen\":%llu,\"forks\":%llu,\"note\":", (unsigned long long)v->frozen,
                   (unsigned long long)v->forks);
        buf_json(&out, v->note, strlen(v->note));
    }
    buf_format(&out, ",\"took_ms\":%llu}\n", (unsigned long long)task->took_ms);
    answer_buf(http, &out);
    buf_release(&out);
}

static void run(struct job *job, void *context)
{
    struct task *task = container_of(job, struct task, job);
    struct store *store = task->control->stats.store;
    uint64_t begun = env_mono_ms(store_env(store));

    if (task->verb == VERB_BACKUP) {
        task->rc =
            journal_backup(store_journal(store), task->dir, task->message, sizeof task->message);
        if (task->rc)
            log_error("backup into %s failed: %s", task->dir,
                      task->message[0] ? task->message : err_text(task->rc));
        else
            log_info("backup into %s is complete", task->dir);
    } else if (task->verb == VERB_COMPACT) {
        task->rc = journal_compact(store_journal(store), &task->compacted);
    } else if (task->verb == VERB_ADMIN) {
        task->call.reader = context;
        admin_run(task->admin, &task->call);
    } else {
        task->rc = journal_verify(context, &task->verified);
    }
    task->took_ms = env_mono_ms(store_env(store)) - begun;
    http_post(task->http, finished);
}

static void submit(struct task *task)
{
    task->job.run = run;
    http_suspend(task->http);
    struct control *control = task->control;
    (void)pthread_mutex_lock(&control->lock);
    int rc = control->stopped ? ERR_CLOSED : pool_submit(control->worker, &task->job);
    (void)pthread_mutex_unlock(&control->lock);
    /* After a success the task may be gone already. */
    if (rc) {
        task->rc = rc;
        http_post(task->http, finished);
    }
}

/* {"dir":"…"}: an absolute path, as the node's working directory is not the caller's. */
static int read_dir(struct task *task)
{
    json_t *json;
    int rc = json_read(&json, task->body.data, task->body.len, 0);
    json_t *dir = json_object_get(json, "dir");
    bool good = json_is_string(dir) && json_string_value(dir)[0] == '/' &&
                json_string_length(dir) < sizeof task->dir;

    if (good)
        memcpy(task->dir, json_string_value(dir), json_string_length(dir) + 1);
    json_decref(json);
    return rc ? rc : good ? 0 : ERR_INVALID;
}

static struct admin_call call_into(struct control *control, struct buf *out)
{
    struct store *store = control->stats.store;

    buf_init(out, MAX_ANSWER);
    return (struct admin_call){.cluster = control->stats.cluster,
                               .journal = store_journal(store),
                               .env = store_env(store),
                               .import = control->import,
                               .stop = &control->stop,
                               .out = out};
}

/* The arguments of an admin verb: a JSON object, or nothing. */
static int read_args(struct task *task)
{
    task->call = call_into(task->control, &task->answer);
    if (task->body.len == 0)
        return 0;
    int rc = json_read(&task->call.args, task->body.data, task->body.len, 0);
    return rc ? rc : json_is_object(task->call.args) ? 0 : ERR_INVALID;
}

/* ---- The door ---- */

static void begin_task(struct control *control, struct http_request *http, enum verb verb,
                       enum admin_verb admin)
{
    struct task *task = calloc(1, sizeof *task);

    if (!task) {
        http_answer_error(http, 503, "no_memory", "out of memory", "Retry-After: 1\r\n");
        return;
    }
    task->control = control;
    task->http = http;
    task->verb = verb;
    task->admin = admin;
    buf_init(&task->body, MAX_BODY);
    http_request_set_data(http, task);
    http_read_body(http, MAX_BODY);
}

static void answer_stats(struct control *control, struct http_request *http)
{
    struct buf out;

    buf_init(&out, MAX_ANSWER);
    stats_json(&out, &control->stats);
    answer_buf(http, &out);
    buf_release(&out);
}

/* What needs no thread: it only looks. */
static void answer_look(struct control *control, struct http_request *http, enum admin_verb verb)
{
    struct buf out;
    struct admin_call call = call_into(control, &out);

    admin_run(verb, &call);
    answer_admin(http, &call);
    buf_release(&out);
}

static bool is(struct slice path, const char *text)
{
    return path.len == strlen(text) && memcmp(path.ptr, text, path.len) == 0;
}

static void on_request(void *arg, struct http_request *http)
{
    struct control *control = arg;
    struct slice path = http_request_path(http);
    enum http_method method = http_request_method(http);
    bool backup = is(path, "/control/v1/backup"), verify = is(path, "/control/v1/journal/verify");
    bool compact = is(path, "/control/v1/journal/compact");
    bool stats = is(path, "/control/v1/stats");
    const char *allow;
    enum admin_verb admin = admin_verb(path.ptr, path.len, method == HTTP_METHOD_POST, &allow);

    if (admin_looks(admin) && method == HTTP_METHOD_GET)
        answer_look(control, http, admin);
    else if (admin != ADMIN_NONE && method == HTTP_METHOD_POST)
        begin_task(control, http, VERB_ADMIN, admin);
    else if (admin != ADMIN_NONE || allow)
        http_answer_error(http, 405, "method_not_allowed", "this path does not take the method",
                          "Allow: POST\r\n");
    else if (!backup && !verify && !compact && !stats)
        http_answer_error(http, 404, "no_such_path", "nothing is served under this path", NULL);
    else if (stats && method != HTTP_METHOD_GET && method != HTTP_METHOD_HEAD)
        http_answer_error(http, 405, "method_not_allowed", "this path does not take the method",
                          "Allow: GET, HEAD\r\n");
    else if (!stats && method != HTTP_METHOD_POST)
        http_answer_error(http, 405, "method_not_allowed", "this path does not take the method",
                          "Allow: POST\r\n");
    else if (stats)
        answer_stats(control, http);
    else
        begin_task(control, http,
                   backup    ? VERB_BACKUP
                   : compact ? VERB_COMPACT
                             : VERB_VERIFY,
                   ADMIN_NONE);
}

static void on_body(void *arg, struct http_request *http, const uint8_t *data, size_t len)
{
    struct task *task = http_request_data(http);

    (void)arg;
    buf_add(&task->body, data, len);
}

static void on_body_end(void *arg, struct http_request *http)
{
    struct task *task = http_request_data(http);
    int rc = buf_check(&task->body);

    (void)arg;
    if (!rc && task->verb == VERB_BACKUP)
        rc = read_dir(task);
    if (!rc && task->verb == VERB_ADMIN)
        rc = read_args(task);
    if (rc && rc != ERR_INVALID)
        http_answer_error(http, 503, "no_memory", "out of memory", "Retry-After: 1\r\n");
    else if (rc && task->verb == VERB_ADMIN)
        http_answer_error(http, 400, "invalid_argument", "the body must be a JSON object", NULL);
    else if (rc)
        http_answer_error(http, 400, "invalid_dir",
                          "the body must be {\"dir\":\"…\"} with an absolute path", NULL);
    else
        submit(task);
}

static void on_done(void *arg, struct http_request *http)
{
    struct task *task = http_request_data(http);

    (void)arg;
    if (!task)
        return;
    buf_release(&task->body);
    buf_release(&task->answer);
    json_decref(task->call.args);
    free(task);
}

int control_create(struct control **out, const struct stats_source *stats)
{
    assert(stats->store && stats->server);
    *out = NULL;

    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return ERR_NO_MEMORY;
    control->stats = *stats;
    (void)pthread_mutex_init(&control->lock, NULL);
    control->handler = (struct http_handler){on_request, on_body, on_body_end, on_done, control};
    const struct pool_context context = {open_reader, close_reader, control};
    struct cloud *cloud = stats->cluster ? cluster_cloud(stats->cluster) : NULL;
    int rc = cloud ? cloud_import_create(&control->import, store_journal(stats->store), cloud,
                                         store_env(stats->store))
                   : 0;
    if (rc == 0)
        rc = pool_start(&control->worker, "control", 1, MAX_WAITING, &context);
    if (rc)
        control_destroy(&control);
    *out = control;
    return rc;
}

const struct http_handler *control_handler(const struct control *control)
{
    return &control->handler;
}

void control_stop(struct control *control)
{
    (void)pthread_mutex_lock(&control->lock);
    control->stopped = true;
    atomic_store(&control->stop, true);
    (void)pthread_mutex_unlock(&control->lock);
    pool_stop(&control->worker);
    cloud_import_stop(control->import);
}

void control_destroy(struct control **control)
{
    struct control *it = *control;

    if (!it)
        return;
    control_stop(it);
    cloud_import_destroy(&it->import);
    (void)pthread_mutex_destroy(&it->lock);
    free(it);
    *control = NULL;
}
