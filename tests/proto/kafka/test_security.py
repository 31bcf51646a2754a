"""TLS, SASL and ACLs of a real broker: who is let in, and what the others are told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from tests.proto.kafka.records import call, ids
from tests.services.kafka import create_topic, read_topic

from mmlocal.services.kafka import Kafka
from mmproto.delivery import Retry
from mmproto.kafka.producer import KafkaClient
from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import Secret, shown

PASSWORD = "correct horse battery staple"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
BROKER = {
    "ssl.keystore.type": "PEM",
    "sasl.enabled.mechanisms": "SCRAM-SHA-512",
    "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": SCRAM,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    # Whoever comes by the plain listener, which is the tests' own.
    "super.users": "User:ANONYMOUS",
}


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(folder: Path, name: str) -> None:
    """NAME.key and NAME.crt, a CA for itself, for 127.0.0.1."""
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / f"{name}.key")),
        *("-out", str(folder / f"{name}.crt")),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    certificate(folder, "broker")
    certificate(folder, "other")
    (folder / "broker.pem").write_text(
        (folder / "broker.key").read_text() + (folder / "broker.crt").read_text()
    )
    return folder


@pytest.fixture(scope="module")
def secure(folder: Path) -> Iterator[Kafka]:
    """A broker with the users `sensor` and `stranger`; only `sensor` may write, and only to `allowed`."""
    broker = Kafka(
        folder / "kafka",
        listeners=("PLAINTEXT", "SASL_SSL"),
        settings={**BROKER, "ssl.keystore.location": str(folder / "broker.pem")},
    )
    try:
        broker.start()
        create_topic(broker.address, "allowed")
        create_topic(broker.address, "later")
        admin = AdminClient({"bootstrap.servers": broker.address})
        strength = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users: list[UserScramCredentialAlteration] = [
            UserScramCredentialUpsertion(name, strength, PASSWORD.encode()) for name in ("sensor", "stranger")
        ]
        for made in admin.alter_user_scram_credentials(users).values():
            made.result()
        allow(broker, "sensor", "allowed")
        yield broker
    finally:
        broker.close()


def allow(broker: Kafka, user: str, topic: str) -> None:
    rule = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    admin = AdminClient({"bootstrap.servers": broker.address})
    for made in admin.create_acls([rule]).values():
        made.result()


def client(
    broker: Kafka, folder: Path, topic: str = "allowed", user: str = "sensor", **different: str
) -> KafkaClient:
    properties = {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(folder / "broker.crt"),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": user,
        "sasl.password": PASSWORD,
        "message.timeout.ms": "3000",
        **{name.replace("_", "."): value for name, value in different.items()},
    }
    secrets = {name: Secret(value) for name, value in properties.items()}
    settings = KafkaSettings(brokers=broker.addresses["SASL_SSL"], properties=secrets)
    assert PASSWORD not in f"{settings!r} {shown(settings)}"
    return KafkaClient(settings, "node-1", topic=topic)


def refusal(posting: KafkaClient) -> Retry:
    with closing(posting), pytest.raises(Retry) as caught:
        posting.post([call("waits")])
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_who_shows_the_right_password_over_tls_is_let_in(secure: Kafka, folder: Path) -> None:
    with closing(client(secure, folder)) as posting:
        assert posting.partitions(10) == 1
        assert posting.post([call("in")]).accepted == 1
    assert ids(read_topic(secure.address, "allowed", 1)) == ["in"]


def test_a_wrong_password_is_said(secure: Kafka, folder: Path) -> None:
    refused = refusal(client(secure, folder, sasl_password="wrong"))
    assert refused.reason == "unauthorized"
    assert "check sasl.* in kafka.properties" in str(refused)


def test_a_certificate_of_another_authority_is_said(secure: Kafka, folder: Path) -> None:
    refused = refusal(client(secure, folder, ssl_ca_location=str(folder / "other.crt")))
    assert refused.reason == "tls"
    assert "certificate" in str(refused)


def test_a_listener_of_another_protocol_is_said(secure: Kafka, folder: Path) -> None:
    refused = refusal(client(secure, folder, security_protocol="PLAINTEXT"))
    assert refused.reason == "broker_away"
    assert "is the port one for clients" in str(refused)


def test_who_may_not_write_is_told_and_goes_on_once_allowed(secure: Kafka, folder: Path) -> None:
    """To the library it is fatal that a user may write nowhere; the same client of ours goes on."""
    posting = client(secure, folder, "later", "stranger")
    for _ in range(2):
        assert refusal(posting).reason == "forbidden"
    allow(secure, "stranger", "later")
    with closing(posting):
        assert posting.post([call("at last")]).accepted == 1
    assert ids(read_topic(secure.address, "later", 1)) == ["at last"]
