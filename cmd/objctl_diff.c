/*
 * cluster diff, cluster upgrade: asked of a running node over its control socket, since they are an
 * administrator's matter.
 *
 * A difference is a line: the object's id, and what the two members say of it.
 */
#include "cmd/objctl_diff.h"

#include "cmd/objctl_admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_value(const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);

    (void)fputs(json_is_null(value) ? "nothing" : text ? text : "?", stdout);
    free(text);
}

static void print_difference(const json_t *difference, const char *a, const char *b)
{
    json_t *fields = json_object_get(difference, "fields");
    bool has_a = json_is_true(json_object_get(difference, "a"));
    bool has_b = json_is_true(json_object_get(difference, "b"));
    const char *comma = "  ";

    (void)fputs(admin_text(difference, "id"), stdout);
    if (!has_a || !has_b) {
        (void)printf("  known to %s alone\n", has_a ? a : b);
        return;
    }
    for (void *at = json_object_iter(fields); at; at = json_object_iter_next(fields, at)) {
        const json_t *values = json_object_iter_value(at);

        (void)printf("%s%s: ", comma, json_object_iter_key(at));
        print_value(json_array_get(values, 0));
        (void)fputs(" / ", stdout);
        print_value(json_array_get(values, 1));
        comma = ", ";
    }
    (void)putchar('\n');
}

int ctl_cluster_diff(const struct ctl *ctl, const char *a, const char *b, const char *limit)
{
    json_t *args = json_pack("{s:s,s:s,s:i}", "a", a, "b", b, "limit", limit ? atoi(limit) : 0);
    json_t *answer;

    if (!args)
        return ctl_fail(CTL_USAGE, "a node's id is not UTF-8");
    if (limit && (atoi(limit) < 1 || atoi(limit) > 100)) {
        json_decref(args);
        return ctl_fail(CTL_USAGE, "--limit must be 1 to 100");
    }
    int code = admin_ask(ctl, "POST", "/control/v1/cluster/diff", args, "cluster diff", &answer);
    if (code)
        return code;
    const json_t *differences = json_object_get(answer, "differences");
    for (size_t i = 0; i < json_array_size(differences); i++)
        print_difference(json_array_get(differences, i), a, b);
    ctl_say(ctl, "%zu%s differences in %llu objects", json_array_size(differences),
            json_is_true(json_object_get(answer, "more")) ? " or more" : "",
            (unsigned long long)admin_number(answer, "compared"));
    code = json_array_size(differences) ? CTL_SOME_FAILED : CTL_OK;
    json_decref(answer);
    return code;
}

int ctl_cluster_upgrade(const struct ctl *ctl, const char *to)
{
    json_t *answer;

    if (to && atoi(to) < 1)
        return ctl_fail(CTL_USAGE, "--to wants a feature level from 1 on");
    int code = admin_ask(ctl, "POST", "/control/v1/cluster/upgrade",
                         json_pack("{s:i}", "to", to ? atoi(to) : 0), "cluster upgrade", &answer);
    if (code == CTL_OK)
        ctl_say(ctl, "the cluster's feature level is %llu%s",
                (unsigned long long)admin_number(answer, "level"),
                json_is_true(json_object_get(answer, "raised")) ? " now" : " already");
    json_decref(answer);
    return code;
}
