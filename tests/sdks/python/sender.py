"""Carries out a plan with the official Python SDK, and reports what the SDK made of it.

    python sender.py PLAN.json

The plan says where the project is, and the steps; the report on standard output has one outcome a
step. Nothing of the SDK is changed: by name (see ../README.md) nothing here knows of Herald either.
"""

import asyncio
import datetime
import json
import sys
import warnings

import firebase_admin
from firebase_admin import credentials, messaging
import google.oauth2.credentials

# The SDK prefers `fid` to `token` by now, and says so at every message.
warnings.simplefilter("ignore", DeprecationWarning)


# The SDK's other client stays with the loop that it was first used on.
LOOP = asyncio.new_event_loop()


class ServiceToken(google.oauth2.credentials.Credentials):
    """A bearer token that never changes."""

    def refresh(self, request):
        """Called at a 401: there is no other token to fetch."""


class Credential(credentials.Base):
    """What `initialize_app` takes."""

    def __init__(self, service_token):
        self._google = ServiceToken(service_token)

    def get_credential(self):
        return self._google


def whole(token):
    """Every field that the SDK can express."""
    return messaging.Message(
        token=token,
        data={"key": "value", "empty": "", "unicode": "Привет \U0001f44b", "quoted": "a\"\\\n"},
        notification=messaging.Notification("Title", "Body", "https://example.com/image.png"),
        android=messaging.AndroidConfig(
            collapse_key="collapse",
            priority="high",
            ttl=datetime.timedelta(seconds=3600, milliseconds=500),
            restricted_package_name="com.example.app",
            data={"android": "data"},
            fcm_options=messaging.AndroidFCMOptions("android_label"),
            direct_boot_ok=True,
            bandwidth_constrained_ok=True,
            restricted_satellite_ok=True,
            notification=messaging.AndroidNotification(
                title="Android title",
                body="Android body",
                icon="icon",
                color="#aBcDeF",
                sound="default",
                tag="tag",
                click_action="OPEN",
                body_loc_key="body_key",
                body_loc_args=["1", "2"],
                title_loc_key="title_key",
                title_loc_args=["3"],
                channel_id="channel",
                image="https://example.com/android.png",
                ticker="ticker",
                sticky=True,
                event_timestamp=datetime.datetime(
                    2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc
                ),
                local_only=True,
                priority="max",
                vibrate_timings_millis=[100, 2500],
                default_vibrate_timings=False,
                default_sound=True,
                light_settings=messaging.LightSettings("#11223344", 200, 3000),
                default_light_settings=False,
                visibility="secret",
                notification_count=7,
                proxy="if_priority_lowered",
            ),
        ),
        webpush=messaging.WebpushConfig(
            headers={"TTL": "60", "Urgency": "high"},
            data={"web": "data"},
            notification=messaging.WebpushNotification(
                title="Web title",
                body="Web body",
                icon="https://example.com/icon.png",
                actions=[messaging.WebpushNotificationAction("act", "Act", "icon")],
                badge="badge",
                data={"any": ["thing", 1, None]},
                direction="rtl",
                image="https://example.com/web.png",
                language="fa",
                renotify=True,
                require_interaction=True,
                silent=False,
                tag="tag",
                timestamp_millis=1234567890123,
                vibrate=[1, 2],
                custom_data={"customKey": "custom"},
            ),
            fcm_options=messaging.WebpushFCMOptions("https://example.com/link"),
        ),
        apns=messaging.APNSConfig(
            headers={"apns-priority": "10"},
            payload=messaging.APNSPayload(
                aps=messaging.Aps(
                    alert=messaging.ApsAlert(
                        title="Apple title",
                        subtitle="Subtitle",
                        body="Apple body",
                        loc_key="loc",
                        loc_args=["a"],
                        title_loc_key="title_loc",
                        title_loc_args=["b"],
                        action_loc_key="action",
                        launch_image="launch",
                    ),
                    badge=3,
                    sound=messaging.CriticalSound("alarm", critical=True, volume=0.5),
                    content_available=True,
                    category="category",
                    thread_id="thread",
                    mutable_content=True,
                    custom_data={"own": 1},
                ),
                customKey="custom",
            ),
            fcm_options=messaging.APNSFCMOptions("apple_label", "https://example.com/apple.png"),
            live_activity_token="live",
        ),
        fcm_options=messaging.FCMOptions("label"),
    )


def message(step):
    """The message of a step."""
    kind, text = step["message"], step.get("text", "")
    if kind in ("topic", "condition"):
        return messaging.Message(data={"text": text}, **{kind: step["to"]})
    token = step["token"]
    if kind == "whole":
        return whole(token)
    if kind == "fid":
        return messaging.Message(fid=token, data={"text": text})
    android = {
        "text": None,
        "now_or_never": messaging.AndroidConfig(ttl=0, priority="normal"),
        "collapsible": messaging.AndroidConfig(collapse_key="score", ttl=60, priority="normal"),
    }[kind]
    return messaging.Message(token=token, data={"text": text}, android=android)


def name_of(error):
    """How a user of the SDK tells errors apart."""
    return type(error).__name__


def outcome(response):
    """Of one message of many."""
    if response.success:
        return {"name": response.message_id}
    return {"error": name_of(response.exception)}


def texts(tokens):
    """A message to each token, which says its place."""
    return [message({"message": "text", "token": it, "text": str(i)}) for i, it in enumerate(tokens)]


def multicast(step):
    """One message to all."""
    return messaging.MulticastMessage(tokens=step["tokens"], data={"text": "to all"})


CHANGES = {
    ("subscribe", ""): messaging.subscribe_to_topic,
    ("subscribe", "concurrently"): messaging.subscribe_to_topic_async,
    ("subscribe", "legacy"): messaging.subscribe_to_topic_legacy,
    ("unsubscribe", ""): messaging.unsubscribe_from_topic,
    ("unsubscribe", "concurrently"): messaging.unsubscribe_from_topic_async,
    ("unsubscribe", "legacy"): messaging.unsubscribe_from_topic_legacy,
}


def change(step):
    """Tokens join or leave a topic."""
    answer = CHANGES[step["do"], step["how"]](step["tokens"], step["topic"])
    if step["how"] == "concurrently":
        answer = LOOP.run_until_complete(answer)
    return {
        "success_count": answer.success_count,
        "failure_count": answer.failure_count,
        "errors": [{"index": it.index, "reason": it.reason} for it in answer.errors],
    }


def carry_out(step):
    """One step."""
    dry_run = step.get("dry_run", False)
    try:
        match step["do"]:
            case "send":
                return {"name": messaging.send(message(step), dry_run=dry_run)}
            case "send_each":
                return list(map(outcome, messaging.send_each(texts(step["tokens"]), dry_run).responses))
            case "send_each_concurrently":
                sending = messaging.send_each_async(texts(step["tokens"]), dry_run)
                answer = LOOP.run_until_complete(sending)
                return list(map(outcome, answer.responses))
            case "multicast":
                answer = messaging.send_each_for_multicast(multicast(step), dry_run)
                return list(map(outcome, answer.responses))
            case "subscribe" | "unsubscribe":
                return change(step)
    except Exception as error:  # pylint: disable=broad-except
        return {"error": name_of(error), "text": str(error)}
    raise ValueError(step["do"])


def main():
    """Reads the plan, writes the report."""
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    credential = Credential(plan["service_token"])
    app = firebase_admin.initialize_app(credential, {"projectId": plan["project_id"]})
    if plan["url"]:
        # By option: the places that know where FCM is.
        service = messaging._MessagingService  # pylint: disable=protected-access
        service.FCM_URL = plan["url"] + "/v1/projects/{0}/messages:send"
        service.IID_URL = plan["url"]
        service = messaging._get_messaging_service(app)  # pylint: disable=protected-access
        service._fcm_topic_url = f"{plan['url']}/v1/projects/{plan['project_id']}/registrations"  # pylint: disable=protected-access
    outcomes = [carry_out(step) for step in plan["steps"]]
    json.dump({"sdk": firebase_admin.__version__, "outcomes": outcomes}, sys.stdout)


main()
