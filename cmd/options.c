/*
 * The sources of settings, over the table in options_table.c. The command line is read first,
 * because it may name the configuration file, but only remembered; then the sources are applied
 * from the weakest to the strongest: defaults, file, environment, command line. A list given by a
 * stronger source replaces the weaker one's; within one source it grows.
 *
 * Nothing is ignored: a value that is overridden must still be a good one, an unknown key in the
 * file is an error with its line, an unknown OBJSTORE_ variable a warning (Kubernetes sets some for
 * a service of that name).
 */
#include "cmd/options.h"

#include "base/err.h"
#include "base/io.h"
#include "base/limits.h"
#include "base/text.h"
#include "cmd/common_addr.h"
#include "cmd/options_table.h"

#include <argp.h>
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define CLOUD_DIRECTORY_WORD "dir:"
#define CONFIG_MAX_BYTES     (256 * KIB)
#define MAX_ARGUMENTS        256
#define DEFAULT_PEER_PORT    11999
#define DESCRIPTION_BYTES    320
#define OPTION_VALUE_BYTES   1024

enum source_kind { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_COMMAND };

struct source {
    enum source_kind kind;
    const char *name; /* the file or the variable */
    unsigned line;
};

/* Who set each option, and to what. */
struct given {
    struct {
        enum source_kind kind;
        char *text;
    } by[OPTION_COUNT];
};

/* ---- From text to value ---- */

struct reading {
    struct options *out;
    struct given *given;
    char *message;
    size_t cap;
};

static void *member_of(struct options *options, const struct option_spec *spec)
{
    return (char *)options + spec->offset;
}

static int exit_code_of(const struct source *source)
{
    return source->kind == SOURCE_COMMAND ? EXIT_USAGE : EXIT_CONFIG;
}

/* Say WHAT is wrong with SPEC at SOURCE; the exit code. */
static int complain(struct reading *reading, const struct option_spec *spec,
                    const struct source *source, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int complain(struct reading *reading, const struct option_spec *spec,
                    const struct source *source, const char *format, ...)
{
    char what[OPTION_VALUE_BYTES];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (source->kind == SOURCE_FILE)
        (void)snprintf(reading->message, reading->cap, "%s:%u: %s: %s", source->name, source->line,
                       spec->name, what);
    else if (source->kind == SOURCE_ENVIRONMENT)
        (void)snprintf(reading->message, reading->cap, "$%s: %s", source->name, what);
    else
        (void)snprintf(reading->message, reading->cap, "--%s: %s", spec->name, what);
    return exit_code_of(source);
}

static int no_memory(struct reading *reading)
{
    (void)snprintf(reading->message, reading->cap, "out of memory");
    return EXIT_IO;
}

static int set_number(struct reading *reading, const struct option_spec *spec, const char *text,
                      const struct source *source)
{
    char complaint[OPTION_VALUE_BYTES];
    uint64_t value;

    if (option_number(&value, spec, text, complaint, sizeof complaint))
        return complain(reading, spec, source, "%s", complaint);
    *(uint64_t *)member_of(reading->out, spec) = value;
    return 0;
}

static int set_text(struct reading *reading, const struct option_spec *spec, const char *text,
                    const struct source *source)
{
    char **at = member_of(reading->out, spec);
    const char *complaint = spec->check(text);

    if (complaint)
        return complain(reading, spec, source, "'%s' %s", text, complaint);
    char *copy = strdup(text);
    if (!copy)
        return no_memory(reading);
    if (option_is_directory(spec)) {
        for (size_t len = strlen(copy); len > 1 && copy[len - 1] == '/'; len--)
            copy[len - 1] = 0;
    }
    free(*at);
    *at = copy;
    return 0;
}

static int add_node(struct reading *reading, const struct option_spec *spec, const char *text,
                    const struct source *source)
{
    char full[ADDR_HOST_BYTES + 16];
    struct options *out = reading->out;
    struct addr addr;

    if (addr_parse(&addr, text, DEFAULT_PEER_PORT) || !*addr.host || addr.port == 0)
        return complain(reading, spec, source, "'%s' must be HOST, HOST:PORT or [V6]:PORT", text);
    if (out->node_count == OPTIONS_MAX_NODES)
        return complain(reading, spec, source, "more than %d nodes", OPTIONS_MAX_NODES);
    addr_format(full, sizeof full, &addr);
    out->nodes[out->node_count] = strdup(full);
    if (!out->nodes[out->node_count])
        return no_memory(reading);
    out->node_count++;
    return 0;
}

static void clear_nodes(struct options *out)
{
    while (out->node_count > 0)
        free(out->nodes[--out->node_count]);
}

static int add_nodes(struct reading *reading, const struct option_spec *spec, const char *text,
                     const struct source *source)
{
    for (const char *at = text;; at++) {
        char item[ADDR_HOST_BYTES + 16];
        const char *begin = at + strspn(at, " \t");
        size_t len = strcspn(begin, ",");

        at = begin + len;
        while (len > 0 && (begin[len - 1] == ' ' || begin[len - 1] == '\t'))
            len--;
        if (len >= sizeof item)
            return complain(reading, spec, source, "an address is too long");
        memcpy(item, begin, len);
        item[len] = 0;
        int rc = add_node(reading, spec, item, source);
        if (rc || *at == 0)
            return rc;
    }
}

/* Note that SOURCE said TEXT about SPEC; a list's items are joined. */
static int note(struct reading *reading, const struct option_spec *spec, const char *text,
                const struct source *source, bool joins)
{
    size_t i = (size_t)(spec - option_specs);
    char *old = reading->given->by[i].text, *copy = NULL;

    assert(i < OPTION_COUNT);
    if (asprintf(&copy, "%s%s%s", joins && old ? old : "", joins && old ? "," : "", text) < 0)
        return no_memory(reading);
    free(old);
    reading->given->by[i].text = copy;
    reading->given->by[i].kind = source->kind;
    return 0;
}

static int apply(struct reading *reading, const struct option_spec *spec, const char *text,
                 const struct source *source)
{
    bool same = reading->given->by[spec - option_specs].kind == source->kind;
    int rc;

    if (spec->kind == KIND_NODES) {
        /* The ancestor's variable is another source than ours: ours replaces it. */
        if (!same || source->kind == SOURCE_ENVIRONMENT)
            clear_nodes(reading->out);
        rc = add_nodes(reading, spec, text, source);
    } else if (spec->kind == KIND_TEXT) {
        rc = set_text(reading, spec, text, source);
    } else {
        rc = set_number(reading, spec, text, source);
    }
    if (rc)
        return rc;
    return note(reading, spec, text, source,
                spec->kind == KIND_NODES && same && source->kind != SOURCE_ENVIRONMENT);
}

/* ---- The sources ---- */

static int apply_defaults(struct reading *reading)
{
    const struct source source = {.kind = SOURCE_DEFAULT};

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        int rc = option_specs[i].standard
                     ? apply(reading, &option_specs[i], option_specs[i].standard, &source)
                     : 0;

        if (rc)
            return rc;
    }
    return 0;
}

/* The value of variable NAME, NULL where it is not set or empty. */
static const char *variable(char *const *environment, const char *name)
{
    size_t len = strlen(name);

    for (char *const *at = environment; *at; at++) {
        if (strncmp(*at, name, len) == 0 && (*at)[len] == '=' && (*at)[len + 1])
            return *at + len + 1;
    }
    return NULL;
}

static int apply_environment(struct reading *reading, char *const *environment)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char own[VARIABLE_BYTES];
        option_variable(own, &option_specs[i]);
        const char *names[] = {option_specs[i].variable, own};

        for (size_t n = 0; n < 2; n++) {
            const struct source source = {.kind = SOURCE_ENVIRONMENT, .name = names[n]};
            const char *value = names[n] ? variable(environment, names[n]) : NULL;
            int rc = value ? apply(reading, &option_specs[i], value, &source) : 0;

            if (rc)
                return rc;
        }
    }
    return 0;
}

/* Variables of our prefix that are nobody's. objctl and the tests have some, too. */
static void find_strange(struct options *out, char *const *environment)
{
    static const char *const others[] = {"ADDR=", "BIN=", "TEST_"};

    for (char *const *at = environment; *at; at++) {
        if (strncmp(*at, VARIABLE_PREFIX, strlen(VARIABLE_PREFIX)) != 0)
            continue;
        const char *rest = *at + strlen(VARIABLE_PREFIX);
        bool known = false;
        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
            known |= strncmp(rest, others[i], strlen(others[i])) == 0;
        for (size_t i = 0; i < OPTION_COUNT && !known; i++) {
            char own[VARIABLE_BYTES];
            option_variable(own, &option_specs[i]);
            size_t len = strlen(own);
            known = strncmp(*at, own, len) == 0 && (*at)[len] == '=';
        }
        if (!known && out->strange_count < OPTIONS_MAX_STRANGE)
            out->strange[out->strange_count++] = *at;
    }
}

static char *trim(char *text)
{
    static const char blank[] = " \t\r";
    size_t len;

    text += strspn(text, blank);
    for (len = strlen(text); len > 0 && strchr(blank, text[len - 1]); len--)
        text[len - 1] = 0;
    /* Quotes keep blanks at either end. */
    if (len >= 2 && text[0] == '"' && text[len - 1] == '"') {
        text[len - 1] = 0;
        text++;
    }
    return text;
}

static int apply_line(struct reading *reading, char *line, const struct source *source,
                      unsigned seen[OPTION_COUNT])
{
    char *at = line + strspn(line, " \t\r");

    if (*at == 0 || *at == '#')
        return 0;
    char *equals = strchr(at, '=');
    if (!equals) {
        (void)snprintf(reading->message, reading->cap, "%s:%u: must be 'option = value'",
                       source->name, source->line);
        return EXIT_CONFIG;
    }
    *equals = 0;
    char *name = trim(at);
    const struct option_spec *spec = option_by_name(name, strlen(name));
    if (!spec || strcmp(spec->name, "config") == 0) {
        (void)snprintf(reading->message, reading->cap, "%s:%u: unknown option '%.100s'",
                       source->name, source->line, name);
        return EXIT_CONFIG;
    }
    unsigned *before = &seen[spec - option_specs];
    if (*before && spec->kind != KIND_NODES)
        return complain(reading, spec, source, "is set in line %u already", *before);
    *before = source->line;
    return apply(reading, spec, trim(equals + 1), source);
}

static int apply_file(struct reading *reading, const char *path)
{
    unsigned seen[OPTION_COUNT] = {0};
    struct source source = {.kind = SOURCE_FILE, .name = path};
    char *text = NULL, *rest;
    size_t len;

    int rc = io_read_all(io_system(), path, CONFIG_MAX_BYTES, &text, &len);
    if (rc) {
        (void)snprintf(reading->message, reading->cap, "cannot read configuration %s: %s", path,
                       err_text(rc));
        return EXIT_CONFIG;
    }
    rest = text;
    if (strlen(text) != len) {
        (void)snprintf(reading->message, reading->cap, "%s: not a text file", path);
        rc = EXIT_CONFIG;
    }
    for (char *line; rc == 0 && (line = strsep(&rest, "\n")) != NULL;) {
        source.line++;
        rc = apply_line(reading, line, &source, seen);
    }
    free(text);
    return rc;
}

/* ---- The command line ---- */

struct arguments {
    struct {
        const struct option_spec *spec;
        const char *text;
    } list[MAX_ARGUMENTS];
    unsigned count;
    enum options_action action;
    struct reading *reading;
    bool failed;
};

#define KEY_BASE    1000 /* + index in the table, for options without a letter */
#define KEY_VERSION 'V'
#define KEY_HELP    'h'

static const struct option_spec *spec_by_key(int key)
{
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (key == (option_specs[i].letter ? option_specs[i].letter : KEY_BASE + (int)i))
            return &option_specs[i];
    }
    return NULL;
}

static error_t take_argument(int key, char *text, struct argp_state *state)
{
    struct arguments *arguments = state->input;
    struct reading *reading = arguments->reading;
    const struct option_spec *spec = spec_by_key(key);

    if (key == ARGP_KEY_INIT) {
        state->err_stream = NULL; /* getopt's line is enough, without "Try …" */
        return 0;
    }
    if (key == KEY_HELP || key == KEY_VERSION) {
        arguments->action = key == KEY_HELP ? OPTIONS_SHOW_HELP : OPTIONS_SHOW_VERSION;
        return 0;
    }
    if (key == ARGP_KEY_ARG) {
        (void)snprintf(reading->message, reading->cap, "unexpected argument '%s'", text);
        return EINVAL;
    }
    if (!spec)
        return ARGP_ERR_UNKNOWN;
    if (arguments->count == MAX_ARGUMENTS) {
        (void)snprintf(reading->message, reading->cap, "more than %d options", MAX_ARGUMENTS);
        return EINVAL;
    }
    arguments->list[arguments->count].spec = spec;
    arguments->list[arguments->count++].text = text ? text : "yes";
    return 0;
}

/* argp's table from ours. Static: it is handed to argp, which keeps pointers. */
static const struct argp *command_line(void)
{
    static struct argp_option options[OPTION_COUNT + 3];
    static char descriptions[OPTION_COUNT][DESCRIPTION_BYTES];
    static const struct argp argp = {
        .options = options,
        .parser = take_argument,
        .doc = "objstore: a near cache and object store in front of Amazon S3.\v"
               "Each option is also a variable, OBJSTORE_ and its name in capitals, or a line "
               "'option = value' of the configuration file. Command line goes before environment, "
               "environment before file.",
    };

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];
        bool shown = spec->standard && *spec->standard;

        (void)snprintf(descriptions[i], DESCRIPTION_BYTES, "%s%s%s%s%s%s%s", spec->help,
                       shown ? " (default " : "", shown ? spec->standard : "", shown ? ")" : "",
                       spec->variable ? " ($" : "", spec->variable ? spec->variable : "",
                       spec->variable ? ")" : "");
        options[i] = (struct argp_option){
            .name = spec->name,
            .key = spec->letter ? spec->letter : KEY_BASE + (int)i,
            .arg = spec->argument,
            .flags = (spec->kind == KIND_FLAG ? OPTION_ARG_OPTIONAL : 0) |
                     (spec->hidden ? OPTION_HIDDEN : 0),
            .doc = descriptions[i],
        };
    }
    options[OPTION_COUNT] =
        (struct argp_option){.name = "help", .key = KEY_HELP, .doc = "Show this help", .group = -1};
    options[OPTION_COUNT + 1] = (struct argp_option){
        .name = "version", .key = KEY_VERSION, .doc = "Show the version", .group = -1};
    return &argp;
}

static int apply_arguments(struct reading *reading, const struct arguments *arguments)
{
    const struct source source = {.kind = SOURCE_COMMAND};

    for (unsigned i = 0; i < arguments->count; i++) {
        int rc = apply(reading, arguments->list[i].spec, arguments->list[i].text, &source);

        if (rc)
            return rc;
    }
    return 0;
}

/* Which file to read: the last --config, else the variable's, else NULL. */
static const char *config_path(const struct arguments *arguments, char *const *environment)
{
    for (unsigned i = arguments->count; i > 0; i--) {
        if (strcmp(arguments->list[i - 1].spec->name, "config") == 0)
            return arguments->list[i - 1].text;
    }
    return variable(environment, VARIABLE_PREFIX "CONFIG");
}

static bool path_begins(const char *path, const char *with)
{
    size_t len = strlen(with);

    if (len > 0 && with[len - 1] == '/')
        len--;
    return strncmp(path, with, len) == 0 && (path[len] == 0 || path[len] == '/');
}

/* The directory A is B, or lies in it; as they are written, where one of them is not there yet. */
static bool lies_in(const char *a, const char *b)
{
    char *inner = realpath(a, NULL), *outer = realpath(b, NULL);
    bool lies = path_begins(inner && outer ? inner : a, inner && outer ? outer : b);

    free(inner);
    free(outer);
    return lies;
}

static int check_cloud_together(struct reading *reading)
{
    const struct options *out = reading->out;

    switch (options_cloud(out)) {
    case CLOUD_S3:
        if (*out->bucket)
            return 0;
        (void)snprintf(reading->message, reading->cap, "--cloud=s3 needs a --bucket");
        return EXIT_CONFIG;
    case CLOUD_DIRECTORY: {
        const char *path = options_cloud_directory(out);

        /* A cloud among the node's own files would be lost with them, and be taken for them. */
        if (!lies_in(path, out->state_dir) && !lies_in(path, out->files_dir))
            return 0;
        (void)snprintf(reading->message, reading->cap,
                       "--cloud: directory %s lies in --state-dir or --files-dir", path);
        return EXIT_CONFIG;
    }
    case CLOUD_NONE:
        break;
    }
    return 0;
}

/* What no single value can be blamed for. */
static int check_together(struct reading *reading)
{
    const struct options *out = reading->out;
    char *state = realpath(out->state_dir, NULL), *files = realpath(out->files_dir, NULL);
    bool same = strcmp(out->state_dir, out->files_dir) == 0 ||
                (state && files && strcmp(state, files) == 0);

    free(state);
    free(files);
    if (same) {
        (void)snprintf(reading->message, reading->cap,
                       "--state-dir and --files-dir name the same directory, %s", out->state_dir);
        return EXIT_CONFIG;
    }
    return check_cloud_together(reading);
}

enum options_cloud options_cloud(const struct options *options)
{
    if (strcmp(options->cloud, "none") == 0)
        return CLOUD_NONE;
    if (strncmp(options->cloud, CLOUD_DIRECTORY_WORD, strlen(CLOUD_DIRECTORY_WORD)) == 0)
        return CLOUD_DIRECTORY;
    return *options->cloud || *options->bucket ? CLOUD_S3 : CLOUD_NONE;
}

const char *options_cloud_directory(const struct options *options)
{
    assert(options_cloud(options) == CLOUD_DIRECTORY);
    return options->cloud + strlen(CLOUD_DIRECTORY_WORD);
}

int options_read(struct options *out, int argc, char **argv, char *const *environment,
                 char *message, size_t cap)
{
    struct reading reading = {.out = out, .message = message, .cap = cap};
    struct arguments arguments = {.action = OPTIONS_RUN, .reading = &reading};

    assert(cap > 0);
    *out = (struct options){.action = OPTIONS_RUN};
    *message = 0;
    reading.given = out->given = calloc(1, sizeof *reading.given);
    if (!reading.given)
        return no_memory(&reading);

    int rc = apply_defaults(&reading);
    if (rc)
        return rc;
    if (argp_parse(command_line(), argc, argv, ARGP_NO_EXIT | ARGP_NO_HELP, NULL, &arguments))
        return EXIT_USAGE;
    out->action = arguments.action;
    if (out->action != OPTIONS_RUN)
        return 0;

    const char *path = config_path(&arguments, environment);
    if (path && *path)
        rc = apply_file(&reading, path);
    if (rc == 0)
        rc = apply_environment(&reading, environment);
    if (rc == 0)
        rc = apply_arguments(&reading, &arguments);
    if (rc == 0)
        rc = check_together(&reading);
    if (rc == 0)
        find_strange(out, environment);
    return rc;
}

void options_release(struct options *options)
{
    struct given *given = options->given;

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        if (option_specs[i].kind == KIND_TEXT) {
            char **at = member_of(options, &option_specs[i]);
            free(*at);
            *at = NULL;
        }
        if (given)
            free(given->by[i].text);
    }
    clear_nodes(options);
    free(given);
    options->given = NULL;
}

void options_print_help(FILE *to)
{
    char name[] = "objstore";

    argp_help(command_line(), to, ARGP_HELP_STD_HELP & ~(unsigned)ARGP_HELP_EXIT_OK, name);
}

bool options_given(const struct options *options, const char *name)
{
    const struct option_spec *spec = option_by_name(name, strlen(name));
    const struct given *given = options->given;

    assert(spec && given);
    return given->by[spec - option_specs].kind != SOURCE_DEFAULT;
}

void options_describe(const struct options *options, char *out, size_t cap)
{
    static const char *const sources[] = {"default", "file", "environment", "command line"};
    const struct given *given = options->given;
    size_t at = 0;

    assert(cap > 0 && given);
    *out = 0;
    for (size_t i = 0; i < OPTION_COUNT && at < cap; i++) {
        if (given->by[i].kind == SOURCE_DEFAULT)
            continue;
        int len = snprintf(out + at, cap - at, "%s%s=%s (%s)", at ? ", " : "", option_specs[i].name,
                           given->by[i].text, sources[given->by[i].kind]);
        at += len > 0 ? (size_t)len : 0;
    }
}
