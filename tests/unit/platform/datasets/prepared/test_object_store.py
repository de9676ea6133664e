"""Sources and prepared folders on an object store that speaks S3, over a real socket."""

import json
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import ShardReader, write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

CLIPS = ClipConfig(search_size=32, frames=4, span=4)


class Store(BaseHTTPRequestHandler):
    """As much of S3 as listing, reading, writing and deleting objects takes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    objects: dict[str, bytes]
    parts: dict[str, dict[int, bytes]]

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self):
        self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")

    @property
    def key(self):
        return unquote(urlsplit(self.path).path).lstrip("/")

    def do_HEAD(self):
        key = self.key.partition("/")[2]
        if key and self.key not in self.objects:
            self.reply(404)
        else:
            self.reply(200, Content_Length=str(len(self.objects.get(self.key, b""))))

    def do_GET(self):
        query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        if "list-type" in query:
            self.list(self.key.rstrip("/"), query.get("prefix", ""), query.get("delimiter"))
        elif self.key not in self.objects:
            self.missing()
        else:
            body = self.objects[self.key]
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted:
                first, last = map(int, wanted.groups())
                self.reply(206, body[first : last + 1])
            else:
                self.reply(200, body)

    def list(self, bucket, prefix, delimiter):
        keys = [k.partition("/")[2] for k in self.objects if k.startswith(f"{bucket}/{prefix}")]
        folders = set()
        if delimiter:
            for key in list(keys):
                rest = key.removeprefix(prefix)
                if delimiter in rest:
                    folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                    keys.remove(key)
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
            for key in keys
        )
        rows += "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in folders
        )
        count = len(keys) + len(folders)
        self.reply(
            200,
            f"<ListBucketResult><IsTruncated>false</IsTruncated><KeyCount>{count}</KeyCount>"
            f"{rows}</ListBucketResult>".encode(),
            Content_Type="application/xml",
        )

    def do_PUT(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "aws-chunked" in self.headers.get("Content-Encoding", ""):
            body = unchunked(body)
        query = parse_qs(urlsplit(self.path).query)
        if "uploadId" in query:
            self.parts.setdefault(self.key, {})[int(query["partNumber"][0])] = body
        else:
            self.objects[self.key] = body
        self.reply(200, ETag='"1"')

    def do_POST(self):
        """Start an upload in parts, or end it: only then the object is there."""
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bucket, _, key = self.key.partition("/")
        kind = "Initiate" if "uploads" in urlsplit(self.path).query else "Complete"
        if kind == "Complete":
            parts = self.parts.pop(self.key)
            self.objects[self.key] = b"".join(parts[number] for number in sorted(parts))
        self.reply(
            200,
            f"<{kind}MultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
            f'<UploadId>1</UploadId><ETag>"1"</ETag></{kind}MultipartUploadResult>'.encode(),
            Content_Type="application/xml",
        )

    def do_DELETE(self):
        self.objects.pop(self.key, None)
        self.reply(204)


def unchunked(body):
    """Take the content out of an upload that AWS's client signed chunk by chunk."""
    content = b""
    while body:
        head, _, body = body.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if size == 0:
            return content
        content, body = content + body[:size], body[size + 2 :]
    return content


@pytest.fixture(scope="module")
def store():
    handler = type("Handler", (Store,), {"objects": {}, "parts": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def bucket(store, monkeypatch):
    """Return the root of a new folder on the store, and the options that lead there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = f"?endpoint_override=127.0.0.1:{store.server_port}&scheme=http&region=none"
    return f"s3://bucket/{uuid.uuid4()}", options


@pytest.fixture
def source(folder, bucket):
    """GOT-10k on the store, one name with a blank and one with a mark that URLs know."""
    names = ["two words", "a+b&c=d", "GOT-10k_Val_000003"]
    folder.text("val/list.txt", "\n".join(names))
    for name in names:
        folder.images(f"val/{name}", range(1, 5))
        folder.text(f"val/{name}/groundtruth.txt", "1,2,8,6\n" * 4)
    tree = Tree(f"{bucket[0]}/source{bucket[1]}")
    for path in folder.root.rglob("*"):
        if path.is_file():
            tree.write_bytes(str(path.relative_to(folder.root)), path.read_bytes())
    return tree.root


def prepare(root, out):
    plan = plan_preparation("got10k", root, "val", str(out), CLIPS)
    return finish(plan, {job.file: write_shard(job) for job in plan.missing})


def test_a_source_is_read_from_the_store(source, number_of):
    sequences = list(read("got10k", source, "val"))
    assert [s.name for s in sequences] == ["two words", "a+b&c=d", "GOT-10k_Val_000003"]
    for sequence in sequences:
        assert [number_of(frame) for frame in sequence.frames.iterate()] == [1, 2, 3, 4]
        assert sequence.frames.path(0).startswith("s3://bucket/")


def test_clips_are_prepared_from_store_to_store_with_the_bytes_of_a_local_run(
    source, folder, bucket, tmp_path
):
    there = Tree(prepare(source, f"{bucket[0]}/clips{bucket[1]}").folder)
    here = Tree(prepare(str(folder), tmp_path / "clips").folder)
    assert there.names() == here.names()
    for name in there.names():
        if name != "manifest.json":  # which names its source
            assert there.read_bytes(name) == here.read_bytes(name)
    assert json.loads(there.read_text("manifest.json"))["source"] == source
    clip = ShardReader(there).read(next(n for n in there.names() if n.startswith("part-")), 0)
    assert len(clip.jpegs) == 4


def test_what_is_missing_on_the_store_is_named(bucket):
    tree = Tree(f"{bucket[0]}/nowhere{bucket[1]}")
    assert not tree.is_folder()
    assert not tree.is_file("a.txt")
    with pytest.raises(DataError, match=r"nowhere/a\.txt.*: cannot be read"):
        tree.read_bytes("a.txt")
    with pytest.raises(DataError, match="no such folder; name the folder that the owner published"):
        list(read("got10k", tree.root, "val"))


def test_files_are_replaced_and_removed_on_the_store(bucket):
    tree = Tree(f"{bucket[0]}/files{bucket[1]}")
    tree.write_bytes("a/b.txt", b"one")
    tree.write_bytes("a/b.txt", b"two")
    assert (tree / "a").read_bytes("b.txt") == b"two"
    tree.remove("a/b.txt")
    assert not tree.is_file("a/b.txt")


def test_a_key_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(DataError, match="a key in a URL would be stored") as caught:
        Tree("s3://name:secret@bucket/a").names()
    assert "secret" not in str(caught.value)


def test_local_paths_keep_their_question_marks(tmp_path):
    tree = Tree(str(tmp_path / "what?x=1"))
    tree.write_bytes("a.txt", b"here")
    assert Path(tmp_path / "what?x=1" / "a.txt").read_bytes() == b"here"
