/* Goal: our signatures are AWS's: every case of its published test suite that S3's rules cover, and
 * the examples of S3's own documentation. */
#include "base/text.h"
#include "storage/sigv4.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define EMPTY      "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define SUITE_DATE "20150830T123600Z"
#define S3_DATE    "20130524T000000Z"

static struct cloud_text text(const char *value)
{
    return (struct cloud_text){value, (uint32_t)strlen(value)};
}

#define PAIR(name, value)                                                                          \
    {                                                                                              \
        {(name), sizeof(name) - 1},                                                                \
        {                                                                                          \
            (value), sizeof(value) - 1                                                             \
        }                                                                                          \
    }
#define HOST_AND_DATE PAIR("Host", "example.amazonaws.com"), PAIR("X-Amz-Date", SUITE_DATE)

static const struct sigv4_key suite_key = {.access_key = "AKIDEXAMPLE",
                                           .secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
                                           .region = "us-east-1",
                                           .service = "service",
                                           .date = SUITE_DATE};

/* One case of aws-sig-v4-test-suite: the request, and the signature of its .authz. */
static const struct suite_case {
    const char *name, *method, *path, *payload;
    struct cloud_pair query[8], headers[8];
    const char *names, *signature;
} suite[] = {
    {.name = "get-vanilla",
     .headers = {HOST_AND_DATE},
     .names = "host;x-amz-date",
     .signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
    {.name = "get-vanilla-query-order-key-case",
     .query = {PAIR("Param2", "value2"), PAIR("Param1", "value1")},
     .headers = {HOST_AND_DATE},
     .names = "host;x-amz-date",
     .signature = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
    {.name = "get-vanilla-query-unreserved",
     .query = {PAIR("-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
                    "-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")},
     .headers = {HOST_AND_DATE},
     .names = "host;x-amz-date",
     .signature = "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197"},
    {.name = "get-utf8",
     .path = "/\341\210\264",
     .headers = {HOST_AND_DATE},
     .names = "host;x-amz-date",
     .signature = "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"},
    {.name = "get-header-key-duplicate",
     .headers = {PAIR("Host", "example.amazonaws.com"), PAIR("My-Header1", "value2"),
                 PAIR("My-Header1", "value2"), PAIR("My-Header1", "value1"),
                 PAIR("X-Amz-Date", SUITE_DATE)},
     .names = "host;my-header1;x-amz-date",
     .signature = "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea"},
    {.name = "get-header-value-trim",
     .headers = {PAIR("Host", "example.amazonaws.com"), PAIR("My-Header1", " value1"),
                 PAIR("My-Header2", " \"a   b   c\""), PAIR("X-Amz-Date", SUITE_DATE)},
     .names = "host;my-header1;my-header2;x-amz-date",
     .signature = "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"},
    {.name = "post-vanilla",
     .method = "POST",
     .headers = {HOST_AND_DATE},
     .names = "host;x-amz-date",
     .signature = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
    {.name = "post-header-key-sort",
     .method = "POST",
     .headers = {PAIR("My-Header1", "value1"), HOST_AND_DATE},
     .names = "host;my-header1;x-amz-date",
     .signature = "c5410059b04c1ee005303aed430f6e6645f61f4dc9e1461ec8f8916fdf18852c"},
    {.name = "post-header-value-case",
     .method = "POST",
     .headers = {HOST_AND_DATE, PAIR("My-Header1", "VALUE1")},
     .names = "host;my-header1;x-amz-date",
     .signature = "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d"},
    {.name = "post-x-www-form-urlencoded",
     .method = "POST",
     .headers = {HOST_AND_DATE, PAIR("Content-Type", "application/x-www-form-urlencoded")},
     .payload = "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
     .names = "content-type;host;x-amz-date",
     .signature = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
    {.name = "post-sts-header-before",
     .method = "POST",
     .headers =
         {HOST_AND_DATE,
          PAIR(
              "X-Amz-Security-Token",
              "AQoDYXdzEPT//////////"
              "wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicR"
              "XmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/"
              "kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsbu"
              "rEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+"
              "xo0rKwT38xVqr7ZD0u0iPP"
              "kUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==")},
     .names = "host;x-amz-date;x-amz-security-token",
     .signature = "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
};

static size_t count_pairs(const struct cloud_pair *pairs)
{
    size_t count = 0;

    while (count < 8 && pairs[count].name.ptr)
        count++;
    return count;
}

static void authorize(struct buf *out, const struct sigv4_key *key, const struct suite_case *it)
{
    struct buf path = {0};

    sigv4_encode(&path, text(it->path ? it->path : "/"), true);
    buf_char(&path, '\0');
    struct sigv4_request request = {.method = it->method ? it->method : "GET",
                                    .path = path.data,
                                    .query = it->query,
                                    .query_count = count_pairs(it->query),
                                    .headers = it->headers,
                                    .header_count = count_pairs(it->headers),
                                    .payload = it->payload ? it->payload : EMPTY};
    assert_int_equal(sigv4_authorize(out, key, &request), 0);
    buf_char(out, '\0');
    assert_int_equal(buf_check(out), 0);
    buf_release(&path);
}

static void signs_as_the_published_suite_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof suite / sizeof *suite; i++) {
        struct buf out = {0};
        char expected[512];

        authorize(&out, &suite_key, &suite[i]);
        (void)snprintf(expected, sizeof expected,
                       "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/"
                       "aws4_request, SignedHeaders=%s, Signature=%s",
                       suite[i].names, suite[i].signature);
        assert_string_equal(out.data, expected);
        buf_release(&out);
    }
}

/* The examples of "Authenticating Requests: Using the Authorization Header" of S3's reference. */
static const struct suite_case examples[] = {
    {.name = "GET object, a range",
     .path = "/test.txt",
     .headers = {PAIR("Host", "examplebucket.s3.amazonaws.com"), PAIR("Range", "bytes=0-9"),
                 PAIR("x-amz-content-sha256", EMPTY), PAIR("x-amz-date", S3_DATE)},
     .signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
    {.name = "PUT object",
     .method = "PUT",
     .path = "/test$file.text",
     .payload = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
     .headers = {PAIR("Date", "Fri, 24 May 2013 00:00:00 GMT"),
                 PAIR("Host", "examplebucket.s3.amazonaws.com"),
                 PAIR("x-amz-content-sha256",
                      "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
                 PAIR("x-amz-date", S3_DATE), PAIR("x-amz-storage-class", "REDUCED_REDUNDANCY")},
     .signature = "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"},
    {.name = "GET bucket lifecycle",
     .query = {PAIR("lifecycle", "")},
     .headers = {PAIR("Host", "examplebucket.s3.amazonaws.com"),
                 PAIR("x-amz-content-sha256", EMPTY), PAIR("x-amz-date", S3_DATE)},
     .signature = "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"},
    {.name = "list objects",
     .query = {PAIR("prefix", "J"), PAIR("max-keys", "2")},
     .headers = {PAIR("Host", "examplebucket.s3.amazonaws.com"),
                 PAIR("x-amz-content-sha256", EMPTY), PAIR("x-amz-date", S3_DATE)},
     .signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"},
};

static void signs_as_the_examples_of_s3_do(void **state)
{
    static const struct sigv4_key key = {.access_key = "AKIAIOSFODNN7EXAMPLE",
                                         .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                                         .region = "us-east-1",
                                         .service = "s3",
                                         .date = S3_DATE};

    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct buf out = {0};

        authorize(&out, &key, &examples[i]);
        const char *signature = strstr(out.data, "Signature=");
        assert_non_null(signature);
        assert_string_equal(signature + 10, examples[i].signature);
        buf_release(&out);
    }
}

static void makes_dates(void **state)
{
    char date[SIGV4_DATE_BYTES];

    (void)state;
    sigv4_date(date, 1440938160);
    assert_string_equal(date, SUITE_DATE);
    sigv4_date(date, 0);
    assert_string_equal(date, "19700101T000000Z");
    sigv4_date(date, INT64_MAX); /* no such year: still a date, and still terminated */
    assert_int_equal(strlen(date), SIGV4_DATE_BYTES - 1);
}

/* Order goes by the encoded names, of which "-" comes before "a" and "%" before both. */
static void sorts_the_query_as_it_is_sent(void **state)
{
    const struct cloud_pair query[] = {PAIR("a", "2"), PAIR("a", "1"), PAIR("-", "~"),
                                       PAIR("\303\274", "/ +"), PAIR("a-b", "")};
    struct buf out = {0};

    (void)state;
    sigv4_query(&out, query, 5);
    buf_char(&out, '\0');
    assert_string_equal(out.data, "%C3%BC=%2F%20%2B&-=~&a=1&a=2&a-b=");
    buf_release(&out);
}

static void refuses_more_than_it_can_hold(void **state)
{
    static struct cloud_pair many[LIMIT_SIGV4_HEADERS + 1];
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        many[i] = (struct cloud_pair)PAIR("x-amz-meta-a", "1");
    struct sigv4_request request = {.method = "GET",
                                    .path = "/",
                                    .headers = many,
                                    .header_count = LIMIT_SIGV4_HEADERS + 1,
                                    .payload = EMPTY};
    assert_int_equal(sigv4_authorize(&out, &suite_key, &request), ERR_TOO_BIG);
    request.header_count = 1;
    request.query = many;
    request.query_count = LIMIT_SIGV4_QUERY + 1;
    buf_reset(&out);
    assert_int_equal(sigv4_authorize(&out, &suite_key, &request), ERR_TOO_BIG);
    request.query_count = LIMIT_SIGV4_QUERY;
    buf_reset(&out);
    assert_int_equal(sigv4_authorize(&out, &suite_key, &request), 0);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signs_as_the_published_suite_does),
        cmocka_unit_test(signs_as_the_examples_of_s3_do),
        cmocka_unit_test(makes_dates),
        cmocka_unit_test(sorts_the_query_as_it_is_sent),
        cmocka_unit_test(refuses_more_than_it_can_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
