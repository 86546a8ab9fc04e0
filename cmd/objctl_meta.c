/*
 * meta and rm: commands on single objects that carry no bytes.
 */
#include "cmd/objctl_meta.h"

#include "base/limits.h"
#include "base/text.h"
#include "cmd/objctl_http.h"
#include "cmd/objctl_upload.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RETRY_MS   5000
#define PATH_BYTES 128

/* ---- What is given on the command line ---- */

int user_meta_add(struct user_meta *meta, const char *argument)
{
    const char *equals = strchr(argument, '=');

    if (!meta->json)
        meta->json = json_object();
    if (*argument == '{') {
        json_t *more = json_loads(argument, JSON_REJECT_DUPLICATES, NULL), *value;
        const char *key;
        bool strings = json_is_object(more);

        json_object_foreach(more, key, value) strings &= json_is_string(value);
        if (strings)
            strings = json_object_update(meta->json, more) == 0;
        json_decref(more);
        return strings ? CTL_OK : ctl_fail(CTL_USAGE, "--meta: not a JSON object of strings");
    }
    if (!equals || equals == argument)
        return ctl_fail(CTL_USAGE, "--meta: '%s' is not KEY=VALUE", argument);
    char *key = strndup(argument, (size_t)(equals - argument));
    json_t *value = json_string(equals + 1); /* NULL also where it is not UTF-8 */
    int failed = !key || !value || json_object_set_new(meta->json, key, value) != 0;
    free(key);
    return failed ? ctl_fail(CTL_USAGE, "--meta: '%s' is not UTF-8 text", argument) : CTL_OK;
}

int user_meta_text(struct user_meta *meta, const char **out)
{
    *out = NULL;
    if (!meta->json)
        return CTL_OK;
    meta->text = json_dumps(meta->json, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_SORT_KEYS);
    if (!meta->text || strlen(meta->text) > LIMIT_USER_META_BYTES)
        return ctl_fail(CTL_USAGE, "--meta: more than %llu bytes", LIMIT_USER_META_BYTES);
    *out = meta->text;
    return CTL_OK;
}

void user_meta_release(struct user_meta *meta)
{
    json_decref(meta->json);
    free(meta->text);
    *meta = (struct user_meta){NULL, NULL};
}

int ctl_check_level(const char *text)
{
    static const char *const levels[] = {"0", "1", "2", "local", "s3", "full"};

    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (strcmp(text, levels[i]) == 0)
            return CTL_OK;
    }
    return ctl_fail(CTL_USAGE, "--level: '%s' is not one of local, s3, full, 0, 1, 2", text);
}

int ctl_check_line(const char *option, const char *text)
{
    if (*text == 0 || text_has_control(text, strlen(text)))
        return ctl_fail(CTL_USAGE, "%s: must be text without control characters", option);
    return CTL_OK;
}

/* ---- Calls without a body ---- */

static int check_id(const char *text)
{
    struct id128 id;

    if (ulid_parse(&id, text, strlen(text)))
        return ctl_fail(CTL_USAGE, "'%s' is not an id (26 letters and digits)", text);
    return CTL_OK;
}

static int call_patiently(struct client *client, struct call *call, const char *what)
{
    struct patience patience = {.limit_ms = RETRY_MS};
    int rc;

    do
        rc = client_call(client, call);
    while (patience_left(&patience, client, call, rc));
    return client_complain(client, call, rc, what);
}

/* ---- meta ---- */

enum { OPT_NAME = CTL_OPT_FIRST, OPT_LEVEL, OPT_META, OPT_PURGE };

static const struct option meta_options[] = {
    {"name", required_argument, NULL, OPT_NAME},
    {"level", required_argument, NULL, OPT_LEVEL},
    {"meta", required_argument, NULL, OPT_META},
    CTL_NODE_OPTIONS,
};

static void print_document(const struct buf *text)
{
    json_t *json = json_loadb(text->data, text->len, 0, NULL);
    char *pretty = json && isatty(STDOUT_FILENO) ? json_dumps(json, JSON_INDENT(2)) : NULL;

    if (pretty)
        (void)puts(pretty);
    else
        (void)printf("%.*s%s", (int)text->len, text->data,
                     text->len && text->data[text->len - 1] == '\n' ? "" : "\n");
    free(pretty);
    json_decref(json);
}

static int show_meta(struct ctl *ctl, const char *id, const char *name, const char *level,
                     const char *user_meta)
{
    bool changes = name || level || user_meta;
    struct call call = {.method = changes ? "POST" : "GET"};
    struct client client;
    char path[PATH_BYTES];

    int code = client_open(&client, ctl->addr);
    if (code)
        return code;
    (void)snprintf(path, sizeof path, "/api/v1/meta/%s", id);
    call.path = path;
    if (name)
        call_header_name(&call, name);
    if (level)
        call_header(&call, "X-Meta-ConsistencyLevel: %s", level);
    if (user_meta)
        call_header(&call, "X-Meta-UserMeta: %s", user_meta);
    if (changes)
        call_header(&call, "Content-Type:");
    code = call_patiently(&client, &call, id);
    if (code == CTL_OK)
        print_document(&call.text);
    call_release(&call);
    client_close(&client);
    return code;
}

int ctl_meta(struct ctl *ctl, int argc, char **argv)
{
    const char *level = NULL, *text = NULL;
    struct user_meta user_meta = {NULL, NULL};
    char *name = NULL;
    int key, code = CTL_OK;

    while (code == CTL_OK && (key = ctl_option(ctl, argc, argv, "", meta_options, &code)) != -1) {
        if (key == '?')
            goto out;
        if (key == OPT_NAME) {
            free(name);
            name = upload_name(optarg);
            if (!name)
                code = ctl_fail(CTL_USAGE, "--name: is too long");
        } else if (key == OPT_LEVEL) {
            level = optarg;
            code = ctl_check_level(optarg);
        } else if (key == OPT_META) {
            code = user_meta_add(&user_meta, optarg);
        } else {
            code = CTL_USAGE;
        }
    }
    if (code == CTL_OK && argc - optind != 1)
        code = ctl_fail(CTL_USAGE, "meta wants one id");
    if (code == CTL_OK)
        code = check_id(argv[optind]);
    if (code == CTL_OK)
        code = user_meta_text(&user_meta, &text);
    if (code == CTL_OK)
        code = show_meta(ctl, argv[optind], name, level, text);
out:
    free(name);
    user_meta_release(&user_meta);
    return code;
}

/* ---- rm ---- */

static const struct option rm_options[] = {
    {"purge", no_argument, NULL, OPT_PURGE},
    CTL_NODE_OPTIONS,
};

struct removal {
    struct client client;
    bool purge;
    uint64_t removed, failed;
    int last;
};

/* CTL_OK: go on with the next. */
static int remove_id(struct removal *removal, const char *id)
{
    struct call call = {.method = "POST"};
    char path[PATH_BYTES];

    int code = check_id(id);
    if (code == CTL_OK) {
        (void)snprintf(path, sizeof path, "/api/v1/delete/%s", id);
        call.path = path;
        call_header(&call, "Content-Type:");
        if (removal->purge)
            call_header(&call, "X-Meta-Purge: 1");
        code = call_patiently(&removal->client, &call, id);
        call_release(&call);
    }
    removal->removed += code == CTL_OK;
    removal->failed += code != CTL_OK;
    if (code)
        removal->last = code;
    return code == CTL_UNREACHABLE ? code : CTL_OK;
}

/* Ids from standard input, one at the head of each line: what put -r printed, for example. */
static int remove_listed(struct removal *removal)
{
    char *line = NULL;
    size_t cap = 0;
    int code = CTL_OK;

    while (code == CTL_OK && getline(&line, &cap, stdin) >= 0) {
        char *id = line + strspn(line, "\\ \t");

        id[strcspn(id, " \t\r\n")] = 0;
        if (*id)
            code = remove_id(removal, id);
    }
    free(line);
    return code;
}

int ctl_rm(struct ctl *ctl, int argc, char **argv)
{
    struct removal removal = {.last = CTL_OK};
    int key, code = CTL_OK;

    while ((key = ctl_option(ctl, argc, argv, "", rm_options, &code)) != -1) {
        if (key != OPT_PURGE)
            return code;
        removal.purge = true;
    }
    if (optind == argc)
        return ctl_fail(CTL_USAGE, "rm what? Name ids, or '-' to read them from standard input");
    code = client_open(&removal.client, ctl->addr);
    for (int i = optind; code == CTL_OK && i < argc; i++)
        code = strcmp(argv[i], "-") == 0 ? remove_listed(&removal) : remove_id(&removal, argv[i]);
    client_close(&removal.client);
    if (code)
        return code;
    return removal.failed == 0 ? CTL_OK : removal.removed == 0 ? removal.last : CTL_SOME_FAILED;
}
