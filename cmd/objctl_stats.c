/*
 * stats: the node's figures as a table, section by section, or with --json as the node sends them.
 * What this build has never heard of is shown, too.
 */
#include "cmd/objctl_http.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_MS    5000
#define LABEL_WIDTH 33

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

static void print_uptime(long long seconds)
{
    if (seconds >= 86400)
        (void)printf("%lld d ", seconds / 86400);
    if (seconds >= 3600)
        (void)printf("%lld h ", seconds / 3600 % 24);
    if (seconds >= 60)
        (void)printf("%lld min ", seconds / 60 % 60);
    (void)printf("%lld s\n", seconds % 60);
}

static void print_value(const char *label, const char *name, const json_t *value)
{
    char size[SIZE_TEXT_BYTES];

    (void)printf("  %-*s ", LABEL_WIDTH, strcmp(name, "uptime_s") == 0 ? "uptime" : label);
    if (json_is_string(value)) {
        (void)puts(json_string_value(value));
    } else if (json_is_boolean(value)) {
        (void)puts(json_is_true(value) ? "yes" : "no");
    } else if (json_is_real(value)) {
        (void)printf("%g\n", json_real_value(value));
    } else if (json_is_integer(value) && ends_with(name, "uptime_s")) {
        print_uptime(json_integer_value(value));
    } else if (json_is_integer(value) &&
               (strstr(name, "bytes") != NULL && json_integer_value(value) >= 1024)) {
        ctl_size(size, (uint64_t)json_integer_value(value));
        (void)printf("%s\n", size);
    } else if (json_is_integer(value)) {
        (void)printf("%lld\n", (long long)json_integer_value(value));
    } else {
        (void)puts("-");
    }
}

/* Of the cluster: its members by their ids. */
static void print_list(const char *label, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *id = json_string_value(json_object_get(item, "id"));
        const char *state = json_string_value(json_object_get(item, "state"));
        const char *addr = json_string_value(json_object_get(item, "addr"));

        (void)printf("  %-*s %s %s\n", LABEL_WIDTH, id ? id : label, state ? state : "-",
                     addr ? addr : "");
    }
}

/* PREFIX: the names of the objects around it, with dots. */
static void print_members(const char *prefix, json_t *object)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        char label[128];

        (void)snprintf(label, sizeof label, "%s%s%s", prefix, *prefix ? "." : "", name);
        if (json_is_object(value))
            print_members(label, value);
        else if (json_is_array(value))
            print_list(label, value);
        else
            print_value(label, name, value);
    }
}

/* The ancestor's section says the same in four units; one is enough for people. */
static void print_disk(json_t *disk)
{
    static const char *const names[] = {"bytes_all", "bytes_used", "bytes_free"};
    static const char *const labels[] = {"size", "used", "free"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        print_value(labels[i], names[i], json_object_get(disk, names[i]));
}

static void print_table(json_t *stats)
{
    const char *name;
    json_t *section;
    bool first = true;

    json_object_foreach(stats, name, section)
    {
        if (!first)
            (void)putchar('\n');
        first = false;
        bool is_disk = strcmp(name, "disk_stats") == 0;
        (void)puts(is_disk ? "disk" : name);
        if (is_disk)
            print_disk(section);
        else if (json_is_object(section))
            print_members("", section);
        else
            print_value(name, name, section);
    }
}

static int print(const struct buf *text, bool as_json)
{
    json_t *json = json_loadb(text->data ? text->data : "", text->len, 0, NULL);

    if (!json_is_object(json)) {
        json_decref(json);
        return ctl_fail(CTL_REFUSED, "the node's answer is not understood");
    }
    if (as_json) {
        char *pretty = json_dumps(json, JSON_INDENT(2));

        if (pretty)
            (void)puts(pretty);
        free(pretty);
    } else {
        print_table(json);
    }
    json_decref(json);
    return CTL_OK;
}

enum { OPT_JSON = CTL_OPT_FIRST };

int ctl_stats(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"json", no_argument, NULL, OPT_JSON},
                                            CTL_NODE_OPTIONS};
    struct patience patience = {.limit_ms = RETRY_MS};
    struct call call = {.method = "GET", .path = "/api/v1/stats"};
    struct client client;
    int rc, key, code = CTL_OK;
    bool as_json = false;

    while ((key = ctl_option(ctl, argc, argv, "", options, &code)) != -1) {
        if (key != OPT_JSON)
            return code;
        as_json = true;
    }
    if (optind != argc)
        return ctl_fail(CTL_USAGE, "stats takes no arguments");
    code = client_open(&client, ctl->addr);
    if (code)
        return code;
    do
        rc = client_call(&client, &call);
    while (patience_left(&patience, &client, &call, rc));
    code = client_complain(&client, &call, rc, "stats");
    if (code == CTL_OK)
        code = print(&call.text, as_json);
    call_release(&call);
    client_close(&client);
    return code;
}
