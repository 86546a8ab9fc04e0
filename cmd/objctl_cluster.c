/*
 * cluster: who belongs to the cluster, as one node sees it, from its stats; `cluster watch` shows
 * it again each second on a terminal, with what goes between the nodes; `cluster secret` makes a
 * secret and needs no node.
 *
 * A node that does not answer ends the first look. Later ones, when watching, say so and go on: it
 * is what one watches for.
 */
#include "base/env.h"
#include "cluster/secret.h"
#include "cmd/objctl_diff.h"
#include "cmd/objctl_http.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS    5000
#define INTERVAL_MS 1000
#define ID_WIDTH    26
#define STATE_WIDTH 7
#define MIN_WIDTH   7 /* of an address: its heading */

/* What the last look saw of it, for rates. */
struct traffic {
    bool known;
    uint64_t at_ms, events_in, events_out, rows_in, rows_out, bytes_in, bytes_out;
};

static uint64_t number(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));

    return value > 0 ? (uint64_t)value : 0;
}

static const char *text(const json_t *object, const char *name)
{
    const char *value = json_string_value(json_object_get(object, name));

    return value ? value : "?";
}

/* ---- The table ---- */

static void print_member(const json_t *member, int width)
{
    const json_t *rtt = json_object_get(member, "rtt_ms");
    bool self = json_is_true(json_object_get(member, "self"));
    bool equal = json_is_true(json_object_get(member, "digest_equal"));
    char rtt_text[24] = "-";

    if (json_is_integer(rtt))
        (void)snprintf(rtt_text, sizeof rtt_text, "%lld ms", (long long)json_integer_value(rtt));
    bool draining = json_is_true(json_object_get(member, "draining"));
    (void)printf("%-*s  %-*s  %-*s  %8s  %-8s  %7llu  %8llu  %s\n", ID_WIDTH, text(member, "id"),
                 STATE_WIDTH, draining ? "drains" : text(member, "state"), width,
                 text(member, "addr"), rtt_text, text(member, "version"),
                 (unsigned long long)number(member, "feature"),
                 (unsigned long long)number(member, "lag_events"),
                 self    ? "this node"
                 : equal ? "equal"
                         : "differ");
}

static void print_members(const json_t *cluster)
{
    const json_t *members = json_object_get(cluster, "members");
    int width = MIN_WIDTH;
    size_t i;

    for (i = 0; i < json_array_size(members); i++) {
        int len = (int)strlen(text(json_array_get(members, i), "addr"));

        width = len > width ? len : width;
    }
    (void)printf("health %s; %llu belong to it, %llu answer\nfeature level %llu\n\n",
                 text(cluster, "health"), (unsigned long long)number(cluster, "joined"),
                 (unsigned long long)number(cluster, "alive"),
                 (unsigned long long)number(cluster, "feature"));
    (void)printf("%-*s  %-*s  %-*s  %8s  %-8s  %7s  %8s  %s\n", ID_WIDTH, "ID", STATE_WIDTH,
                 "STATE", width, "ADDRESS", "RTT", "VERSION", "FEATURE", "LAG", "FACTS");
    for (i = 0; i < json_array_size(members); i++)
        print_member(json_array_get(members, i), width);
}

static double per_second(uint64_t now, uint64_t before, uint64_t took_ms)
{
    /* A node that was restarted counts from 0 again. */
    return now < before || took_ms == 0 ? 0 : (double)(now - before) * 1000 / (double)took_ms;
}

static void print_flow(const char *label, uint64_t total, const char *unit, double rate)
{
    char size[SIZE_TEXT_BYTES], speed[SIZE_TEXT_BYTES];

    if (unit) {
        (void)printf("%-12s %14llu %s, %.0f/s\n", label, (unsigned long long)total, unit, rate);
        return;
    }
    ctl_size(size, total);
    ctl_size(speed, (uint64_t)rate);
    (void)printf("%-12s %14s, %s/s\n", label, size, speed);
}

static void print_traffic(const json_t *stats, struct traffic *last)
{
    const json_t *sync = json_object_get(stats, "sync");
    const json_t *merge = json_object_get(stats, "merge");
    const json_t *transfer = json_object_get(stats, "transfer");
    const json_t *replication = json_object_get(stats, "replication");
    const struct traffic now = {.known = true,
                                .at_ms = ctl_now_ms(),
                                .events_in = number(sync, "events_in"),
                                .events_out = number(sync, "events_out"),
                                .rows_in = number(merge, "rows_in"),
                                .rows_out = number(merge, "rows_out"),
                                .bytes_in = number(transfer, "bytes_in"),
                                .bytes_out = number(transfer, "bytes_out")};
    uint64_t took = last->known ? now.at_ms - last->at_ms : 0;

    (void)putchar('\n');
    print_flow("facts in", now.events_in, "events",
               per_second(now.events_in, last->events_in, took));
    print_flow("facts out", now.events_out, "events",
               per_second(now.events_out, last->events_out, took));
    print_flow("rows in", now.rows_in, "rows", per_second(now.rows_in, last->rows_in, took));
    print_flow("rows out", now.rows_out, "rows", per_second(now.rows_out, last->rows_out, took));
    print_flow("bodies in", now.bytes_in, NULL, per_second(now.bytes_in, last->bytes_in, took));
    print_flow("bodies out", now.bytes_out, NULL, per_second(now.bytes_out, last->bytes_out, took));
    (void)printf("%-12s %14llu wanted, %llu made\n", "copies",
                 (unsigned long long)number(replication, "pending"),
                 (unsigned long long)number(replication, "copied"));
    *last = now;
}

/* ---- Looking ---- */

/* The node's stats into *OUT, or an exit code after saying why. */
static int look(struct client *client, struct patience *patience, json_t **out)
{
    struct call call = {.method = "GET", .path = "/api/v1/stats"};
    int rc;

    *out = NULL;
    do
        rc = client_call(client, &call);
    while (patience_left(patience, client, &call, rc));
    int code = client_complain(client, &call, rc, "cluster");
    if (code == CTL_OK) {
        *out = json_loadb(call.text.data ? call.text.data : "", call.text.len, 0, NULL);
        if (!json_is_object(json_object_get(*out, "cluster"))) {
            json_decref(*out);
            *out = NULL;
            code = ctl_fail(CTL_REFUSED, "the node's answer is not understood");
        }
    }
    call_release(&call);
    return code;
}

static int show(struct ctl *ctl)
{
    struct patience patience = {.limit_ms = RETRY_MS};
    struct client client;
    json_t *stats;

    int code = client_open(&client, ctl->addr);
    if (code)
        return code;
    code = look(&client, &patience, &stats);
    if (code == CTL_OK)
        print_members(json_object_get(stats, "cluster"));
    json_decref(stats);
    client_close(&client);
    return code;
}

/* Until the terminal's user has enough. */
static int watch(struct ctl *ctl)
{
    const struct timespec interval = {.tv_sec = INTERVAL_MS / 1000};
    struct patience patience = {.limit_ms = RETRY_MS};
    struct traffic traffic = {0};
    struct client client;
    json_t *stats;

    int code = client_open(&client, ctl->addr);
    if (code)
        return code;
    code = look(&client, &patience, &stats);
    while (code == CTL_OK || client.reached) {
        if (code == CTL_OK) {
            (void)fputs("\033[H\033[J", stdout);
            print_members(json_object_get(stats, "cluster"));
            print_traffic(stats, &traffic);
        } else {
            /* What is shown is old by now; why was said below it. */
            traffic.known = false;
        }
        json_decref(stats);
        stats = NULL;
        if (fflush(stdout) != 0)
            break;
        (void)nanosleep(&interval, NULL);
        patience = (struct patience){.limit_ms = INTERVAL_MS};
        code = look(&client, &patience, &stats);
    }
    json_decref(stats);
    client_close(&client);
    return code;
}

static int make_secret(void)
{
    char line[SECRET_TEXT_BYTES];

    secret_make(env_system(), line);
    (void)puts(line);
    return CTL_OK;
}

enum { OPT_LIMIT = CTL_OPT_FIRST, OPT_TO };

int ctl_cluster(struct ctl *ctl, int argc, char **argv)
{
    static const struct option options[] = {{"limit", required_argument, NULL, OPT_LIMIT},
                                            {"to", required_argument, NULL, OPT_TO},
                                            CTL_BOTH_OPTIONS};
    const char *limit = NULL, *to = NULL;
    int code = CTL_OK, c;

    while ((c = ctl_option(ctl, argc, argv, "", options, &code)) != -1) {
        if (c == OPT_LIMIT)
            limit = optarg;
        else if (c == OPT_TO)
            to = optarg;
        else
            return code;
    }
    const char *verb = optind < argc ? argv[optind] : "";
    int rest = argc - optind - 1;
    bool is_diff = strcmp(verb, "diff") == 0, is_upgrade = strcmp(verb, "upgrade") == 0;

    if ((limit && !is_diff) || (to && !is_upgrade))
        return ctl_fail(CTL_USAGE, "--limit is for cluster diff, --to for cluster upgrade");
    if (is_diff)
        return rest == 2 ? ctl_cluster_diff(ctl, argv[optind + 1], argv[optind + 2], limit)
                         : ctl_fail(CTL_USAGE, "cluster diff wants two members");
    if (rest > 0)
        return ctl_fail(CTL_USAGE, "cluster wants at most one of watch, secret, upgrade");
    if (is_upgrade)
        return ctl_cluster_upgrade(ctl, to);
    if (!*verb)
        return show(ctl);
    if (strcmp(verb, "watch") == 0)
        return isatty(STDOUT_FILENO) ? watch(ctl) : show(ctl);
    if (strcmp(verb, "secret") == 0)
        return make_secret();
    return ctl_fail(CTL_USAGE, "cluster wants watch, secret, diff, upgrade, or nothing, not '%s'",
                    verb);
}
