/* Seeds of what the cloud answers: S3's XML and heads, metadata, credentials, files of the
 * directory cloud. As real servers and AWS's documents have them. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_seeds.h"

#define XML    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define XMLNS  " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""
#define ID     "01KAHVCZ9V0123456789ABCDEF"
#define SHA    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define MOMENT "Fri, 21 Nov 2025 04:40:00 GMT"

static void seed_xml(void)
{
    static const struct {
        const char *name, *text;
    } all[] = {
        {"error", XML "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist."
                      "</Message><Key>a</Key><RequestId>1</RequestId></Error>"},
        {"redirect", XML "<Error><Code>PermanentRedirect</Code><Message>a&#10;b&amp;</Message>"
                         "<Endpoint>b.s3.eu-west-1.amazonaws.com</Endpoint>"
                         "<Region>eu-west-1</Region></Error>"},
        {"upload", XML "<InitiateMultipartUploadResult" XMLNS "><Bucket>b</Bucket><Key>k</Key>"
                       "<UploadId>VXBsb2FkIElE</UploadId></InitiateMultipartUploadResult>"},
        {"list", XML "<ListBucketResult" XMLNS "><Name>b</Name><Prefix/><KeyCount>2</KeyCount>"
                     "<MaxKeys>2</MaxKeys><IsTruncated>true</IsTruncated><EncodingType>url"
                     "</EncodingType><Contents><Key>a+b%2F%C3%BC</Key><LastModified>"
                     "2025-11-21T04:40:00.000Z</LastModified><ETag>&quot;d41d8cd9&quot;</ETag>"
                     "<Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>"
                     "<Contents><Key>c</Key><Size>18446744073709551615</Size></Contents>"
                     "<NextContinuationToken>x</NextContinuationToken></ListBucketResult>"},
        {"list-plain", "<ListBucketResult><Contents><ETag>x</ETag><Size>0</Size><Key>a%2b&lt;"
                       "</Key></Contents><IsTruncated>false</IsTruncated></ListBucketResult>"},
        {"tags", XML "<Tagging" XMLNS "><TagSet><Tag><Key>usermeta-a</Key><Value>b c</Value></Tag>"
                     "<Tag><Key>d</Key><Value/></Tag></TagSet></Tagging>"},
        {"doctype", "<!DOCTYPE a [<!ENTITY b \"c\">]><Error><Code>&b;</Code></Error>"},
        {"cdata", "<Error><Code><![CDATA[<a>]]></Code><!-- x --><?pi?></Error>"},
        {"cut", XML "<ListBucketResult><Contents><Key>a"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("s3_xml", all[i].name, "", 0, all[i].text);
}

static void seed_answers(void)
{
    static const struct {
        const char *name, *how, *text;
    } all[] = {
        {"whole", "\0\0",
         "HTTP/1.1 200 OK\r\nx-amz-id-2: a\r\nDate: " MOMENT "\r\nLast-Modified: " MOMENT
         "\r\nETag: \"d41d8cd98f00b204e9800998ecf8427e\"\r\nx-amz-tagging-count: 2\r\n"
         "x-amz-meta-Name: a b.txt\r\nX-AMZ-META-sha256:" SHA "\r\nAccept-Ranges: bytes\r\n"
         "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 5\r\n\r\nhello"},
        {"range", "\0\0",
         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 206 Partial Content\r\nContent-Range: bytes "
         "10-19/1000\r\nContent-Length: 10\r\nETag: abc\r\n\r\n0123456789"},
        {"outside", "\0\0",
         "HTTP/1.1 416 Requested Range Not Satisfiable\r\nContent-Range: bytes */1000\r\n\r\n"
         "<Error><Code>InvalidRange</Code><Message>no</Message></Error>"},
        {"slow", "\0\2",
         "HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nConnection: close\r\n\r\n"
         "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"},
        {"later", "\0\0",
         "HTTP/1.1 503 x\r\nDate: " MOMENT
         "\r\nRetry-After: Fri, 21 Nov 2025 04:41:00 GMT\r\n\r\n"},
        {"skew", "\0\0",
         "HTTP/1.1 403 Forbidden\r\nDate: Fri, 21 Nov 2025 03:00:00 GMT\r\n\r\n<Error><Code>"
         "RequestTimeTooSkewed</Code><Message>large</Message></Error>"},
        {"secret", "\0\3",
         "HTTP/1.1 403 Forbidden\r\n\r\n<Error><Code>SignatureDoesNotMatch</Code><Message>x"
         "</Message><StringToSign>AWS4</StringToSign></Error>"},
        {"moved", "\0\1",
         "HTTP/1.1 301 Moved Permanently\r\nx-amz-bucket-region: eu-west-1\r\nLocation: "
         "https://b.s3.eu-west-1.amazonaws.com/k\r\n\r\n"},
        {"head", "\0\1", "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"},
        {"cut", "\2\0", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012"},
        {"other", "\6\0", "220 mail.example ESMTP\r\n\r\n"},
        {"nothing", "\3\4", ""},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("s3_answer", all[i].name, all[i].how, 2, all[i].text);
}

static void seed_meta(void)
{
    static const char when[9] = "\0\0\xc0\x1f\x69\0\0\0"; /* no tags; 2025 */
    static const char tagged[9] = "\2\0\xc0\x1f\x69\0\0\0";
    static const struct {
        const char *name, *head, *text;
    } all[] = {
        {"plain", when,
         ID "\ntext/plain\nid=" ID "\nsize=5\ntimestamp=1763700000123000000\nconsistency=2\n"
            "sha256=" SHA "\nstamp=115585843208060935\nname=a b.txt\n\n"},
        {"pairs", when,
         "a/b/" ID "\nimage/png\nid=" ID "\nusermeta-color=blue\nUserMeta-b=UTF-8''%C3%BC\n"
         "expires=1763700000123\nname=UTF-8''gr%C3%BC%C3%9F\n"},
        {"tags", tagged,
         ".deleted/" ID "\n\nusermeta=tags\n\nusermeta-a=b c\nusermeta-d=e=f/g\nother=x\n"},
        {"whole", when,
         ID ".usermeta\nx\ntype=UTF-8''\nusermeta={\"A\":\"1\",\"b\":\"\\u00fc\"}\n"},
        {"sidecar", when,
         "photos/a.jpg\nimage/jpeg\nusermeta=sidecar\n\n\n{\"name\":\"long\",\"user_meta\":{\"K\":"
         "\"v\"}}"},
        {"nonsense", when,
         "x\n\nid=y\nsize=-1\nsha256=zz\nstamp=99999999999999999999\nconsistency=9\nname=\x01\n"
         "usermeta=[]\n"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("cloud_meta", all[i].name, all[i].head, 9, all[i].text);
}

#define KEYS "aws_access_key_id=AKIDEXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG+bPx\n"

static void seed_credentials(void)
{
    static const struct {
        const char *name, *how, *text;
    } all[] = {
        {"json", "\0",
         "{\"Code\":\"Success\",\"LastUpdated\":\"2025-11-21T04:40:00Z\",\"Type\":\"AWS-HMAC\","
         "\"AccessKeyId\":\"ASIAEXAMPLE\",\"SecretAccessKey\":\"secret/key+x\",\"Token\":\"t=\","
         "\"Expiration\":\"2025-11-21T10:40:00Z\"}"},
        {"json-half", "\0", "{\"AccessKeyId\":\"a\",\"SecretAccessKey\":null}"},
        {"file", "\1",
         "work\n# ours\n[default]\n" KEYS "\n[ work ]\n" KEYS "aws_session_token=abc==\n"
         "region = eu-west-1\n; end\n"},
        {"config", "\2",
         "work\n[profile work]\nregion=us-east-2\ns3 =\n  region = x\n" KEYS "[default]\n"},
        {"role", "\2", "default\r\n[default]\r\nrole_arn = arn:aws:iam::1:role/x\r\n"},
        {"long", "\1", "default\n[default]\nregion = " SHA SHA "\n"},
        {"environment", "\3",
         "AWS_ACCESS_KEY_ID=AKID\nAWS_SECRET_ACCESS_KEY=secret\nAWS_SESSION_TOKEN=t\n"
         "AWS_DEFAULT_REGION=eu-north-1\nHOME=/h\n\n"},
        {"files", "\3",
         "AWS_SHARED_CREDENTIALS_FILE=/c\nAWS_CONFIG_FILE=/d\nAWS_PROFILE=work\n\n[work]\n" KEYS
         "[profile work]\nregion = us-west-1\n"},
        {"container", "\3",
         "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://[::1]:80/c?x\n"
         "AWS_CONTAINER_AUTHORIZATION_TOKEN=proof\n\n"},
        {"relative", "\3", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=v2/credentials\n\n"},
        {"abroad", "\3", "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost:80@example.com/\n\n"},
        {"instance", "\3", "AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1338/\n\n"},
        {"none", "\3", "AWS_EC2_METADATA_DISABLED=true\n\n"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("credentials", all[i].name, all[i].how, 1, all[i].text);
}

static void seed_directory(void)
{
    static const struct {
        const char *name, *how, *text;
    } all[] = {
        {"file", "\0",
         "Dear reader\n{\"meta\":{},\"tags\":{},\"type\":\"\"}\nobjstore-cloud 1 "
         "00000000000000000011 0000033 " SHA " 0123456789abcdef\n"},
        {"json", "\3",
         "{\"meta\":{\"a\":\"b\",\"n\":\"\\u0000\"},\"tags\":{\"c\":\"\"},\"type\":\"text/css\"}"},
        {"json-wrong", "\3", "{\"meta\":{\"a\":1},\"tags\":[],\"type\":\"\"}"},
        {"key", "\1", "a//../.objstore-cloud/100%25%_/.\n\x7f"},
        {"key-long", "\1", SHA SHA SHA SHA "/" SHA SHA SHA SHA SHA},
        {"name", "\2", "%2E./%00%_"},
        {"name-on", "\2", "a%25b%_"},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        seed_text("cloud_dir", all[i].name, all[i].how, 1, all[i].text);
}

void seed_cloud(void)
{
    seed_xml();
    seed_answers();
    seed_meta();
    seed_credentials();
    seed_directory();
}
