/* Goal: every setting arrives from where it was made, the stronger source wins, and what cannot be
 * a setting ends the start with one line that says where it stands. */
/* The programs' sources are in no library. NOLINTBEGIN(bugprone-suspicious-include) */
#include "api/guard.h"
#include "cmd/common_addr.c"
#include "cmd/options.c"
#include "cmd/options_table.c"
/* NOLINTEND(bugprone-suspicious-include) */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

#define MAX_WORDS 24

struct fixture {
    struct options options;
    char message[512];
    char file[64];
};

static char *no_environment[] = {NULL};

/* Read the command line WORDS (NULL-terminated) with ENVIRONMENT. */
static int read_with(struct fixture *fixture, char *const *environment, const char *const *words)
{
    char *argv[MAX_WORDS] = {(char[]){"objstore"}};
    int argc = 1;

    for (; words[argc - 1]; argc++) {
        assert_true(argc < MAX_WORDS - 1);
        argv[argc] = strdup(words[argc - 1]);
    }
    options_release(&fixture->options);
    int rc = options_read(&fixture->options, argc, argv, environment, fixture->message,
                          sizeof fixture->message);
    /* The options keep nothing of the command line. */
    for (int i = 1; i < MAX_WORDS; i++)
        free(argv[i]);
    return rc;
}

#define READ(fixture, environment, ...)                                                            \
    read_with(fixture, environment, (const char *const[]){__VA_ARGS__, NULL})

static void write_file(struct fixture *fixture, const char *text)
{
    FILE *file = fopen(fixture->file, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    (void)snprintf(fixture->file, sizeof fixture->file, "/tmp/options_test.XXXXXX");
    int fd = mkstemp(fixture->file);
    *state = fixture;
    return fd < 0 ? -1 : close(fd);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;

    (void)unlink(fixture->file);
    options_release(&fixture->options);
    free(fixture);
    return 0;
}

static void defaults_are_the_ancestors(void **state)
{
    struct fixture *fixture = *state;
    struct options *o = &fixture->options;

    assert_int_equal(READ(fixture, no_environment, NULL), 0);
    assert_int_equal(o->action, OPTIONS_RUN);
    assert_string_equal(o->public_addr, "0.0.0.0:10999");
    assert_string_equal(o->private_addr, "0.0.0.0:11999");
    assert_string_equal(o->debug_addr, "");
    assert_string_equal(o->advertise_addr, "");
    assert_string_equal(o->cluster_secret_file, "");
    assert_string_equal(o->state_dir, "state");
    assert_string_equal(o->files_dir, "files");
    assert_string_equal(o->tag, "default");
    assert_string_equal(o->region, "us-east-1");
    assert_string_equal(o->bucket, "");
    assert_string_equal(o->cloud, "");
    assert_int_equal(options_cloud(o), CLOUD_NONE);
    assert_string_equal(o->cloud_prefix, "");
    assert_string_equal(o->s3_endpoint, "");
    assert_int_equal(o->s3_path_style, 0);
    assert_int_equal(o->s3_download_concurrency, 1);
    assert_string_equal(o->egress_price, "0.09");
    assert_int_equal(o->node_count, 0);
    assert_int_equal(o->memory_bytes, 64 * MIB);
    assert_int_equal(o->disk_cache_bytes, GIB);
    assert_int_equal(o->max_body_bytes, 0);
    assert_int_equal(o->durability, DURABILITY_FULL);
    assert_int_equal(o->anonymous, ANONYMOUS_NONE);
    assert_int_equal(o->isolated, ISOLATED_SERVE);
    assert_int_equal(o->log_format, LOG_TEXT);
    assert_int_equal(o->scrub_interval_ms, UINT64_C(7) * 86400000);
    assert_int_equal(o->access_log, 0);
}

static void every_option_takes_its_value_from_every_source(void **state)
{
    static const char *const values[OPTION_COUNT] = {
        "1",
        "10.0.0.1:1",
        "blue",
        "/s",
        "1.2.3.4:5",
        "n.example:9",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV",
        "[::1]:7",
        ":8",
        "/a/b",
        "/c/d",
        "eu-west-3",
        "buck",
        "dir:/e/f",
        "writeback",
        "1",
        "team/one",
        "http://127.0.0.1:9000",
        "yes",
        "/ca.pem",
        "4",
        "0.023",
        "3MiB",
        "16MiB",
        "off",
        "async",
        "5MiB",
        "read",
        "refuse",
        "",
        "json",
        "2h",
        "yes",
        "yes",
        "3",
        "64KiB",
        "2s",
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < OPTION_COUNT; i++) {
        const struct option_spec *spec = &option_specs[i];
        char text[256], own[VARIABLE_BYTES], by_flag[1024], by_own[1024], by_file[1024];

        if (!*values[i])
            continue;
        (void)snprintf(text, sizeof text, "--%s=%s", spec->name, values[i]);
        assert_int_equal(READ(fixture, no_environment, text), 0);
        options_describe(&fixture->options, by_flag, sizeof by_flag);
        (void)snprintf(text, sizeof text, "%s=%s (command line)", spec->name, values[i]);
        assert_string_equal(by_flag, text);

        option_variable(own, spec);
        const char *variables[] = {own, spec->variable};
        for (size_t v = 0; v < 2 && variables[v]; v++) {
            (void)snprintf(text, sizeof text, "%s=%s", variables[v], values[i]);
            char *environment[] = {text, NULL};
            assert_int_equal(READ(fixture, environment, NULL), 0);
            options_describe(&fixture->options, by_own, sizeof by_own);
            (void)snprintf(text, sizeof text, "%s=%s (environment)", spec->name, values[i]);
            assert_string_equal(by_own, text);
        }

        (void)snprintf(text, sizeof text, "%s = %s\n", spec->name, values[i]);
        write_file(fixture, text);
        assert_int_equal(READ(fixture, no_environment, "--config", fixture->file), 0);
        options_describe(&fixture->options, by_file, sizeof by_file);
        (void)snprintf(text, sizeof text, "%s=%s (file)", spec->name, values[i]);
        assert_non_null(strstr(by_file, text));
    }
}

static void the_stronger_source_wins(void **state)
{
    struct fixture *fixture = *state;
    struct options *o = &fixture->options;
    char *both[] = {(char[]){"OBJSTORE_TAG=ours"}, (char[]){"APP_CLUSTER_TAGNAME=ancestors"},
                    (char[]){"OBJSTORE_REGION="}, NULL};

    write_file(fixture, "# a comment\n\n  tag = file \r\nregion=\"file-1\"\n\tmemory=2MiB");
    assert_int_equal(READ(fixture, no_environment, "--config", fixture->file), 0);
    assert_string_equal(o->tag, "file");
    assert_string_equal(o->region, "file-1");
    assert_int_equal(o->memory_bytes, 2 * MIB);
    assert_string_equal(o->config, fixture->file);

    assert_int_equal(READ(fixture, both, "--config", fixture->file), 0);
    assert_string_equal(o->tag, "ours");
    assert_string_equal(o->region, "file-1"); /* an empty variable is none */
    assert_int_equal(READ(fixture, both + 1, "--config", fixture->file), 0);
    assert_string_equal(o->tag, "ancestors");

    assert_int_equal(READ(fixture, both, "--config", fixture->file, "-T", "first", "-T", "flag"),
                     0);
    assert_string_equal(o->tag, "flag");
}

static void the_environment_can_name_the_file(void **state)
{
    struct fixture *fixture = *state;
    char text[128];
    char *environment[] = {text, NULL};

    (void)snprintf(text, sizeof text, "OBJSTORE_CONFIG=%s", fixture->file);
    write_file(fixture, "access-log = true\n");
    assert_int_equal(READ(fixture, environment, NULL), 0);
    assert_int_equal(fixture->options.access_log, 1);
    assert_int_equal(READ(fixture, environment, "--config", "/nonexistent/x"), EXIT_CONFIG);
    assert_non_null(strstr(fixture->message, "/nonexistent/x"));
}

static void lists_grow_within_a_source_and_replace_the_weaker_ones(void **state)
{
    struct fixture *fixture = *state;
    struct options *o = &fixture->options;
    char *environment[] = {(char[]){"APP_CLUSTER_NODES=e"}, NULL};
    char *both[] = {(char[]){"APP_CLUSTER_NODES=e"}, (char[]){"OBJSTORE_NODES=o1,o2:2"}, NULL};

    write_file(fixture, "nodes = f1, f2:7 ,[::1]\nnodes = f3\n");
    assert_int_equal(READ(fixture, no_environment, "--config", fixture->file), 0);
    assert_int_equal(o->node_count, 4);
    assert_string_equal(o->nodes[0], "f1:11999");
    assert_string_equal(o->nodes[1], "f2:7");
    assert_string_equal(o->nodes[2], "[::1]:11999");
    assert_string_equal(o->nodes[3], "f3:11999");

    assert_int_equal(READ(fixture, environment, "--config", fixture->file), 0);
    assert_int_equal(o->node_count, 1);
    assert_string_equal(o->nodes[0], "e:11999");
    assert_int_equal(READ(fixture, both, NULL), 0);
    assert_int_equal(o->node_count, 2);
    assert_string_equal(o->nodes[1], "o2:2");

    assert_int_equal(READ(fixture, both, "-N", "a,b", "--nodes=[fe80::1]:9"), 0);
    assert_int_equal(o->node_count, 3);
    assert_string_equal(o->nodes[2], "[fe80::1]:9");
}

static void a_list_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    char text[3 + 2 * OPTIONS_MAX_NODES] = "-Na";

    for (int i = 0; i < OPTIONS_MAX_NODES - 1; i++)
        memcpy(text + 3 + 2 * i, ",b", 3);
    assert_int_equal(READ(fixture, no_environment, text), 0);
    assert_int_equal(READ(fixture, no_environment, text, "-Nc"), EXIT_USAGE);
}

static void sizes_and_durations_have_units(void **state)
{
    struct fixture *fixture = *state;
    struct options *o = &fixture->options;

    assert_int_equal(
        READ(fixture, no_environment, "--memory=1G", "--max-body=10k", "--scrub-interval=90m"), 0);
    assert_int_equal(o->memory_bytes, GIB);
    assert_int_equal(o->max_body_bytes, 10 * KIB);
    assert_int_equal(o->scrub_interval_ms, 90 * 60000);
    assert_int_equal(READ(fixture, no_environment, "--scrub-interval=0"), 0);
    assert_int_equal(o->scrub_interval_ms, 0);
}

static void bad_values_are_refused_with_their_option_and_text(void **state)
{
    static const struct {
        const char *argument, *name, *text;
    } cases[] = {
        {"-d2", "--debug:", "'2'"},
        {"-d-1", "--debug:", "'-1'"},
        {"--debug=", "--debug:", "''"},
        {"--memory=64Q", "--memory:", "'64Q'"},
        {"--memory=1", "--memory:", "'1'"},
        {"--memory=99999999999999999999", "--memory:", "'99999999999999999999'"},
        {"--max-body=-5", "--max-body:", "'-5'"},
        {"--scrub-interval=1w", "--scrub-interval:", "'1w'"},
        {"--durability=half", "--durability:", "full|async"},
        {"--durability=ful", "--durability:", "'ful'"},
        {"--anonymous=all", "--anonymous:", "none|read|write"},
        {"--log-format=xml", "--log-format:", "'xml'"},
        {"--access-log=maybe", "--access-log:", "yes or no"},
        {"--workers=65", "--workers:", "'65'"},
        {"--public-addr=localhost", "--public-addr:", "'localhost'"},
        {"--public-addr=", "--public-addr:", "''"},
        {"--public-addr=::1:80", "--public-addr:", "'::1:80'"},
        {"--public-addr=a:65536", "--public-addr:", "'a:65536'"},
        {"--debug-addr=[::1]", "--debug-addr:", "'[::1]'"},
        {"--advertise-addr=n.example", "--advertise-addr:", "'n.example'"},
        {"--advertise-addr=:11999", "--advertise-addr:", "':11999'"},
        {"--advertise-addr=n.example:0", "--advertise-addr:", "'n.example:0'"},
        {"--private-addr=a b:1", "--private-addr:", "'a b:1'"},
        {"--nodes=a,,b", "--nodes:", "''"},
        {"--nodes=a:0", "--nodes:", "'a:0'"},
        {"--nodes=:7", "--nodes:", "':7'"},
        {"--tag=", "--tag:", "''"},
        {"--tag=a\tb", "--tag:", "'a\tb'"},
        {"--region=US", "--region:", "'US'"},
        {"--bucket=a/b", "--bucket:", "'a/b'"},
        {"--cloud=S3", "--cloud:", "'S3'"},
        {"--cloud=dir:", "--cloud:", "path"},
        {"--cloud=dir", "--cloud:", "'dir'"},
        {"--cloud-prefix=/a", "--cloud-prefix:", "'/a'"},
        {"--cloud-prefix=a\tb", "--cloud-prefix:", "text"},
        {"--s3-endpoint=localhost:9000", "--s3-endpoint:", "'localhost:9000'"},
        {"--s3-endpoint=http://", "--s3-endpoint:", "'http://'"},
        {"--s3-endpoint=http://a/b", "--s3-endpoint:", "'http://a/b'"},
        {"--s3-endpoint=ftp://a", "--s3-endpoint:", "'ftp://a'"},
        {"--s3-path-style=maybe", "--s3-path-style:", "yes or no"},
        {"--s3-download-concurrency=0", "--s3-download-concurrency:", "'0'"},
        {"--s3-download-concurrency=17", "--s3-download-concurrency:", "'17'"},
        {"--egress-price=", "--egress-price:", "''"},
        {"--egress-price=-1", "--egress-price:", "'-1'"},
        {"--egress-price=.5", "--egress-price:", "'.5'"},
        {"--egress-price=1.", "--egress-price:", "'1.'"},
        {"--egress-price=1.0x", "--egress-price:", "'1.0x'"},
        {"--egress-price=$1", "--egress-price:", "'$1'"},
        {"--state-dir=", "--state-dir:", "''"},
        {"--segment-bytes=1k", "--segment-bytes:", ""},
        {"--http-deadline=2h", "--http-deadline:", "'2h'"},
        {"stray", "unexpected", "'stray'"},
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = READ(fixture, no_environment, cases[i].argument);

        if (rc != EXIT_USAGE)
            print_error("%s gave %d\n", cases[i].argument, rc);
        assert_int_equal(rc, EXIT_USAGE);
        assert_non_null(strstr(fixture->message, cases[i].name));
        assert_non_null(strstr(fixture->message, cases[i].text));
        assert_null(strchr(fixture->message, '\n'));
    }
}

static void a_bad_value_is_refused_where_a_stronger_source_overrides_it(void **state)
{
    struct fixture *fixture = *state;
    char *environment[] = {(char[]){"OBJSTORE_MEMORY=lots"}, NULL};
    char *ancestor[] = {(char[]){"NET_PUBLIC_ADDR=nowhere"}, NULL};

    assert_int_equal(READ(fixture, environment, "--memory=64MiB"), EXIT_CONFIG);
    assert_non_null(strstr(fixture->message, "$OBJSTORE_MEMORY: 'lots'"));
    assert_int_equal(READ(fixture, ancestor, NULL), EXIT_CONFIG);
    assert_non_null(strstr(fixture->message, "$NET_PUBLIC_ADDR: 'nowhere'"));
}

static void errors_in_the_file_bear_its_name_and_line(void **state)
{
    static const struct {
        const char *text, *line, *about;
    } cases[] = {
        {"tag = a\nmemry = 1G\n", ":2: ", "unknown option 'memry'"},
        {"# c\n\nmemory = much\n", ":3: memory: ", "'much'"},
        {"just words\n", ":1: ", "option = value"},
        {"tag = a\n tag = b\n", ":2: tag: ", "line 1"},
        {"config = other\n", ":1: ", "unknown option 'config'"},
        {"= 5\n", ":1: ", "unknown option ''"},
        {"--tag = 5\n", ":1: ", "unknown option '--tag'"},
    };
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char where[128];

        write_file(fixture, cases[i].text);
        assert_int_equal(READ(fixture, no_environment, "--config", fixture->file), EXIT_CONFIG);
        (void)snprintf(where, sizeof where, "%s%s", fixture->file, cases[i].line);
        assert_memory_equal(fixture->message, where, strlen(where));
        assert_non_null(strstr(fixture->message, cases[i].about));
    }
}

static void unknown_variables_of_our_prefix_are_noticed(void **state)
{
    struct fixture *fixture = *state;
    char *environment[] = {(char[]){"OBJSTORE_MEMROY=1G"}, (char[]){"OBJSTORE_ADDR=a:1"},
                           (char[]){"OBJSTORE_TAG=t"},     (char[]){"OTHER=1"},
                           (char[]){"OBJSTORE_TAGS=t"},    NULL};

    assert_int_equal(READ(fixture, environment, NULL), 0);
    assert_int_equal(fixture->options.strange_count, 2);
    assert_ptr_equal(fixture->options.strange[0], environment[0]);
    assert_ptr_equal(fixture->options.strange[1], environment[4]);
}

static void both_directories_cannot_be_one(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(READ(fixture, no_environment, "--state-dir=x/", "--files-dir=x"), EXIT_CONFIG);
    assert_int_equal(READ(fixture, no_environment, "--state-dir=/tmp", "--files-dir=/tmp/../tmp"),
                     EXIT_CONFIG);
    assert_int_equal(READ(fixture, no_environment, "--state-dir=x", "--files-dir=x/y"), 0);
}

static void a_bucket_alone_means_s3_unless_something_else_is_said(void **state)
{
    struct fixture *fixture = *state;
    struct options *o = &fixture->options;
    char *environment[] = {(char[]){"S3_BUCKET_NAME=a-bucket"}, NULL};

    assert_int_equal(READ(fixture, no_environment, "-Ba-bucket"), 0);
    assert_int_equal(options_cloud(o), CLOUD_S3);
    assert_int_equal(READ(fixture, environment, NULL), 0);
    assert_int_equal(options_cloud(o), CLOUD_S3);
    assert_int_equal(READ(fixture, environment, "--cloud=none"), 0);
    assert_int_equal(options_cloud(o), CLOUD_NONE);
    assert_int_equal(READ(fixture, environment, "--cloud=dir:x/y"), 0);
    assert_int_equal(options_cloud(o), CLOUD_DIRECTORY);
    assert_string_equal(options_cloud_directory(o), "x/y");
    assert_int_equal(READ(fixture, no_environment, "--cloud=s3"), EXIT_CONFIG);
    assert_non_null(strstr(fixture->message, "--bucket"));
}

static void a_cloud_is_not_among_the_nodes_own_files(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(READ(fixture, no_environment, "--cloud=dir:files"), EXIT_CONFIG);
    assert_non_null(strstr(fixture->message, "--cloud"));
    assert_int_equal(READ(fixture, no_environment, "--cloud=dir:files/cloud"), EXIT_CONFIG);
    assert_int_equal(READ(fixture, no_environment, "--cloud=dir:files-cloud"), 0);
    assert_int_equal(READ(fixture, no_environment, "--files-dir=/", "--cloud=dir:/tmp"),
                     EXIT_CONFIG);
    assert_int_equal(
        READ(fixture, no_environment, "--state-dir=/usr/lib", "--cloud=dir:/usr/../usr/lib"),
        EXIT_CONFIG);
    assert_int_equal(READ(fixture, no_environment, "--state-dir=/usr/lib", "--cloud=dir:/usr"), 0);
}

static void help_and_version_are_actions_that_need_nothing_else(void **state)
{
    struct fixture *fixture = *state;
    char *bad[] = {(char[]){"OBJSTORE_MEMORY=lots"}, NULL};

    assert_int_equal(READ(fixture, bad, "--help"), 0);
    assert_int_equal(fixture->options.action, OPTIONS_SHOW_HELP);
    assert_int_equal(READ(fixture, bad, "-h"), 0);
    assert_int_equal(fixture->options.action, OPTIONS_SHOW_HELP);
    assert_int_equal(READ(fixture, bad, "--version"), 0);
    assert_int_equal(fixture->options.action, OPTIONS_SHOW_VERSION);
}

static void help_names_every_option_but_the_hidden_ones(void **state)
{
    char *text = NULL;
    size_t len;
    FILE *to = open_memstream(&text, &len);

    (void)state;
    assert_non_null(to);
    options_print_help(to);
    assert_int_equal(fclose(to), 0);
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char flag[64];

        (void)snprintf(flag, sizeof flag, "--%s", option_specs[i].name);
        if (option_specs[i].hidden)
            assert_null(strstr(text, flag));
        else
            assert_non_null(strstr(text, flag));
        if (option_specs[i].variable)
            assert_non_null(strstr(text, option_specs[i].variable));
    }
    free(text);
}

static void addresses_are_printed_as_they_are_parsed(void **state)
{
    static const char *const same[] = {"a:1", "[::1]:2", ":3", "10.0.0.1:65535"};
    struct addr addr = {.port = 0};
    char text[ADDR_HOST_BYTES + 16];

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        assert_int_equal(addr_parse(&addr, same[i], 0), 0);
        addr_format(text, sizeof text, &addr);
        assert_string_equal(text, same[i]);
    }
    assert_int_equal(addr_parse(&addr, "[::1", 1), ERR_INVALID);
    assert_int_equal(addr_parse(&addr, "[]:1", 1), ERR_INVALID);
    assert_int_equal(addr_parse(&addr, "[::1]x", 1), ERR_INVALID);
    assert_int_equal(addr_parse(&addr, "", 1), ERR_INVALID);
    assert_int_equal(addr_parse(&addr, "a:70000", 1), ERR_RANGE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(defaults_are_the_ancestors),
        TEST(every_option_takes_its_value_from_every_source),
        TEST(the_stronger_source_wins),
        TEST(the_environment_can_name_the_file),
        TEST(lists_grow_within_a_source_and_replace_the_weaker_ones),
        TEST(a_list_is_bounded),
        TEST(sizes_and_durations_have_units),
        TEST(bad_values_are_refused_with_their_option_and_text),
        TEST(a_bad_value_is_refused_where_a_stronger_source_overrides_it),
        TEST(errors_in_the_file_bear_its_name_and_line),
        TEST(unknown_variables_of_our_prefix_are_noticed),
        TEST(both_directories_cannot_be_one),
        TEST(a_bucket_alone_means_s3_unless_something_else_is_said),
        TEST(a_cloud_is_not_among_the_nodes_own_files),
        TEST(help_and_version_are_actions_that_need_nothing_else),
        TEST(help_names_every_option_but_the_hidden_ones),
        TEST(addresses_are_printed_as_they_are_parsed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
