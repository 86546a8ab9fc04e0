/*
 * Goal: whatever stands in AWS's files, in the environment or in the answer of a metadata service,
 * what becomes of it are printable texts within their limits, whole keys, and an address that our
 * authorization may be sent to; and a second reading agrees.
 * Input: what it is (1 byte): 0 JSON; 1 and 2 a profile's name in the first line and a file of
 * AWS's (2: config); 3 an environment "NAME=value" up to an empty line, and the file that
 * AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name.
 */
#include "storage/cloud_credentials.h"
#include "tests/fuzz/memory_io.h"

#include <jansson.h>

#define SETTINGS 16

static void check_text(const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    CHECK(len < cap);
    for (size_t i = 0; i < len; i++)
        CHECK(text[i] > 0x20 && text[i] <= 0x7e);
}

static void check_credentials(const struct credentials *got)
{
    check_text(got->access_key, sizeof got->access_key);
    check_text(got->secret_key, sizeof got->secret_key);
    check_text(got->token, sizeof got->token);
    CHECK(got->expires_s >= 0);
}

static bool is_wiped(const struct credentials *got)
{
    return !got->access_key[0] && !got->secret_key[0] && !got->token[0] && got->expires_s == 0;
}

/* ---- JSON ---- */

static void check_member(json_t *root, const char *name, const char *got)
{
    json_t *value = json_object_get(root, name);

    CHECK(strcmp(json_is_string(value) ? json_string_value(value) : "", got) == 0);
}

static void try_json(const char *text, size_t len)
{
    struct credentials got;
    int rc = credentials_json(&got, text, len);

    check_credentials(&got);
    if (rc) {
        CHECK(rc == ERR_INVALID && is_wiped(&got));
        return;
    }
    json_t *root = json_loadb(text, len, 0, NULL);
    CHECK(root && got.access_key[0] && got.secret_key[0]);
    check_member(root, "AccessKeyId", got.access_key);
    check_member(root, "SecretAccessKey", got.secret_key);
    check_member(root, "Token", got.token);
    json_decref(root);
    credentials_wipe(&got);
    CHECK(is_wiped(&got));
}

/* ---- A profile ---- */

static char *take_line(const char **at, size_t *left)
{
    const char *end = memchr(*at, '\n', *left);
    size_t len = end ? (size_t)(end - *at) : *left;
    char *line = malloc(len + 1);

    CHECK(line);
    memcpy(line, *at, len);
    line[len] = 0;
    *at += len + (end ? 1 : 0);
    *left -= len + (end ? 1 : 0);
    return line;
}

/* What was found, written as a file of its own. */
static void check_again(const struct credentials *got, const char *region, const char *profile,
                        bool config)
{
    struct credentials again;
    char region_again[CREDENTIALS_REGION_BYTES];
    size_t cap = 16384 + strlen(profile);
    char *text = malloc(cap);

    if (strpbrk(profile, "]\r") || strchr(" \t", profile[0]) ||
        strchr(" \t", profile[strlen(profile) - 1])) {
        free(text);
        return; /* no section can be called so */
    }
    CHECK(text);
    bool named = config && strcmp(profile, "default") != 0;
    int len = snprintf(text, cap,
                       "[%s%s]\naws_access_key_id=%s\naws_secret_access_key = %s\n"
                       "aws_session_token=\t%s\r\nregion=%s",
                       named ? "profile " : "", profile, got->access_key, got->secret_key,
                       got->token, region);
    int rc = credentials_profile(&again, region_again, text, (size_t)len, profile, config);
    CHECK(rc == 0 && strcmp(region, region_again) == 0);
    CHECK(strcmp(again.access_key, got->access_key) == 0 && strcmp(again.token, got->token) == 0 &&
          strcmp(again.secret_key, got->secret_key) == 0);
    free(text);
}

static void try_profile(const char *text, size_t len, bool config)
{
    struct credentials got;
    char region[CREDENTIALS_REGION_BYTES];
    char *profile = take_line(&text, &len);
    char *rest = exact_copy(text, len);
    int rc = credentials_profile(&got, region, rest, len, profile, config);

    CHECK(rc == 0 || rc == ERR_NOT_FOUND || rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
    check_credentials(&got);
    check_text(region, sizeof region);
    if (rc == ERR_NOT_FOUND)
        CHECK(is_wiped(&got) && !region[0]);
    if (rc == 0 && profile[0])
        check_again(&got, region, profile, config);
    free(rest);
    free(profile);
}

/* ---- All of it ---- */

static char *names[SETTINGS], *values[SETTINGS];
static size_t setting_count;

static const char *get_setting(const char *name)
{
    for (size_t i = 0; i < setting_count; i++)
        if (strcmp(names[i], name) == 0)
            return values[i];
    return NULL;
}

static void take_settings(const char **at, size_t *left)
{
    setting_count = 0;
    while (*left > 0 && setting_count < SETTINGS) {
        char *line = take_line(at, left), *sign = strchr(line, '=');

        if (!sign) {
            free(line);
            break;
        }
        *sign = 0;
        names[setting_count] = line;
        values[setting_count++] = sign + 1;
    }
}

/* The host that a URL of a container's endpoint leads to, as the RFC has it. */
static void check_container(const char *url)
{
    static const char *const near[] = {"localhost",     "127.0.0.1",      "[::1]",
                                       "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    char host[CREDENTIALS_URL_BYTES];
    bool found = false;

    if (strncmp(url, "https://", 8) == 0)
        return;
    CHECK(strncmp(url, "http://", 7) == 0);
    size_t authority = strcspn(url + 7, "/?#\\");
    (void)snprintf(host, sizeof host, "%.*s", (int)authority, url + 7);
    CHECK(!strchr(host, '@'));
    char *port = strrchr(host, ':');
    if (port && !strchr(port, ']'))
        *port = 0;
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        found |= strcmp(near[i], host) == 0;
    CHECK(found);
}

static void check_plan(const struct credentials_plan *plan)
{
    check_text(plan->region, sizeof plan->region);
    CHECK(strnlen(plan->url, sizeof plan->url) < sizeof plan->url);
    check_text(plan->authorization, sizeof plan->authorization);
    CHECK(strnlen(plan->authorization_file, sizeof plan->authorization_file) <
          sizeof plan->authorization_file);
    check_credentials(&plan->given);
    switch (plan->source) {
    case CREDENTIALS_ENVIRONMENT:
    case CREDENTIALS_FILE:
        CHECK(plan->given.access_key[0] && plan->given.secret_key[0]);
        break;
    case CREDENTIALS_CONTAINER:
        for (const char *c = plan->url; *c; c++) /* it becomes a line of a request */
            CHECK((unsigned char)*c > 0x20 && *c != 0x7f);
        check_container(plan->url);
        break;
    case CREDENTIALS_INSTANCE:
        for (const char *c = plan->url; *c; c++)
            CHECK((unsigned char)*c > 0x20 && *c != 0x7f);
        CHECK(strncmp(plan->url, "http", 4) == 0 && strstr(plan->url, "://"));
        break;
    default:
        CHECK(!"a source");
    }
}

static void try_all(const char *text, size_t len)
{
    static const char *const files[] = {"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"};
    static struct memory_io memory;
    struct credentials_plan *plan = malloc(sizeof *plan);
    char message[256] = "";

    CHECK(plan);
    if (!memory.io.open)
        memory_init(&memory);
    memory_clear(&memory);
    take_settings(&text, &len);
    for (size_t i = 0; i < 2; i++) {
        const char *path = get_setting(files[i]);

        if (path && path[0] && strlen(path) < MEMORY_PATH) {
            struct memory_file *file = memory_make(&memory, path);

            memory_resize(file, len);
            if (len > 0)
                memcpy(file->data, text, len);
        }
    }
    int rc = credentials_find(plan, &memory.io, get_setting, message, sizeof message);
    CHECK(rc == 0 || rc == ERR_INVALID);
    CHECK(strnlen(message, sizeof message) < sizeof message && (rc == 0 || message[0]));
    if (rc == 0)
        check_plan(plan);
    for (size_t i = 0; i < setting_count; i++)
        free(names[i]);
    free(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = exact_copy(data, size);
    size_t len = size ? size - 1 : 0;
    const char *text = copy + (size ? 1 : 0);
    char *exact = exact_copy(text, len);

    switch (size ? (uint8_t)copy[0] % 4 : 0) {
    case 0:
        try_json(exact, len);
        break;
    case 1:
        try_profile(exact, len, false);
        break;
    case 2:
        try_profile(exact, len, true);
        break;
    default:
        try_all(exact, len);
    }
    free(exact);
    free(copy);
    return 0;
}
