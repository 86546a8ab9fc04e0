/*
 * Credentials from the environment and AWS's files, and where to ask for the rest.
 *
 * The first place that says anything decides, as with AWS's own tools: half a key in the
 * environment or a profile that was asked for by name and is not there is an error, not a reason to
 * look further. Every buffer that held a secret is wiped.
 *
 * A container's FULL_URI gets the token that authorizes us: over plain http it may name only this
 * machine and the two link-local addresses at which AWS's agents listen.
 */
#include "storage/cloud_credentials.h"

#include "base/json.h"
#include "base/text.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CONTAINER_HOST "http://169.254.170.2"
#define INSTANCE_HOST  "http://169.254.169.254"
#define PATH_BYTES     4096

void credentials_wipe(struct credentials *credentials)
{
    OPENSSL_cleanse(credentials, sizeof *credentials);
    *credentials = (struct credentials){.expires_s = 0};
}

/* Printable ASCII alone: these go into headers. */
static int copy(char *out, size_t cap, const char *value, size_t len)
{
    if (len >= cap)
        return ERR_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (value[i] <= 0x20 || value[i] > 0x7e)
            return ERR_INVALID;
    }
    memcpy(out, value, len);
    out[len] = '\0';
    return 0;
}

/* ---- The ini format ---- */

static void trim(const char **text, size_t *len)
{
    while (*len > 0 && strchr(" \t\r", (*text)[0])) {
        (*text)++;
        (*len)--;
    }
    while (*len > 0 && strchr(" \t\r", (*text)[*len - 1]))
        (*len)--;
}

static bool equal(const char *text, size_t len, const char *wanted)
{
    return len == strlen(wanted) && memcmp(text, wanted, len) == 0;
}

/* Whether "[LINE]" begins PROFILE. */
static bool section_is(const char *line, size_t len, const char *profile, bool config)
{
    trim(&line, &len);
    if (config && len > 8 && memcmp(line, "profile", 7) == 0 && strchr(" \t", line[7])) {
        line += 8;
        len -= 8;
        trim(&line, &len);
    } else if (config && strcmp(profile, "default") != 0) {
        return false;
    }
    return equal(line, len, profile);
}

struct found {
    struct credentials *out;
    char *region;
    bool other_way;
};

static int take_setting(struct found *found, const char *line, size_t len)
{
    const char *sign = memchr(line, '=', len), *name = line;

    if (!sign)
        return 0;
    const char *value = sign + 1;
    size_t name_len = (size_t)(sign - line), value_len = len - name_len - 1;
    trim(&name, &name_len);
    trim(&value, &value_len);
    if (equal(name, name_len, "aws_access_key_id"))
        return copy(found->out->access_key, CREDENTIALS_KEY_BYTES, value, value_len);
    if (equal(name, name_len, "aws_secret_access_key"))
        return copy(found->out->secret_key, CREDENTIALS_KEY_BYTES, value, value_len);
    if (equal(name, name_len, "aws_session_token"))
        return copy(found->out->token, CREDENTIALS_TOKEN_BYTES, value, value_len);
    if (equal(name, name_len, "region"))
        return copy(found->region, CREDENTIALS_REGION_BYTES, value, value_len);
    if (equal(name, name_len, "role_arn") || equal(name, name_len, "credential_process") ||
        equal(name, name_len, "sso_session") || equal(name, name_len, "sso_start_url"))
        found->other_way = true;
    return 0;
}

int credentials_profile(struct credentials *out, char region[CREDENTIALS_REGION_BYTES],
                        const char *text, size_t len, const char *profile, bool config)
{
    struct found found = {.out = out, .region = region};
    bool inside = false, seen = false;

    credentials_wipe(out);
    region[0] = '\0';
    for (size_t at = 0; at < len;) {
        const char *line = text + at, *end = memchr(line, '\n', len - at);
        size_t line_len = end ? (size_t)(end - line) : len - at;

        at += line_len + 1;
        bool nested = line_len > 0 && strchr(" \t", line[0]); /* of the setting above: s3 = … */
        trim(&line, &line_len);
        if (line_len == 0 || line[0] == '#' || line[0] == ';')
            continue;
        if (line[0] == '[') {
            const char *close = memchr(line, ']', line_len);

            inside = close && section_is(line + 1, (size_t)(close - line) - 1, profile, config);
            seen = seen || inside;
        } else if (inside && !nested && take_setting(&found, line, line_len)) {
            return ERR_INVALID;
        }
    }
    if (!seen)
        return ERR_NOT_FOUND;
    return found.other_way && !out->access_key[0] ? ERR_UNSUPPORTED : 0;
}

/* ---- JSON ---- */

static int64_t read_time(const char *text)
{
    struct tm utc = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);

    return end && (*end == 'Z' || *end == '.' || *end == '\0') ? (int64_t)timegm(&utc) : -1;
}

static int take_text(char *out, size_t cap, const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);

    if (!json_is_string(value))
        return value && !json_is_null(value) ? ERR_INVALID : 0;
    return copy(out, cap, json_string_value(value), json_string_length(value));
}

int credentials_json(struct credentials *out, const char *text, size_t len)
{
    char expires[64] = "";
    json_t *root;

    credentials_wipe(out);
    int rc = json_read(&root, text, len, 0);
    if (rc)
        return rc;
    rc = take_text(out->access_key, sizeof out->access_key, root, "AccessKeyId");
    if (rc == 0)
        rc = take_text(out->secret_key, sizeof out->secret_key, root, "SecretAccessKey");
    if (rc == 0)
        rc = take_text(out->token, sizeof out->token, root, "Token");
    if (rc == 0)
        rc = take_text(expires, sizeof expires, root, "Expiration");
    json_decref(root);
    if (rc == 0 && expires[0]) {
        out->expires_s = read_time(expires);
        rc = out->expires_s <= 0 ? ERR_INVALID : 0;
    }
    if (rc == 0 && (!out->access_key[0] || !out->secret_key[0]))
        rc = ERR_INVALID;
    if (rc)
        credentials_wipe(out);
    return rc;
}

/* ---- Finding them ---- */

struct search {
    struct credentials_plan *out;
    struct io *io;
    credentials_getenv *get;
    char *message;
    size_t cap;
};

static const char *setting(const struct search *search, const char *name)
{
    const char *value = search->get(name);

    return value && value[0] ? value : NULL;
}

/* 0: found; ERR_NOT_FOUND: look further. */
static int from_environment(struct search *search)
{
    const char *key = setting(search, "AWS_ACCESS_KEY_ID");
    const char *secret = setting(search, "AWS_SECRET_ACCESS_KEY");
    const char *token = setting(search, "AWS_SESSION_TOKEN");
    struct credentials *out = &search->out->given;

    if (!key && !secret)
        return ERR_NOT_FOUND;
    if (!key || !secret) {
        (void)snprintf(search->message, search->cap, "%s is set, but %s is not",
                       key ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                       key ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
        return ERR_INVALID;
    }
    search->out->source = CREDENTIALS_ENVIRONMENT;
    if (copy(out->access_key, sizeof out->access_key, key, strlen(key)) ||
        copy(out->secret_key, sizeof out->secret_key, secret, strlen(secret)) ||
        (token && copy(out->token, sizeof out->token, token, strlen(token)))) {
        (void)snprintf(
            search->message, search->cap,
            "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_SESSION_TOKEN is malformed");
        return ERR_INVALID;
    }
    return 0;
}

static int file_path(const struct search *search, char out[PATH_BYTES], const char *variable,
                     const char *name)
{
    const char *path = setting(search, variable), *home = setting(search, "HOME");
    int len = path   ? snprintf(out, PATH_BYTES, "%s", path)
              : home ? snprintf(out, PATH_BYTES, "%s/.aws/%s", home, name)
                     : -1;

    return len > 0 && len < PATH_BYTES ? 0 : ERR_NOT_FOUND;
}

/* The profile of one file; *ANY: it has such a profile. */
static int from_file(struct search *search, const char *variable, bool config, bool *any)
{
    const char *name = setting(search, "AWS_PROFILE"), *profile = name ? name : "default";
    char path[PATH_BYTES], region[CREDENTIALS_REGION_BYTES];
    struct credentials found = {.expires_s = 0};
    char *text;
    size_t len;
    int rc = file_path(search, path, variable, config ? "config" : "credentials");

    if (rc == 0)
        rc = io_read_all(search->io, path, CREDENTIALS_FILE_BYTES, &text, &len);
    if (rc && (rc == ERR_NOT_FOUND || search->out->source))
        return ERR_NOT_FOUND; /* where only the region would be wanted it can be done without */
    if (rc) {
        (void)snprintf(search->message, search->cap, "%s: %s", path, err_text(rc));
        return rc == ERR_NO_MEMORY ? rc : ERR_INVALID;
    }
    rc = credentials_profile(&found, region, text, len, profile, config);
    OPENSSL_cleanse(text, len);
    free(text);
    if (rc == ERR_NOT_FOUND)
        return rc;
    *any = true;
    if (!search->out->region[0])
        memcpy(search->out->region, region, sizeof region);
    if (search->out->source)
        rc = ERR_NOT_FOUND; /* it was the region that was wanted */
    else if (rc)
        (void)snprintf(search->message, search->cap,
                       rc == ERR_UNSUPPORTED
                           ? "%s: profile '%s' has no keys, but names a role, a process or single "
                             "sign-on, which are not supported"
                           : "%s: profile '%s' is malformed",
                       path, profile);
    else if (!found.access_key[0] && !found.secret_key[0])
        rc = ERR_NOT_FOUND;
    else if (!found.access_key[0] || !found.secret_key[0]) {
        (void)snprintf(search->message, search->cap, "%s: profile '%s' has half a key", path,
                       profile);
        rc = ERR_INVALID;
    }
    if (rc == 0) {
        search->out->source = CREDENTIALS_FILE;
        search->out->given = found;
    }
    credentials_wipe(&found);
    return rc == ERR_UNSUPPORTED ? ERR_INVALID : rc;
}

static int from_files(struct search *search)
{
    const char *name = setting(search, "AWS_PROFILE");
    bool any = false, known = search->out->source != 0;
    int rc = from_file(search, "AWS_SHARED_CREDENTIALS_FILE", false, &any);

    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    /* Its region is wanted in any case. */
    int rc_config = from_file(search, "AWS_CONFIG_FILE", true, &any);
    if (rc_config && rc_config != ERR_NOT_FOUND)
        return rc_config;
    if (search->out->source)
        return 0;
    if (name && !any && !known) {
        (void)snprintf(search->message, search->cap,
                       "profile '%s' (AWS_PROFILE) is in none of AWS's files", name);
        return ERR_INVALID;
    }
    return ERR_NOT_FOUND;
}

/* These become a line of a request. */
static bool is_printable(const char *url)
{
    for (const char *c = url; *c; c++) {
        if (*c <= 0x20 || *c > 0x7e)
            return false;
    }
    return true;
}

/* What stands behind a host: nothing, a path, or a port and then that. */
static bool ends_host(const char *rest)
{
    if (*rest == ':')
        rest += 1 + strspn(rest + 1, "0123456789");
    return *rest == '\0' || *rest == '/' || *rest == '?';
}

/* Plain http may go to this machine and to AWS's agents. */
static bool container_host_fine(const char *url)
{
    static const char *const hosts[] = {"localhost",     "127.0.0.1",      "[::1]",
                                        "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
    const char *host = url + strlen("http://");

    if (strncmp(url, "https://", 8) == 0)
        return true;
    if (strncmp(url, "http://", 7) != 0)
        return false;
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        size_t len = strlen(hosts[i]);

        if (strncmp(host, hosts[i], len) == 0 && ends_host(host + len))
            return true;
    }
    return false;
}

static int from_container(struct search *search)
{
    const char *relative = setting(search, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = setting(search, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    const char *token = setting(search, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
    const char *file = setting(search, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    struct credentials_plan *out = search->out;

    if (!relative && !full)
        return ERR_NOT_FOUND;
    out->source = CREDENTIALS_CONTAINER;
    int len = relative ? snprintf(out->url, sizeof out->url, CONTAINER_HOST "%s%s",
                                  relative[0] == '/' ? "" : "/", relative)
                       : snprintf(out->url, sizeof out->url, "%s", full);
    if (len >= (int)sizeof out->url || !container_host_fine(out->url) || !is_printable(out->url) ||
        strlen(file ? file : "") >= sizeof out->authorization_file) {
        (void)snprintf(
            search->message, search->cap,
            "AWS_CONTAINER_CREDENTIALS_…_URI has to be https, or http to this machine or "
            "to an agent of AWS");
        return ERR_INVALID;
    }
    if (file)
        (void)snprintf(out->authorization_file, sizeof out->authorization_file, "%s", file);
    else if (token && copy(out->authorization, sizeof out->authorization, token, strlen(token))) {
        (void)snprintf(search->message, search->cap,
                       "AWS_CONTAINER_AUTHORIZATION_TOKEN is malformed");
        return ERR_INVALID;
    }
    return 0;
}

static int from_instance(struct search *search)
{
    const char *disabled = setting(search, "AWS_EC2_METADATA_DISABLED");
    const char *host = setting(search, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
    struct credentials_plan *out = search->out;

    if (disabled && text_equal_nocase(disabled, strlen(disabled), "true", 4)) {
        (void)snprintf(search->message, search->cap,
                       "no credentials for S3: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                       "write a profile into ~/.aws/credentials");
        return ERR_INVALID;
    }
    out->source = CREDENTIALS_INSTANCE;
    int len = snprintf(out->url, sizeof out->url, "%s", host ? host : INSTANCE_HOST);
    if (len > 0 && len < (int)sizeof out->url && out->url[len - 1] == '/')
        out->url[--len] = '\0';
    if (len <= 7 || len >= (int)sizeof out->url || !is_printable(out->url) ||
        (strncmp(out->url, "http://", 7) != 0 && strncmp(out->url, "https://", 8) != 0)) {
        (void)snprintf(search->message, search->cap,
                       "AWS_EC2_METADATA_SERVICE_ENDPOINT has to be http://host[:port]");
        return ERR_INVALID;
    }
    return 0;
}

int credentials_find(struct credentials_plan *out, struct io *io, credentials_getenv *get,
                     char *message, size_t cap)
{
    struct search search = {.out = out, .io = io, .get = get, .message = message, .cap = cap};

    *out = (struct credentials_plan){.url = ""};
    const char *region = setting(&search, "AWS_REGION");
    if (!region)
        region = setting(&search, "AWS_DEFAULT_REGION");
    if (region && copy(out->region, sizeof out->region, region, strlen(region))) {
        (void)snprintf(message, cap, "AWS_REGION is malformed");
        return ERR_INVALID;
    }
    int rc = from_environment(&search);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    rc = from_files(&search);
    if (rc == ERR_NOT_FOUND)
        rc = from_container(&search);
    if (rc == ERR_NOT_FOUND)
        rc = from_instance(&search);
    return rc;
}
