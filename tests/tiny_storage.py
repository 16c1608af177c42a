"""An S3 on loopback, for tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

SECRET = "a-secret-that-nobody-may-log"


@contextmanager
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start the server, set the environment that reaches it, and give the URL of a folder in an empty bucket."""
    server_of = pytest.importorskip("moto.server", reason="needs moto[server]")
    s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'valuesoup[s3]'")
    server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for variable, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(variable, value)
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(name := f"soups-{uuid4().hex}")
        yield f"s3://{name}/runs/demo"
    finally:
        server.stop()
