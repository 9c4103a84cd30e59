// Carries out a plan with the official Java SDK, and reports what the SDK made of it.
//
//     java -cp 'lib/*' Sender.java PLAN.json
//
// The plan says where the project is, and the steps; the report on standard output has one outcome
// a step. Nothing of the SDK is changed: by name (see ../README.md) nothing here knows of Herald either.

import com.google.api.client.http.javanet.NetHttpTransport;
import com.google.auth.oauth2.AccessToken;
import com.google.auth.oauth2.GoogleCredentials;
import com.google.firebase.FirebaseApp;
import com.google.firebase.FirebaseException;
import com.google.firebase.FirebaseOptions;
import com.google.firebase.internal.SdkUtils;
import com.google.firebase.messaging.*;
import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.List;
import java.util.Map;

public class Sender {
  static FirebaseMessaging messaging;

  public static void main(String[] arguments) throws Exception {
    JsonObject plan =
        JsonParser.parseString(Files.readString(Path.of(arguments[0]))).getAsJsonObject();
    Date tomorrow = new Date(System.currentTimeMillis() + 24 * 60 * 60 * 1000);
    AccessToken token = new AccessToken(text(plan, "service_token"), tomorrow);
    FirebaseOptions.Builder options =
        FirebaseOptions.builder()
            .setCredentials(new ServiceToken(token))
            .setProjectId(text(plan, "project_id"));
    String herald = text(plan, "url");
    if (!herald.isEmpty()) {
      // By option: all calls lead to Herald.
      options.setHttpTransport(
          new NetHttpTransport.Builder()
              .setConnectionFactory(
                  url -> (HttpURLConnection) new URL(herald + url.getFile()).openConnection())
              .build());
    }
    messaging = FirebaseMessaging.getInstance(FirebaseApp.initializeApp(options.build()));
    JsonArray outcomes = new JsonArray();
    for (JsonElement step : plan.getAsJsonArray("steps")) {
      outcomes.add(carryOut(step.getAsJsonObject()));
    }
    JsonObject report = new JsonObject();
    report.addProperty("sdk", SdkUtils.getVersion());
    report.add("outcomes", outcomes);
    System.out.println(new Gson().toJson(report));
    System.out.flush();
    // The SDK leaves threads behind.
    System.exit(0);
  }

  // A bearer token that never changes. `GoogleCredentials.create` does for sends that go well, and
  // throws at a 401.
  static class ServiceToken extends GoogleCredentials {
    private final AccessToken token;

    ServiceToken(AccessToken token) {
      super(token);
      this.token = token;
    }

    @Override
    public AccessToken refreshAccessToken() {
      return token;
    }
  }

  static String text(JsonObject object, String name) {
    return object.has(name) ? object.get(name).getAsString() : "";
  }

  static JsonElement carryOut(JsonObject step) {
    boolean dryRun = step.has("dry_run") && step.get("dry_run").getAsBoolean();
    try {
      switch (text(step, "do")) {
        case "send":
          return outcome(messaging.send(message(step), dryRun), null);
        case "send_each":
          List<Message> messages = new ArrayList<>();
          for (JsonElement token : step.getAsJsonArray("tokens")) {
            String index = String.valueOf(messages.size());
            messages.add(
                Message.builder().setToken(token.getAsString()).putData("text", index).build());
          }
          return outcomes(messaging.sendEach(messages, dryRun));
        case "multicast":
          MulticastMessage.Builder multicast = MulticastMessage.builder().putData("text", "to all");
          for (JsonElement token : step.getAsJsonArray("tokens")) {
            multicast.addToken(token.getAsString());
          }
          return outcomes(messaging.sendEachForMulticast(multicast.build(), dryRun));
        case "subscribe":
        case "unsubscribe":
          return changed(change(step));
        default:
          throw new IllegalArgumentException(text(step, "do"));
      }
    } catch (FirebaseMessagingException error) {
      return outcome(null, error);
    }
  }

  // Tokens join or leave a topic.
  static TopicManagementResponse change(JsonObject step) throws FirebaseMessagingException {
    List<String> tokens = new ArrayList<>();
    for (JsonElement token : step.getAsJsonArray("tokens")) {
      tokens.add(token.getAsString());
    }
    String topic = text(step, "topic");
    boolean legacy = text(step, "how").equals("legacy");
    if (text(step, "do").equals("subscribe")) {
      return legacy
          ? messaging.subscribeToTopicLegacy(tokens, topic)
          : messaging.subscribeToTopic(tokens, topic);
    }
    return legacy
        ? messaging.unsubscribeFromTopicLegacy(tokens, topic)
        : messaging.unsubscribeFromTopic(tokens, topic);
  }

  static JsonElement changed(TopicManagementResponse answer) {
    JsonArray errors = new JsonArray();
    for (TopicManagementResponse.Error error : answer.getErrors()) {
      JsonObject reason = new JsonObject();
      reason.addProperty("index", error.getIndex());
      reason.addProperty("reason", error.getReason());
      errors.add(reason);
    }
    JsonObject changed = new JsonObject();
    changed.addProperty("success_count", answer.getSuccessCount());
    changed.addProperty("failure_count", answer.getFailureCount());
    changed.add("errors", errors);
    return changed;
  }

  static JsonElement outcomes(BatchResponse batch) {
    JsonArray outcomes = new JsonArray();
    for (SendResponse response : batch.getResponses()) {
      outcomes.add(outcome(response.getMessageId(), response.getException()));
    }
    return outcomes;
  }

  // How a user of the SDK tells errors apart: by FCM's code, or the platform's if there is none.
  static JsonElement outcome(String name, FirebaseMessagingException error) {
    JsonObject outcome = new JsonObject();
    if (error == null) {
      outcome.addProperty("name", name);
      return outcome;
    }
    Enum<?> code = error.getMessagingErrorCode();
    String prefix = code == null ? "ErrorCode." : "MessagingErrorCode.";
    outcome.addProperty("error", prefix + (code == null ? error.getErrorCode() : code));
    outcome.addProperty("text", String.valueOf(error.getMessage()));
    return outcome;
  }

  static Message message(JsonObject step) {
    String token = text(step, "token");
    Message.Builder message = Message.builder().putData("text", text(step, "text"));
    AndroidConfig.Builder android =
        AndroidConfig.builder().setPriority(AndroidConfig.Priority.NORMAL);
    switch (text(step, "message")) {
      case "topic":
        return message.setTopic(text(step, "to")).build();
      case "condition":
        return message.setCondition(text(step, "to")).build();
      case "whole":
        return whole(token);
      case "fid":
        return message.setFid(token).build();
      case "now_or_never":
        return message.setToken(token).setAndroidConfig(android.setTtl(0).build()).build();
      case "collapsible":
        android.setCollapseKey("score").setTtl(60_000);
        return message.setToken(token).setAndroidConfig(android.build()).build();
      default:
        return message.setToken(token).build();
    }
  }

  // Every field that the SDK can express.
  static Message whole(String token) {
    return Message.builder()
        .setToken(token)
        .putData("key", "value")
        .putData("empty", "")
        .putData("unicode", "Привет \ud83d\udc4b")
        .putData("quoted", "a\"\\\n")
        .setNotification(
            Notification.builder()
                .setTitle("Title")
                .setBody("Body")
                .setImage("https://example.com/image.png")
                .build())
        .setAndroidConfig(
            AndroidConfig.builder()
                .setCollapseKey("collapse")
                .setPriority(AndroidConfig.Priority.HIGH)
                .setTtl(3_600_500)
                .setRestrictedPackageName("com.example.app")
                .putData("android", "data")
                .setFcmOptions(AndroidFcmOptions.withAnalyticsLabel("android_label"))
                .setDirectBootOk(true)
                .setBandwidthConstrainedOk(true)
                .setRestrictedSatelliteOk(true)
                .setNotification(androidNotification())
                .build())
        .setWebpushConfig(
            WebpushConfig.builder()
                .putHeader("TTL", "60")
                .putHeader("Urgency", "high")
                .putData("web", "data")
                .setNotification(webNotification())
                .setFcmOptions(WebpushFcmOptions.withLink("https://example.com/link"))
                .build())
        .setApnsConfig(
            ApnsConfig.builder()
                .putHeader("apns-priority", "10")
                .setLiveActivityToken("live")
                .setAps(aps())
                .putCustomData("customKey", "custom")
                .setFcmOptions(
                    ApnsFcmOptions.builder()
                        .setAnalyticsLabel("apple_label")
                        .setImage("https://example.com/apple.png")
                        .build())
                .build())
        .setFcmOptions(FcmOptions.withAnalyticsLabel("label"))
        .build();
  }

  static AndroidNotification androidNotification() {
    return AndroidNotification.builder()
        .setTitle("Android title")
        .setBody("Android body")
        .setIcon("icon")
        .setColor("#aBcDeF")
        .setSound("default")
        .setTag("tag")
        .setClickAction("OPEN")
        .setBodyLocalizationKey("body_key")
        .addBodyLocalizationArg("1")
        .addBodyLocalizationArg("2")
        .setTitleLocalizationKey("title_key")
        .addTitleLocalizationArg("3")
        .setChannelId("channel")
        .setImage("https://example.com/android.png")
        .setTicker("ticker")
        .setSticky(true)
        .setEventTimeInMillis(1_767_323_045_678L)
        .setLocalOnly(true)
        .setPriority(AndroidNotification.Priority.MAX)
        .setVibrateTimingsInMillis(new long[] {100, 2500})
        .setDefaultVibrateTimings(false)
        .setDefaultSound(true)
        .setLightSettings(
            LightSettings.builder()
                .setColorFromString("#112233")
                .setLightOnDurationInMillis(200)
                .setLightOffDurationInMillis(3000)
                .build())
        .setDefaultLightSettings(false)
        .setVisibility(AndroidNotification.Visibility.SECRET)
        .setNotificationCount(7)
        .setProxy(AndroidNotification.Proxy.IF_PRIORITY_LOWERED)
        .build();
  }

  static WebpushNotification webNotification() {
    return WebpushNotification.builder()
        .setTitle("Web title")
        .setBody("Web body")
        .setIcon("https://example.com/icon.png")
        .addAction(new WebpushNotification.Action("act", "Act", "icon"))
        .setBadge("badge")
        .setData(Map.of("any", Arrays.asList("thing", 1, "else")))
        .setDirection(WebpushNotification.Direction.RIGHT_TO_LEFT)
        .setImage("https://example.com/web.png")
        .setLanguage("fa")
        .setRenotify(true)
        .setRequireInteraction(true)
        .setSilent(false)
        .setTag("tag")
        .setTimestampMillis(1_234_567_890_123L)
        .setVibrate(new int[] {1, 2})
        .putCustomData("customKey", "custom")
        .build();
  }

  static Aps aps() {
    return Aps.builder()
        .setAlert(
            ApsAlert.builder()
                .setTitle("Apple title")
                .setSubtitle("Subtitle")
                .setBody("Apple body")
                .setLocalizationKey("loc")
                .addLocalizationArg("a")
                .setTitleLocalizationKey("title_loc")
                .addTitleLocalizationArg("b")
                .setSubtitleLocalizationKey("subtitle_loc")
                .addSubtitleLocalizationArg("c")
                .setActionLocalizationKey("action")
                .setLaunchImage("launch")
                .build())
        .setBadge(3)
        .setSound(CriticalSound.builder().setCritical(true).setName("alarm").setVolume(0.5).build())
        .setContentAvailable(true)
        .setMutableContent(true)
        .setCategory("category")
        .setThreadId("thread")
        .putCustomData("own", 1)
        .build();
  }
}
