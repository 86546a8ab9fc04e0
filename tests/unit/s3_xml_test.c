/* Goal: of S3's answers exactly what they say is read; whatever S3 would not send is refused. */
#include "storage/s3_xml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct seen {
    char text[1024];
    unsigned count;
    int stop; /* returned for the first */
};

static int see_entry(void *arg, const struct cloud_entry *entry)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->text);

    seen->count++;
    (void)snprintf(seen->text + len, sizeof seen->text - len, "%.*s|%.*s|%llu|%lld;",
                   (int)entry->key.len, entry->key.ptr, (int)entry->etag.len, entry->etag.ptr,
                   (unsigned long long)entry->size, (long long)entry->modified_s);
    return seen->stop;
}

static int see_tag(void *arg, struct cloud_text name, struct cloud_text value)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->text);

    seen->count++;
    (void)snprintf(seen->text + len, sizeof seen->text - len, "%.*s=%.*s;", (int)name.len, name.ptr,
                   (int)value.len, value.ptr);
    return seen->stop;
}

static int list(struct seen *seen, bool *more, const char *text)
{
    *seen = (struct seen){.stop = seen->stop};
    return s3_xml_list(text, strlen(text), see_entry, seen, more);
}

#define XMLNS "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

static void reads_a_list(void **state)
{
    struct seen seen = {.stop = 0};
    bool more;

    (void)state;
    assert_int_equal(
        list(&seen, &more,
             "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult " XMLNS ">"
             "<Name>b</Name><Prefix>a%2F</Prefix><KeyCount>2</KeyCount><MaxKeys>2</MaxKeys>"
             "<IsTruncated>true</IsTruncated>\n"
             "<Contents><Key>a%2F+%C3%BC</Key><LastModified>2015-08-30T12:36:00.000Z</LastModified>"
             "<ETag>&quot;e-1&quot;</ETag><Size>18446744073709551615</Size>"
             "<Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
             "<Contents><Key>a/%25</Key><Size>0</Size></Contents>"
             "<EncodingType>url</EncodingType></ListBucketResult>"),
        0);
    assert_string_equal(seen.text, "a/ \303\274|e-1|18446744073709551615|1440938160;a/%||0|0;");
    assert_true(more);
}

static void reads_keys_as_they_are_where_the_server_did_not_encode_them(void **state)
{
    struct seen seen = {.stop = 0};
    bool more;

    (void)state;
    assert_int_equal(
        list(&seen, &more,
             "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a+%41&lt;"
             "</Key><Size>1</Size></Contents></ListBucketResult>"),
        0);
    assert_string_equal(seen.text, "a+%41<||1|0;");
    assert_false(more);
}

static void refuses_what_s3_would_not_send(void **state)
{
    static const char *const texts[] = {
        "",
        "x",
        "<ListBucketResult>",
        "<ListBucketResult/><x/>",
        "<Other/>",
        "<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key></Key><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        ("<ListBucketResult><EncodingType>url</EncodingType>"
         "<Contents><Key>%zz</Key><Size>1</Size></Contents></ListBucketResult>"),
        "<!DOCTYPE x><ListBucketResult/>",
        "<!DOCTYPE x [<!ENTITY e \"v\">]><ListBucketResult>&e;</ListBucketResult>",
        "<ListBucketResult>&e;</ListBucketResult>",
        "<a><b><c><d><e><f><g><h><i/></h></g></f></e></d></c></b></a>",
    };
    struct seen seen = {.stop = 0};
    bool more;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(list(&seen, &more, texts[i]), ERR_INVALID);
        assert_int_equal(seen.count, 0);
    }
}

static void keys_and_values_have_limits(void **state)
{
    struct seen seen = {.stop = 0};
    static char text[3 * S3_XML_VALUE_BYTES];
    bool more;

    (void)state;
    for (int over = 0; over < 2; over++) {
        (void)snprintf(text, sizeof text,
                       "<ListBucketResult><Contents><Key>%0*d</Key><Size>1</Size></Contents>"
                       "</ListBucketResult>",
                       LIMIT_CLOUD_KEY_BYTES + over, 0);
        assert_int_equal(list(&seen, &more, text), over ? ERR_INVALID : 0);
        (void)snprintf(text, sizeof text, "<ListBucketResult><Name>%0*d</Name></ListBucketResult>",
                       S3_XML_VALUE_BYTES + over, 0);
        assert_int_equal(list(&seen, &more, text), over ? ERR_INVALID : 0);
    }
}

static void ends_with_what_its_reader_returns(void **state)
{
    struct seen seen = {.stop = ERR_FULL};
    bool more;

    (void)state;
    assert_int_equal(list(&seen, &more,
                          "<ListBucketResult><Contents><Key>a</Key><Size>1</Size></Contents>"
                          "<Contents><Key>b</Key><Size>1</Size></Contents></ListBucketResult>"),
                     ERR_FULL);
    assert_int_equal(seen.count, 1);
}

static void reads_errors_as_one_line(void **state)
{
    static const char text[] = "<Error><Code>PermanentRedirect</Code><Message>use\nthe\tother"
                               "</Message><Endpoint>b.s3.eu</Endpoint><Region>eu-west-1</Region>"
                               "<StringToSign>secret</StringToSign></Error>";
    struct s3_error error;

    (void)state;
    assert_int_equal(s3_xml_error(&error, text, strlen(text)), 0);
    assert_string_equal(error.code, "PermanentRedirect");
    assert_string_equal(error.message, "use the other");
    assert_string_equal(error.region, "eu-west-1");
    assert_string_equal(error.endpoint, "b.s3.eu");
    assert_int_equal(s3_xml_error(&error, "<Error/>", 8), ERR_INVALID);
    assert_int_equal(s3_xml_error(&error, "<html><Code>x</Code></html>", 27), ERR_INVALID);
    assert_string_equal(error.code, "");
}

static void reads_one_value(void **state)
{
    static const char text[] = "<R><A><Id>inner</Id></A><Id>a&amp;b</Id></R>";
    char out[8];

    (void)state;
    assert_int_equal(s3_xml_value(out, sizeof out, "R/Id", text, strlen(text)), 0);
    assert_string_equal(out, "a&b");
    assert_int_equal(s3_xml_value(out, 3, "R/Id", text, strlen(text)), ERR_INVALID);
    assert_int_equal(s3_xml_value(out, sizeof out, "R/None", text, strlen(text)), ERR_INVALID);
}

static void reads_tags(void **state)
{
    static const char text[] =
        "<Tagging " XMLNS "><TagSet><Tag><Key>a</Key><Value>b c</Value></Tag>"
        "<Tag><Value></Value><Key>d</Key></Tag></TagSet></Tagging>";
    struct seen seen = {.stop = 0};

    (void)state;
    assert_int_equal(s3_xml_tags(text, strlen(text), see_tag, &seen), 0);
    assert_string_equal(seen.text, "a=b c;d=;");
    assert_int_equal(s3_xml_tags("<Tagging/>", 10, see_tag, &seen), 0);
    assert_int_equal(s3_xml_tags("<x/>", 4, see_tag, &seen), ERR_INVALID);
    static const char nameless[] =
        "<Tagging><TagSet><Tag><Value>v</Value></Tag></TagSet></Tagging>";
    assert_int_equal(s3_xml_tags(nameless, strlen(nameless), see_tag, &seen), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_list),
        cmocka_unit_test(reads_keys_as_they_are_where_the_server_did_not_encode_them),
        cmocka_unit_test(refuses_what_s3_would_not_send),
        cmocka_unit_test(keys_and_values_have_limits),
        cmocka_unit_test(ends_with_what_its_reader_returns),
        cmocka_unit_test(reads_errors_as_one_line),
        cmocka_unit_test(reads_one_value),
        cmocka_unit_test(reads_tags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
