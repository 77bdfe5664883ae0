"""What arrives: at a web server, in Slack's format, by a mail server, and through SNS; and what is said of secrets."""

import json
import socket
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import boto3
import pytest

from ml_assets.alerts.addresses import read_addresses
from ml_assets.alerts.channels import send
from ml_assets.alerts.message import Message
from ml_assets.errors import AlertError, SettingsError
from ml_assets.settings import Settings
from ml_assets_tests.alerts.receivers import Hooks, Mailbox
from ml_assets_tests.project import free_port
from ml_assets_tests.s3 import ACCOUNT, S3, s3_server

MESSAGE = Message(
    id="ab12-1",
    alert="ab12",
    event="opened",
    model="taxis",
    kind="quality",
    severity="error",
    title="taxis: f1 < 0.8 & falling",
    text="f1 is 0.7.\nIt was 0.9 → worse.",
    url="http://ui/runs/1",
    since=datetime(2026, 11, 25, 12, tzinfo=UTC),
    at=datetime(2026, 11, 25, 12, 5, tzinfo=UTC),
)
RECOVERED = replace(MESSAGE, id="ab12-2", event="recovered", text="It is over.")


def sent(text: str, message: Message = MESSAGE, aws: str | None = None) -> str:
    [address] = read_addresses(text)
    return send(address, message, aws)


def test_slack_gets_its_own_format() -> None:
    with Hooks(free_port()).running() as hooks:
        sent(f"slack+{hooks.url('/services/T0/B0/xyz')}")
        sent(f"slack+{hooks.url('/services/T0/B0/xyz')}", RECOVERED)
    opened, recovered = hooks.bodies("/services/T0/B0/xyz")
    assert opened["text"] == "🔴 taxis: f1 &lt; 0.8 &amp; falling"
    title, text, about = opened["blocks"]
    assert title["text"] == {"type": "mrkdwn", "text": "🔴 *<http://ui/runs/1|taxis: f1 &lt; 0.8 &amp; falling>*"}
    assert text["text"]["text"] == "f1 is 0.7.\nIt was 0.9 → worse."
    assert about["elements"][0]["text"] == "taxis · quality · error · since 2026-11-25 12:00 UTC"
    assert recovered["text"].startswith("🟢 recovered: ")


def test_mail_arrives_with_its_thread_and_link() -> None:
    with Mailbox().running() as box:
        address = f"smtp://127.0.0.1:{box.port}?from=ml@a.example&to=you@b.example,me@b.example"
        sent(address)
        sent(address, RECOVERED)
    opened, recovered = box.mails
    assert box.to == [["you@b.example", "me@b.example"]] * 2
    assert (opened["Subject"], opened["From"]) == ("[error] taxis: f1 < 0.8 & falling", "ml@a.example")
    assert opened["Message-ID"] == "<ab12-1@ml-assets>"
    content = opened.get_content()  # type: ignore[attr-defined]
    assert content.splitlines() == ["f1 is 0.7.", "It was 0.9 → worse.", "", "http://ui/runs/1"]
    assert recovered["Subject"].startswith("[ok] recovered: ")
    assert recovered["In-Reply-To"] == opened["Message-ID"]


def test_a_mail_server_asks_for_the_password_and_refuses_receivers() -> None:
    with Mailbox(refused=("gone@b.example",), password="s3cret").running() as box:
        where = f"127.0.0.1:{box.port}?from=ml@a.example&to=you@b.example,gone@b.example"
        assert sent(f"smtp://user:s3cret@{where}") == "1 of 2 receivers were refused"
        with pytest.raises(AlertError, match=r"answered 535 \(SMTPAuthenticationError\)"):
            sent(f"smtp://user:wr0ng@{where}")
        with pytest.raises(AlertError, match="did not take it"):
            sent(f"smtp://user:s3cret@127.0.0.1:{box.port}?from=ml@a.example&to=gone@b.example")
    assert box.to == [["you@b.example"]]


def test_a_mail_server_that_is_not_there_or_says_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_assets.alerts.channels.SECONDS", 0.2)
    receivers = "from=ml@a.example&to=you@b.example"
    with pytest.raises(AlertError, match=r"did not take it \(ConnectionRefusedError\)"):
        sent(f"smtp://127.0.0.1:{free_port()}?{receivers}")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(AlertError, match=r"gave no answer in 0\.2 s"):
        sent(f"smtp://127.0.0.1:{silent.getsockname()[1]}?{receivers}")


@pytest.fixture(scope="module")
def aws() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def test_sns_hands_it_on_to_a_queue(aws: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.variables().items():
        monkeypatch.setenv(name, value)
    known = {"region_name": "us-east-1", "endpoint_url": aws.url}
    session = boto3.Session()
    sns, sqs = session.client("sns", **known), session.client("sqs", **known)
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sent(f"sns:{topic}", aws=aws.url)
    [heard] = sqs.receive_message(QueueUrl=queue)["Messages"]
    said = json.loads(heard["Body"])
    assert said["Subject"] == "taxis: f1 < 0.8 & falling"
    assert said["Message"].startswith(
        "taxis: f1 < 0.8 & falling\n\nf1 is 0.7.\nIt was 0.9 → worse.\n\nhttp://ui/runs/1"
    )
    attributes = {name: each["Value"] for name, each in said["MessageAttributes"].items()}
    assert attributes == {"event": "opened", "model": "taxis", "kind": "quality", "severity": "error", "id": "ab12-1"}
    with pytest.raises(AlertError, match=r"sns gone \(\w+\) answered NotFound"):
        sent(f"sns:arn:aws:sns:us-east-1:{ACCOUNT}:gone", aws=aws.url)


def test_no_error_tells_a_secret() -> None:
    port = free_port()
    for text in (
        f"http://127.0.0.1:{port}/services/s3cret?token=s3cret",
        f"slack+http://user:s3cret@127.0.0.1:{port}/s3cret",
        f"smtp://s3cret:s3cret@127.0.0.1:{port}?from=a@b.c&to=d@e.f",
    ):
        [address] = read_addresses(text)
        assert "s3cret" not in repr(address)
        with pytest.raises(AlertError) as error:
            send(address, MESSAGE)
        assert "s3cret" not in "".join(traceback.format_exception(error.value))
        assert "127.0.0.1" in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://host/s3cret", "address 1: it begins with none of https://"),
        ("https:///s3cret", "address 1: it names no host"),
        ("https://host/s3cret#urgent", "address 1: what follows # is neither warn nor error"),
        ("https://host/a smtp://u:s3cret@host", "address 2: mail needs ?from=a@b&to=c@d"),
        ("smtp://u:s3cret@host?from=a@b&to=c@d&cc=e@f", "address 1: behind ? are from=a@b&to=c@d, and nothing else"),
        ("smtp://s3cret@host?from=a@b&to=c@d", "address 1: a login is user:password@, or nothing"),
        ("sns:arn:aws:sqs:eu-west-1:123456789012:s3cret", "address 1: no topic's ARN, such as sns:arn:aws:sns:"),
        ("https://host/a https://host/a#error", "address 2: webhook host (15a8dc) is there twice"),
        ("https://host:port/s3cret", "address 1: no address: its host or port cannot be read"),
    ],
)
def test_a_wrong_address_is_refused_by_its_number_and_not_shown(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({"ML_ASSETS_ALERTS": text})
    assert said in str(error.value)
    assert "ML_ASSETS_ALERTS=(not shown)" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_channel_keeps_its_name_when_its_password_changes() -> None:
    def name(text: str) -> str:
        return read_addresses(text)[0].name

    mail = "host?from=a@b.c&to=d@e.f"
    assert name(f"smtps://u:one@{mail}") == name(f"smtps://u:two@{mail}#error")
    assert name("https://host/a") != name("https://host/b")
    assert name("https://host/a") != name("slack+https://host/a")


def test_the_address_of_the_ui_is_one() -> None:
    assert Settings.from_environment({"ML_ASSETS_UI": "https://dagster.example/"}).ui == "https://dagster.example"
    with pytest.raises(SettingsError, match=r"ML_ASSETS_UI='dagster.example': .*not http"):
        Settings.from_environment({"ML_ASSETS_UI": "dagster.example"})
