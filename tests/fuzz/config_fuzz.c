/*
 * Goal: a configuration is read, or refused with one line that says why; what was read is within
 * its limits, and written out again it is read as the same.
 * Input: what it is (1 byte: even: a file; odd: variables, one a line), then its text.
 */
#include "cmd/common_addr.h"
#include "cmd/options.h"
#include "cmd/options_table.h"
#include "base/buf.h"
#include "base/limits.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

#define MAX_VARIABLES 32

static char variable[64]; /* OBJSTORE_CONFIG=… */
static int file = -1;

static void write_file(const void *data, size_t len)
{
    if (file < 0) {
        file = memfd_create("config", MFD_CLOEXEC);
        CHECK(file >= 0);
        (void)snprintf(variable, sizeof variable, "OBJSTORE_CONFIG=/proc/self/fd/%d", file);
    }
    CHECK(ftruncate(file, 0) == 0);
    CHECK(len == 0 || pwrite(file, data, len, 0) == (ssize_t)len);
}

static int read_options(struct options *out, char *const *environment)
{
    char name[] = "objstore", message[512];
    char *argv[] = {name, NULL};

    memset(message, 'x', sizeof message);
    int rc = options_read(out, 1, argv, environment, message, sizeof message);
    CHECK(rc == 0 || rc == EXIT_CONFIG);
    CHECK(memchr(message, 0, sizeof message));
    CHECK(rc == 0 || *message);
    CHECK(!strchr(message, '\n'));
    return rc;
}

static const void *member(const struct options *options, const struct option_spec *spec)
{
    return (const char *)options + spec->offset;
}

static void check_values(const struct options *options)
{
    char description[4096];

    CHECK(options->node_count <= OPTIONS_MAX_NODES &&
          options->strange_count <= OPTIONS_MAX_STRANGE);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];

        if (spec->kind == KIND_TEXT) {
            const char *text = *(char *const *)member(options, spec);
            CHECK(text && !spec->check(text));
        } else if (spec->kind == KIND_NUMBER || spec->kind == KIND_SIZE ||
                   spec->kind == KIND_DURATION) {
            uint64_t value = *(const uint64_t *)member(options, spec);
            CHECK((value >= spec->min && value <= spec->max) || (value == 0 && spec->zero));
        } else if (spec->kind == KIND_FLAG) {
            CHECK(*(const uint64_t *)member(options, spec) <= 1);
        }
    }
    for (unsigned i = 0; i < options->node_count; i++) {
        struct addr addr;

        CHECK(addr_parse(&addr, options->nodes[i], 0) == 0 && addr.port > 0 && *addr.host);
    }
    options_describe(options, description, sizeof description);
    CHECK(memchr(description, 0, sizeof description));
}

/* All that was read, as a file. */
static void spell(struct buf *out, const struct options *options)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];
        const uint64_t *number = member(options, spec);

        if (spec->kind == KIND_NODES || strcmp(spec->name, "config") == 0)
            continue;
        if (spec->kind == KIND_TEXT)
            buf_format(out, "%s = \"%s\"\n", spec->name, *(char *const *)member(options, spec));
        else if (spec->kind == KIND_DURATION)
            buf_format(out, "%s=%llums\n", spec->name, (unsigned long long)*number);
        else if (spec->kind != KIND_WORD)
            buf_format(out, "%s=%llu\n", spec->name, (unsigned long long)*number);
    }
    for (unsigned i = 0; i < options->node_count; i++)
        buf_format(out, "nodes = %s\r\n", options->nodes[i]);
}

static void check_spelled_again(const struct options *options)
{
    char *environment[] = {variable, NULL};
    struct options again;
    struct buf text = {0};

    for (size_t i = 0; i < OPTION_COUNT; i++) /* a variable's value can hold what a line cannot */
        if (option_specs[i].kind == KIND_TEXT &&
            strchr(*(char *const *)member(options, &option_specs[i]), '\n'))
            return;
    spell(&text, options);
    write_file(text.data, text.len);
    CHECK(read_options(&again, environment) == 0);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];

        if (spec->kind == KIND_NODES || spec->kind == KIND_WORD ||
            strcmp(spec->name, "config") == 0)
            continue;
        if (spec->kind == KIND_TEXT)
            CHECK(strcmp(*(char *const *)member(options, spec),
                         *(char *const *)member(&again, spec)) == 0);
        else
            CHECK(*(const uint64_t *)member(options, spec) ==
                  *(const uint64_t *)member(&again, spec));
    }
    CHECK(again.node_count == options->node_count);
    for (unsigned i = 0; i < again.node_count; i++)
        CHECK(strcmp(again.nodes[i], options->nodes[i]) == 0);
    options_release(&again);
    buf_release(&text);
}

/* TEXT's lines as variables; those that name a file to read are left out. */
static void split(char *text, char *environment[MAX_VARIABLES + 1])
{
    unsigned count = 0;
    char *line;

    while ((line = strsep(&text, "\n")) != NULL && count < MAX_VARIABLES)
        if (strncmp(line, "OBJSTORE_CONFIG", 15) != 0)
            environment[count++] = line;
    environment[count] = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct feed feed = {data, size};
    bool is_file = feed_number(&feed, 1) % 2 == 0;
    char *environment[MAX_VARIABLES + 1] = {variable, NULL};
    char *text = malloc(feed.left + 1);
    struct options options;

    CHECK(text);
    if (feed.left)
        memcpy(text, feed.at, feed.left);
    text[feed.left] = 0;
    write_file(feed.at, is_file ? feed.left : 0);
    if (!is_file)
        split(text, environment);
    if (read_options(&options, environment) == 0) {
        check_values(&options);
        check_spelled_again(&options);
    }
    options_release(&options);
    free(text);
    return 0;
}
