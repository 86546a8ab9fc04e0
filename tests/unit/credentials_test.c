/* Goal: credentials are found where AWS's tools find them, in their order, and nothing malformed
 * gets into a header. */
#include "storage/cloud_credentials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *settings[16][2];

static const char *get(const char *name)
{
    for (size_t i = 0; i < 16 && settings[i][0]; i++) {
        if (strcmp(settings[i][0], name) == 0)
            return settings[i][1];
    }
    return NULL;
}

static void set(const char *name, const char *value)
{
    size_t i = 0;

    while (settings[i][0] && strcmp(settings[i][0], name) != 0)
        i++;
    settings[i][0] = name;
    settings[i][1] = value;
}

static int forget_settings(void **state)
{
    (void)state;
    memset(settings, 0, sizeof settings);
    return 0;
}

static struct credentials_plan plan;
static char message[256];

static int find(void)
{
    message[0] = '\0';
    return credentials_find(&plan, io_system(), get, message, sizeof message);
}

static int profile(struct credentials *out, char *region, const char *text, const char *name,
                   bool config)
{
    return credentials_profile(out, region, text, strlen(text), name, config);
}

static void reads_a_profile(void **state)
{
    static const char text[] = "# mine\n"
                               "[default]\n"
                               "aws_access_key_id = AKIDEFAULT\r\n"
                               "aws_secret_access_key=se/cr+et=\n"
                               "; a comment\n"
                               "[ other ]\n"
                               "aws_access_key_id=AKIOTHER\n"
                               "aws_secret_access_key = two\n"
                               "aws_session_token = three\n"
                               "region = eu-central-1\n"
                               "s3 =\n"
                               "  region = nested\n"
                               "unknown = x";
    struct credentials found;
    char region[CREDENTIALS_REGION_BYTES];

    (void)state;
    assert_int_equal(profile(&found, region, text, "default", false), 0);
    assert_string_equal(found.access_key, "AKIDEFAULT");
    assert_string_equal(found.secret_key, "se/cr+et=");
    assert_string_equal(found.token, "");
    assert_string_equal(region, "");
    assert_int_equal(profile(&found, region, text, "other", false), 0);
    assert_string_equal(found.access_key, "AKIOTHER");
    assert_string_equal(found.token, "three");
    assert_string_equal(region, "eu-central-1");
    assert_int_equal(profile(&found, region, text, "third", false), ERR_NOT_FOUND);
    assert_string_equal(found.access_key, "");
}

static void a_config_file_names_its_profiles_otherwise(void **state)
{
    static const char text[] = "[default]\nregion=a\n[profile work]\nregion=b\n[work]\nregion=c\n"
                               "[profile role]\nrole_arn=arn:x\nregion=d\n";
    struct credentials found;
    char region[CREDENTIALS_REGION_BYTES];

    (void)state;
    assert_int_equal(profile(&found, region, text, "default", true), 0);
    assert_string_equal(region, "a");
    assert_int_equal(profile(&found, region, text, "work", true), 0);
    assert_string_equal(region, "b");
    assert_int_equal(profile(&found, region, text, "work", false), 0);
    assert_string_equal(region, "c");
    assert_int_equal(profile(&found, region, text, "role", true), ERR_UNSUPPORTED);
}

static void refuses_what_would_not_fit_a_header(void **state)
{
    struct credentials found;
    char region[CREDENTIALS_REGION_BYTES], text[1024];

    (void)state;
    assert_int_equal(
        profile(&found, region, "[default]\naws_access_key_id=a b\n", "default", false),
        ERR_INVALID);
    assert_int_equal(
        profile(&found, region, "[default]\naws_secret_access_key=\303\274\n", "default", false),
        ERR_INVALID);
    (void)snprintf(text, sizeof text, "[default]\naws_access_key_id=%0*d\n", CREDENTIALS_KEY_BYTES,
                   1);
    assert_int_equal(profile(&found, region, text, "default", false), ERR_INVALID);
    (void)snprintf(text, sizeof text, "[default]\naws_access_key_id=%0*d\n",
                   CREDENTIALS_KEY_BYTES - 1, 1);
    assert_int_equal(profile(&found, region, text, "default", false), 0);
}

static void reads_what_endpoints_answer(void **state)
{
    static const char text[] =
        "{\"Code\":\"Success\",\"AccessKeyId\":\"a\",\"SecretAccessKey\":\"b\",\"Token\":\"c\","
        "\"Expiration\":\"2015-08-30T12:36:00Z\",\"More\":[1]}";
    struct credentials found;

    (void)state;
    assert_int_equal(credentials_json(&found, text, strlen(text)), 0);
    assert_string_equal(found.access_key, "a");
    assert_string_equal(found.secret_key, "b");
    assert_string_equal(found.token, "c");
    assert_int_equal(found.expires_s, 1440938160);
    assert_int_equal(credentials_json(&found, "{}", 2), ERR_INVALID);
    assert_int_equal(credentials_json(&found, text, 20), ERR_INVALID);
    assert_string_equal(found.secret_key, "");
}

static void the_environment_comes_first_and_has_to_be_whole(void **state)
{
    (void)state;
    set("AWS_ACCESS_KEY_ID", "key");
    set("HOME", "/nonexistent");
    assert_int_equal(find(), ERR_INVALID);
    assert_non_null(strstr(message, "AWS_SECRET_ACCESS_KEY is not"));
    set("AWS_SECRET_ACCESS_KEY", "secret");
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x");
    set("AWS_DEFAULT_REGION", "eu-west-1");
    assert_int_equal(find(), 0);
    assert_int_equal(plan.source, CREDENTIALS_ENVIRONMENT);
    assert_string_equal(plan.given.secret_key, "secret");
    assert_string_equal(plan.region, "eu-west-1");
    set("AWS_REGION", "eu-west-2");
    assert_int_equal(find(), 0);
    assert_string_equal(plan.region, "eu-west-2");
    /* Files are then looked into for a region alone: one that cannot be read does no harm. */
    set("AWS_CONFIG_FILE", "/proc");
    assert_int_equal(find(), 0);
    set("AWS_SESSION_TOKEN", "a\r\nb: c");
    assert_int_equal(find(), ERR_INVALID);
    set("AWS_SESSION_TOKEN", "");
    set("AWS_ACCESS_KEY_ID", "");
    set("AWS_SECRET_ACCESS_KEY", "");
    assert_int_equal(find(), ERR_INVALID);
    assert_non_null(strstr(message, "/proc"));
    set("AWS_CONFIG_FILE", "");
}

static void then_files_then_a_container_then_the_instance(void **state)
{
    char directory[] = "/tmp/credentials_test.XXXXXX", path[64];
    static const char text[] = "[default]\naws_access_key_id=k\naws_secret_access_key=s\n";

    (void)state;
    assert_non_null(mkdtemp(directory));
    (void)snprintf(path, sizeof path, "%s/credentials", directory);
    assert_int_equal(io_replace(io_system(), path, text, strlen(text)), 0);
    set("AWS_SHARED_CREDENTIALS_FILE", path);
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/id");
    assert_int_equal(find(), 0);
    assert_int_equal(plan.source, CREDENTIALS_FILE);
    assert_string_equal(plan.given.access_key, "k");
    set("AWS_PROFILE", "nobody");
    assert_int_equal(find(), ERR_INVALID);
    assert_non_null(strstr(message, "'nobody'"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);

    set("AWS_PROFILE", "");
    assert_int_equal(find(), 0);
    assert_int_equal(plan.source, CREDENTIALS_CONTAINER);
    assert_string_equal(plan.url, "http://169.254.170.2/v2/id");
    set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "");
    assert_int_equal(find(), 0);
    assert_int_equal(plan.source, CREDENTIALS_INSTANCE);
    assert_string_equal(plan.url, "http://169.254.169.254");
    set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/");
    assert_int_equal(find(), 0);
    assert_string_equal(plan.url, "http://127.0.0.1:1");
    set("AWS_EC2_METADATA_DISABLED", "True");
    assert_int_equal(find(), ERR_INVALID);
}

static void a_container_proves_itself_to_its_own_host_alone(void **state)
{
    static const struct {
        const char *url;
        int rc;
    } cases[] = {
        {"http://localhost/x", 0},
        {"http://127.0.0.1:80/x", 0},
        {"http://[::1]/x", 0},
        {"http://169.254.170.23/v1/credentials", 0},
        {"https://anywhere.example/x", 0},
        {"http://anywhere.example/x", ERR_INVALID},
        {"http://127.0.0.1.example/x", ERR_INVALID},
        {"http://localhost@example/x", ERR_INVALID},
        {"http://localhost:x@example/x", ERR_INVALID},
        {"http://localhost:80@example/x", ERR_INVALID},
        {"http://localhost:80?x=a@b", 0},
        {"http://localhost/a b", ERR_INVALID},
        {"https://anywhere.example/\r\nx: y", ERR_INVALID},
        {"ftp://localhost/x", ERR_INVALID},
        {"localhost", ERR_INVALID},
    };

    (void)state;
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "proof");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set("AWS_CONTAINER_CREDENTIALS_FULL_URI", cases[i].url);
        assert_int_equal(find(), cases[i].rc);
    }
    set("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/");
    assert_int_equal(find(), 0);
    assert_string_equal(plan.authorization, "proof");
    set("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a\nb");
    assert_int_equal(find(), ERR_INVALID);
}

static void an_address_that_is_too_long_is_refused(void **state)
{
    char url[3 * CREDENTIALS_URL_BYTES];

    (void)state;
    for (size_t len = CREDENTIALS_URL_BYTES - 2; len < sizeof url; len += len < 1030 ? 1 : 500) {
        memset(url, 'a', sizeof url);
        memcpy(url, "http://", 7);
        url[len - 1] = '/';
        url[len] = '\0';
        set("AWS_EC2_METADATA_SERVICE_ENDPOINT", url);
        assert_int_equal(find(), len < CREDENTIALS_URL_BYTES ? 0 : ERR_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reads_a_profile, forget_settings),
        cmocka_unit_test_setup(a_config_file_names_its_profiles_otherwise, forget_settings),
        cmocka_unit_test_setup(refuses_what_would_not_fit_a_header, forget_settings),
        cmocka_unit_test_setup(reads_what_endpoints_answer, forget_settings),
        cmocka_unit_test_setup(the_environment_comes_first_and_has_to_be_whole, forget_settings),
        cmocka_unit_test_setup(then_files_then_a_container_then_the_instance, forget_settings),
        cmocka_unit_test_setup(a_container_proves_itself_to_its_own_host_alone, forget_settings),
        cmocka_unit_test_setup(an_address_that_is_too_long_is_refused, forget_settings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
