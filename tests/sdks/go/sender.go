// Carries out a plan with the official Go SDK, and reports what the SDK made of it.
//
//	sender PLAN.json
//
// The plan says where the project is, and the steps; the report on standard output has one outcome
// a step. Nothing of the SDK is changed: how it makes connections is one of its options.
package main

import (
	"context"
	"encoding/json"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/errorutils"
	"firebase.google.com/go/v4/messaging"
	"golang.org/x/oauth2"
	"google.golang.org/api/option"
)

type plan struct {
	URL          string `json:"url"`
	ProjectID    string `json:"project_id"`
	ServiceToken string `json:"service_token"`
	Steps        []step `json:"steps"`
}

type step struct {
	Do      string   `json:"do"`
	Message string   `json:"message"`
	To      string   `json:"to"`
	Topic   string   `json:"topic"`
	Token   string   `json:"token"`
	Tokens  []string `json:"tokens"`
	Text    string   `json:"text"`
	DryRun  bool     `json:"dry_run"`
}

type outcome struct {
	Name  string `json:"name,omitempty"`
	Error string `json:"error,omitempty"`
	Text  string `json:"text,omitempty"`
}

// Of a call for many tokens and one topic.
type changed struct {
	SuccessCount int      `json:"success_count"`
	FailureCount int      `json:"failure_count"`
	Errors       []reason `json:"errors"`
}

type reason struct {
	Index  int    `json:"index"`
	Reason string `json:"reason"`
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	check(err)
	var p plan
	check(json.Unmarshal(text, &p))
	ctx := context.Background()
	service := oauth2.StaticTokenSource(&oauth2.Token{AccessToken: p.ServiceToken})
	client := &http.Client{Transport: &oauth2.Transport{Source: service, Base: wayTo(p.URL)}}
	app, err := firebase.NewApp(ctx, &firebase.Config{ProjectID: p.ProjectID}, option.WithHTTPClient(client))
	check(err)
	sender, err := app.Messaging(ctx)
	check(err)
	outcomes := []any{}
	for _, s := range p.Steps {
		outcomes = append(outcomes, carryOut(ctx, sender, s))
	}
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{"sdk": firebase.Version, "outcomes": outcomes}))
}

// All calls lead to Herald: told, to its URL; by name, to its port, as a name server would. Go asks
// no C library for names, so ../by_name.c cannot do that here.
func wayTo(url string) http.RoundTripper {
	if url != "" {
		return toHerald(strings.TrimPrefix(url, "http://"))
	}
	named := http.DefaultTransport.(*http.Transport).Clone()
	named.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		switch address {
		case "fcm.googleapis.com:443", "iid.googleapis.com:443":
			address = "127.0.0.1:" + os.Getenv("BY_NAME")
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return named
}

type toHerald string

func (host toHerald) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.URL.Scheme, request.URL.Host, request.Host = "http", string(host), ""
	return http.DefaultTransport.RoundTrip(request)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func carryOut(ctx context.Context, client *messaging.Client, s step) any {
	var batch *messaging.BatchResponse
	var err error
	switch s.Do {
	case "send":
		send := client.Send
		if s.DryRun {
			send = client.SendDryRun
		}
		name, err := send(ctx, message(s))
		return outcomeOf(name, err)
	case "subscribe", "unsubscribe":
		change := client.SubscribeToTopic
		if s.Do == "unsubscribe" {
			change = client.UnsubscribeFromTopic
		}
		answer, err := change(ctx, s.Tokens, s.Topic)
		if err != nil {
			return outcomeOf("", err)
		}
		errors := []reason{}
		for _, it := range answer.Errors {
			errors = append(errors, reason{it.Index, it.Reason})
		}
		return changed{answer.SuccessCount, answer.FailureCount, errors}
	case "send_each":
		var messages []*messaging.Message
		for index, token := range s.Tokens {
			messages = append(messages, message(step{Message: "text", Token: token, Text: strconv.Itoa(index)}))
		}
		send := client.SendEach
		if s.DryRun {
			send = client.SendEachDryRun
		}
		batch, err = send(ctx, messages)
	case "multicast":
		multicast := &messaging.MulticastMessage{Tokens: s.Tokens, Data: map[string]string{"text": "to all"}}
		batch, err = client.SendEachForMulticast(ctx, multicast)
	default:
		log.Fatal(s.Do)
	}
	if err != nil {
		return outcomeOf("", err)
	}
	outcomes := []outcome{}
	for _, response := range batch.Responses {
		outcomes = append(outcomes, outcomeOf(response.MessageID, response.Error))
	}
	return outcomes
}

// How a user of the SDK tells errors apart: by the predicates, the more special ones first.
func outcomeOf(name string, err error) outcome {
	if err == nil {
		return outcome{Name: name}
	}
	for _, it := range []struct {
		name string
		is   func(error) bool
	}{
		{"messaging.IsUnregistered", messaging.IsUnregistered},
		{"messaging.IsSenderIDMismatch", messaging.IsSenderIDMismatch},
		{"messaging.IsInvalidArgument", messaging.IsInvalidArgument},
		{"messaging.IsQuotaExceeded", messaging.IsQuotaExceeded},
		{"messaging.IsUnavailable", messaging.IsUnavailable},
		{"messaging.IsThirdPartyAuthError", messaging.IsThirdPartyAuthError},
		{"errorutils.IsUnauthenticated", errorutils.IsUnauthenticated},
		{"errorutils.IsPermissionDenied", errorutils.IsPermissionDenied},
		{"errorutils.IsInvalidArgument", errorutils.IsInvalidArgument},
		{"errorutils.IsResourceExhausted", errorutils.IsResourceExhausted},
	} {
		if it.is(err) {
			return outcome{Error: it.name, Text: err.Error()}
		}
	}
	return outcome{Error: "none", Text: err.Error()}
}

func message(s step) *messaging.Message {
	data := map[string]string{"text": s.Text}
	switch s.Message {
	case "whole":
		return whole(s.Token)
	case "topic":
		return &messaging.Message{Topic: s.To, Data: data}
	case "condition":
		return &messaging.Message{Condition: s.To, Data: data}
	}
	now, minute := time.Duration(0), time.Minute
	android := map[string]*messaging.AndroidConfig{
		"now_or_never": {TTL: &now, Priority: "normal"},
		"collapsible":  {CollapseKey: "score", TTL: &minute, Priority: "normal"},
	}
	return &messaging.Message{
		Token:   s.Token,
		Data:    data,
		Android: android[s.Message],
	}
}

// Every field that the SDK can express.
func whole(token string) *messaging.Message {
	hour := 3600*time.Second + 500*time.Millisecond
	event := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	count, badge, timestamp := 7, 3, int64(1234567890123)
	return &messaging.Message{
		Token:        token,
		Data:         map[string]string{"key": "value", "empty": "", "unicode": "Привет \U0001f44b", "quoted": "a\"\\\n"},
		Notification: &messaging.Notification{Title: "Title", Body: "Body", ImageURL: "https://example.com/image.png"},
		Android: &messaging.AndroidConfig{
			CollapseKey:           "collapse",
			Priority:              "high",
			TTL:                   &hour,
			RestrictedPackageName: "com.example.app",
			Data:                  map[string]string{"android": "data"},
			FCMOptions:            &messaging.AndroidFCMOptions{AnalyticsLabel: "android_label"},
			DirectBootOK:          true,
			Notification: &messaging.AndroidNotification{
				Title:                 "Android title",
				Body:                  "Android body",
				Icon:                  "icon",
				Color:                 "#aBcDeF",
				Sound:                 "default",
				Tag:                   "tag",
				ClickAction:           "OPEN",
				BodyLocKey:            "body_key",
				BodyLocArgs:           []string{"1", "2"},
				TitleLocKey:           "title_key",
				TitleLocArgs:          []string{"3"},
				ChannelID:             "channel",
				ImageURL:              "https://example.com/android.png",
				Ticker:                "ticker",
				Sticky:                true,
				EventTimestamp:        &event,
				LocalOnly:             true,
				Priority:              messaging.PriorityMax,
				VibrateTimingMillis:   []int64{100, 2500},
				DefaultVibrateTimings: true,
				DefaultSound:          true,
				LightSettings: &messaging.LightSettings{
					Color: "#11223344", LightOnDurationMillis: 200, LightOffDurationMillis: 3000,
				},
				DefaultLightSettings: true,
				Visibility:           messaging.VisibilitySecret,
				NotificationCount:    &count,
				Proxy:                messaging.ProxyIfPriorityLowered,
			},
		},
		Webpush: &messaging.WebpushConfig{
			Headers: map[string]string{"TTL": "60", "Urgency": "high"},
			Data:    map[string]string{"web": "data"},
			Notification: &messaging.WebpushNotification{
				Actions:            []*messaging.WebpushNotificationAction{{Action: "act", Title: "Act", Icon: "icon"}},
				Title:              "Web title",
				Body:               "Web body",
				Icon:               "https://example.com/icon.png",
				Badge:              "badge",
				Direction:          "rtl",
				Data:               map[string]any{"any": []any{"thing", 1, nil}},
				Image:              "https://example.com/web.png",
				Language:           "fa",
				Renotify:           true,
				RequireInteraction: true,
				Silent:             true,
				Tag:                "tag",
				TimestampMillis:    &timestamp,
				Vibrate:            []int{1, 2},
				CustomData:         map[string]any{"customKey": "custom"},
			},
			FCMOptions: &messaging.WebpushFCMOptions{Link: "https://example.com/link"},
		},
		APNS: &messaging.APNSConfig{
			Headers: map[string]string{"apns-priority": "10"},
			Payload: &messaging.APNSPayload{
				Aps: &messaging.Aps{
					Alert: &messaging.ApsAlert{
						Title:           "Apple title",
						SubTitle:        "Subtitle",
						Body:            "Apple body",
						LocKey:          "loc",
						LocArgs:         []string{"a"},
						TitleLocKey:     "title_loc",
						TitleLocArgs:    []string{"b"},
						SubTitleLocKey:  "subtitle_loc",
						SubTitleLocArgs: []string{"c"},
						ActionLocKey:    "action",
						LaunchImage:     "launch",
					},
					Badge:            &badge,
					CriticalSound:    &messaging.CriticalSound{Critical: true, Name: "alarm", Volume: 0.5},
					ContentAvailable: true,
					MutableContent:   true,
					Category:         "category",
					ThreadID:         "thread",
					CustomData:       map[string]any{"own": 1},
				},
				CustomData: map[string]any{"customKey": "custom"},
			},
			FCMOptions:        &messaging.APNSFCMOptions{AnalyticsLabel: "apple_label", ImageURL: "https://example.com/apple.png"},
			LiveActivityToken: "live",
		},
		FCMOptions: &messaging.FCMOptions{AnalyticsLabel: "label"},
	}
}
