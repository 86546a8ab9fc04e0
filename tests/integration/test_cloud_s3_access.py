"""Goal: the backend finds its credentials where AWS's tools do and keeps them good, follows a bucket to its
region, trusts only certificates it should, and says in one line what an operator has to fix."""

import email.utils
import http.server
import json
import threading
import time

import fault_proxy
import harness
import pytest
import s3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    made.client().put_object(Bucket=s3.BUCKET, Key="there", Body=b"hello")
    yield made
    made.stop()


@pytest.fixture
def proxy(server):
    made = fault_proxy.Proxy(server.port)
    yield made
    made.close()


class Endpoint:
    """An instance's metadata service and a container's endpoint."""

    SESSION, ROLE = "a-session-token", "the-role"

    def __init__(self, port=0):
        outer = self
        self.asked, self.secret, self.token, self.life_s = [], s3.SECRET, None, 3600
        self.authorization, self.status, self.body = None, 200, None

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def reply(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def do_PUT(self):
                outer.asked.append(("PUT", self.path))
                fine = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self.reply(200 if fine else 400, outer.SESSION)

            def do_GET(self):
                outer.asked.append(("GET", self.path))
                if self.path == "/container":
                    fine = self.headers["Authorization"] == outer.authorization
                else:
                    fine = self.headers["X-aws-ec2-metadata-token"] == outer.SESSION
                if not fine:
                    self.reply(401, "who are you")
                elif self.path == "/latest/meta-data/iam/security-credentials/":
                    self.reply(outer.status, outer.ROLE)
                elif self.path in ("/container", f"/latest/meta-data/iam/security-credentials/{outer.ROLE}"):
                    self.reply(outer.status, outer.body or json.dumps(outer.document()))
                else:
                    self.reply(404, "")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self):
        made = {"Code": "Success", "AccessKeyId": s3.KEY, "SecretAccessKey": self.secret,
                "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.life_s))}
        return made | ({"Token": self.token} if self.token else {})

    def instance(self):
        return s3.environment(AWS_EC2_METADATA_DISABLED=None, AWS_EC2_METADATA_SERVICE_ENDPOINT=self.url)

    def container(self, **more):
        return s3.environment(AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{self.url}/container", **more)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def endpoint():
    made = Endpoint()
    yield made
    made.close()


# ---- Where they come from ----


def test_an_instance_has_its_own(server, endpoint):
    with s3.Drive(server.endpoint, endpoint.instance()) as drive:
        assert drive.opened["rc"] == "ok", drive.opened
        assert drive.do("get", "there")["rc"] == "ok"
        assert drive.do("head", "there")["rc"] == "ok"
    assert [method for method, _ in endpoint.asked] == ["PUT", "GET", "GET"]


def test_a_container_has_its_own_and_a_file_to_prove_it(server, endpoint, tmp_path):
    token = tmp_path / "token"
    token.write_text("first-proof\n")
    endpoint.authorization = "first-proof"
    env = endpoint.container(AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token))
    with s3.Drive(server.endpoint, env) as drive:
        assert drive.opened["rc"] == "ok" and drive.do("get", "there")["rc"] == "ok"
    assert endpoint.asked == [("GET", "/container")]
    endpoint.authorization = "second-proof"
    with s3.Drive(server.endpoint, env) as drive:
        refused = drive.do("get", "there")
        assert refused["rc"] == "permission" and "credentials" in refused["message"]
        assert "proof" not in drive.log() + refused["message"]
    token.write_text("second-proof")
    with s3.Drive(server.endpoint, env) as drive:
        assert drive.do("get", "there")["rc"] == "ok"


def test_a_profile_of_the_files(server, tmp_path):
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n\n"
        f"[work]\naws_access_key_id={s3.KEY}\naws_secret_access_key = {s3.SECRET}\n")
    (tmp_path / "config").write_text("[profile work]\nregion = us-east-1\ns3 =\n  region = xx\n")
    env = s3.environment(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "credentials"),
                         AWS_CONFIG_FILE=str(tmp_path / "config"), AWS_PROFILE="work")
    with s3.Drive(server.endpoint, env, region=None) as drive:
        assert drive.do("get", "there")["rc"] == "ok"
    with s3.Drive(server.endpoint, env | {"AWS_PROFILE": "default"}) as drive:
        assert drive.do("get", "there")["rc"] == "permission"
    with s3.Drive(server.endpoint, env | {"AWS_PROFILE": "none"}) as drive:
        assert drive.opened["rc"] == "invalid" and "'none'" in drive.opened["message"]


def test_keys_changed_in_the_file_are_used_without_a_restart(server, tmp_path):
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id=old\naws_secret_access_key=old\n")
    with s3.Drive(server.endpoint, s3.environment(AWS_SHARED_CREDENTIALS_FILE=str(path))) as drive:
        assert drive.do("get", "there")["rc"] == "permission"
        path.write_text(f"[default]\naws_access_key_id={s3.KEY}\naws_secret_access_key={s3.SECRET}\n")
        assert drive.do("get", "there")["rc"] == "ok"


@pytest.mark.parametrize("status", [400, 403])
def test_a_head_that_is_refused_has_the_file_read_again(proxy, tmp_path, status):
    """Goal: S3 tells no code to a HEAD; keys that were replaced in the file are used all the same, and where
    none were it is asked no more than once."""
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id=old\naws_secret_access_key=old\n")
    refusal = proxy.fault("status", method="HEAD", status=status, headers="x-amz-bucket-region: us-east-1\r\n")
    with s3.Drive(proxy.endpoint, s3.environment(AWS_SHARED_CREDENTIALS_FILE=str(path))) as drive:
        assert drive.do("head", "there")["rc"] != "ok" and len(proxy.requests) == 1
        path.write_text(f"[default]\naws_access_key_id={s3.KEY}\naws_secret_access_key={s3.SECRET}\n")
        refusal.times = 1
        assert drive.do("head", "there")["rc"] == "ok" and len(proxy.requests) == 3


def test_none_anywhere_is_said_at_once(server):
    with s3.Drive(server.endpoint, s3.environment()) as drive:
        assert drive.opened["rc"] == "invalid" and "AWS_ACCESS_KEY_ID" in drive.opened["message"]
    with s3.Drive(server.endpoint, s3.environment(AWS_ACCESS_KEY_ID="a")) as drive:
        assert drive.opened["rc"] == "invalid" and "AWS_SECRET_ACCESS_KEY is not" in drive.opened["message"]


def test_a_metadata_service_may_come_later(server):
    """Goal: a machine whose network comes up after the node has its credentials then."""
    port = harness.free_port()
    env = s3.environment(AWS_EC2_METADATA_DISABLED=None,
                         AWS_EC2_METADATA_SERVICE_ENDPOINT=f"http://127.0.0.1:{port}")
    with s3.Drive(server.endpoint, env) as drive:
        assert drive.opened["rc"] == "ok", drive.opened
        answer = drive.do("head", "there")
        assert answer["rc"] != "ok" and "metadata service" in answer["message"]
        later = Endpoint(port)
        harness.wait_for(lambda: drive.do("head", "there")["rc"] == "ok", "credentials", 30)
        later.close()


def test_a_proof_is_not_sent_abroad(server):
    env = s3.environment(AWS_CONTAINER_CREDENTIALS_FULL_URI="http://example.com/",
                         AWS_CONTAINER_AUTHORIZATION_TOKEN="proof")
    with s3.Drive(server.endpoint, env) as drive:
        assert drive.opened["rc"] == "invalid" and "CONTAINER" in drive.opened["message"]


# ---- Keeping them good ----


def test_they_are_renewed_before_they_expire_and_when_s3_says_so(proxy, endpoint):
    endpoint.life_s = 250  # which is soon
    with s3.Drive(proxy.endpoint, endpoint.instance()) as drive:
        assert drive.do("get", "there")["rc"] == "ok"
        asked = len(endpoint.asked)
        endpoint.life_s = 3600
        harness.wait_for(lambda: drive.do("head", "there")["rc"] == "ok" and len(endpoint.asked) == asked + 3,
                         "they are renewed early", 20)
        proxy.fault("status", status=400, times=1, body=b"<Error><Code>ExpiredToken</Code></Error>")
        assert drive.do("get", "there")["rc"] == "ok"
        assert len(endpoint.asked) == asked + 6


def test_expired_ones_are_not_used(server, endpoint):
    endpoint.life_s = 1
    with s3.Drive(server.endpoint, endpoint.instance()) as drive:
        expired = time.time() + 2
        assert drive.do("get", "there")["rc"] == "ok"
        endpoint.status = 500
        harness.wait_for(lambda: time.time() > expired, "they expire")
        got = drive.do("get", "there")
        assert got["rc"] == "again" and "credentials" in got["message"], got
        assert drive.do("get", "there")["rc"] == "again"  # said at once, until it is asked again
        endpoint.status, endpoint.life_s = 200, 3600
        harness.wait_for(lambda: drive.do("get", "there")["rc"] == "ok", "they are asked for again", 20)


@pytest.mark.parametrize("body", ["", "{", "[]", '{"AccessKeyId":"a"}', '{"AccessKeyId":1,"SecretAccessKey":"b"}',
                                  '{"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"soon"}',
                                  '{"AccessKeyId":"a\\r\\nb: c","SecretAccessKey":"b"}'])
def test_an_answer_that_makes_no_sense(server, endpoint, body):
    endpoint.body = body or " "
    with s3.Drive(server.endpoint, endpoint.container()) as drive:
        got = drive.do("get", "there")
        assert got["rc"] == "permission" and "makes no sense" in got["message"], got


def test_a_session_token_is_sent_and_signed(proxy, endpoint):
    endpoint.token = "the/token+of=this=session"
    with s3.Drive(proxy.endpoint, endpoint.container()) as drive:
        drive.do("get", "there")
        assert endpoint.token not in drive.log()
    assert b"x-amz-security-token: the/token+of=this=session\r\n" in proxy.heads[0]
    assert b"SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token," in proxy.heads[0]


# ---- Regions ----


def test_a_bucket_of_another_region_is_followed_and_remembered(proxy, tmp_path):
    with s3.Drive(proxy.endpoint, region="eu-west-9") as drive:
        put = drive.do("put", "region", file=s3.put_file(tmp_path / "in", b"12345"))
        assert put["rc"] == "ok", put
        assert drive.do("head", "region")["rc"] == "ok"
    scopes = [head.split(b"Credential=")[1].split(b",")[0].split(b"/")[2] for head in proxy.heads]
    assert scopes == [b"eu-west-9", b"us-east-1", b"us-east-1"]


def test_a_head_learns_the_region_from_a_header(proxy):
    proxy.fault("status", method="HEAD", status=400, times=1, headers="x-amz-bucket-region: us-east-1\r\n")
    with s3.Drive(proxy.endpoint, region="eu-west-9") as drive:
        assert drive.do("head", "there")["rc"] == "ok" and len(proxy.requests) == 2


@pytest.mark.parametrize("status, asked", [(301, 1), (307, 2), (308, 1)])
def test_a_redirect_is_followed_and_a_lasting_one_remembered(server, proxy, status, asked):
    front = fault_proxy.Proxy(server.port)
    front.fault("status", status=status, headers=f"Location: {proxy.endpoint}/{s3.BUCKET}/there\r\n")
    with s3.Drive(front.endpoint) as drive:
        assert drive.do("get", "there")["sha256"] == harness.sha256(b"hello")
        assert drive.do("get", "there")["rc"] == "ok"
    assert len(front.requests) == asked and len(proxy.requests) == 2
    front.close()


def test_redirects_come_to_an_end(proxy):
    proxy.fault("status", status=307, headers=f"Location: {proxy.endpoint}/elsewhere\r\n")
    with s3.Drive(proxy.endpoint) as drive:
        got = drive.do("get", "there")
        assert got["rc"] == "invalid" and "307" in got["message"] and len(proxy.requests) <= 4
    proxy.fault("status", status=301)
    with s3.Drive(proxy.endpoint) as drive:
        assert drive.do("get", "there")["rc"] == "invalid"


# ---- TLS ----


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """A server whose certificate only its own authority vouches for."""
    made = s3.tls_server(tmp_path_factory.mktemp("tls"))
    yield made
    made.stop()


def test_tls_is_verified(tls, tmp_path):
    path = s3.put_file(tmp_path / "in", b"12345")
    with s3.Drive(tls.endpoint, ca_file=str(tls.certificate)) as drive:
        assert drive.do("put", "k", file=path)["rc"] == "ok"
        assert drive.do("get", "k")["got"] == 5
    with s3.Drive(tls.endpoint) as drive:
        got = drive.do("put", "k", file=path)
        assert got["rc"] == "closed" and "certificate of 127.0.0.1" in got["message"], got
        assert drive.figures()["retries"] == 0
    with s3.Drive(tls.endpoint.replace("127.0.0.1", "localhost"), ca_file=str(tls.certificate)) as drive:
        assert "certificate of localhost" in drive.do("get", "k")["message"]
    with s3.Drive(tls.endpoint, ca_file=str(tmp_path / "none.pem")) as drive:
        got = drive.do("get", "k")
        assert got["rc"] == "closed" and "certificates" in got["message"], got


# ---- What an operator reads ----


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_wrong_clock_is_named_with_the_difference(proxy, shift):
    date = email.utils.formatdate(time.time() - shift, usegmt=True)
    words = "ahead of" if shift > 0 else "behind"
    skewed = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
    for op, body in (("get", skewed), ("head", b"")):
        proxy.clear()
        proxy.fault("status", status=403, body=body, headers=f"Date: {date}\r\n")
        with s3.Drive(proxy.endpoint) as drive:
            got = drive.do(op, "there")
            assert got["rc"] == "permission" and f"s {words} that of" in got["message"], got
            told = int(got["message"].split("machine is ")[1].split(" s")[0])
            assert abs(told - 3600) <= 5


def test_messages_are_one_line_and_without_control_characters(proxy):
    body = b"<Error><Code>AccessDenied</Code><Message>a&#10;b&#9;" + b"c" * 1000 + b"</Message></Error>"
    proxy.fault("status", status=403, body=body)
    with s3.Drive(proxy.endpoint) as drive:
        got = drive.do("get", "there")
        assert got["rc"] == "permission" and "a b c" in got["message"] and len(got["message"]) < 256
