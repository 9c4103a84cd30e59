// Carries out a plan with the official Node SDK, and reports what the SDK made of it.
//
//     node sender.js PLAN.json
//
// The plan says where the project is, and the steps; the report on standard output has one outcome
// a step. Nothing of the SDK is changed: by name (see ../README.md) nothing here knows of Herald either.
'use strict';

const fs = require('fs');
const https = require('https');
const net = require('net');
const path = require('path');
const { createRequire } = require('module');

const plan = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
// The SDK is installed outside of the source tree.
const installed = createRequire(path.join(process.env.HERALD_SDK, 'node_modules', 'x.js'));
const { initializeApp, SDK_VERSION } = installed(`${plan.package}/app`);
const { getMessaging } = installed(`${plan.package}/messaging`);

const options = {
  credential: {
    getAccessToken: async () => ({ access_token: plan.service_token, expires_in: 3600 }),
  },
  projectId: plan.project_id,
};
if (plan.url) {
  // By option: all connections lead to Herald, without TLS.
  const { hostname, port } = new URL(plan.url);
  options.httpAgent = new https.Agent({ keepAlive: true });
  options.httpAgent.createConnection = () => net.connect(port, hostname);
}
const messaging = getMessaging(initializeApp(options));
if (plan.legacy_transport) {
  messaging.enableLegacyHttpTransport();
}

// Every field that the SDK can express.
const whole = (token) => ({
  token,
  data: { key: 'value', empty: '', unicode: 'Привет \u{1f44b}', quoted: 'a"\\\n' },
  notification: { title: 'Title', body: 'Body', imageUrl: 'https://example.com/image.png' },
  android: {
    collapseKey: 'collapse',
    priority: 'high',
    ttl: 3600500,
    restrictedPackageName: 'com.example.app',
    data: { android: 'data' },
    fcmOptions: { analyticsLabel: 'android_label' },
    directBootOk: true,
    bandwidthConstrainedOk: true,
    restrictedSatelliteOk: true,
    notification: {
      title: 'Android title',
      body: 'Android body',
      icon: 'icon',
      color: '#aBcDeF',
      sound: 'default',
      tag: 'tag',
      clickAction: 'OPEN',
      bodyLocKey: 'body_key',
      bodyLocArgs: ['1', '2'],
      titleLocKey: 'title_key',
      titleLocArgs: ['3'],
      channelId: 'channel',
      imageUrl: 'https://example.com/android.png',
      ticker: 'ticker',
      sticky: true,
      eventTimestamp: new Date('2026-01-02T03:04:05.678Z'),
      localOnly: true,
      priority: 'max',
      vibrateTimingsMillis: [100, 2500],
      defaultVibrateTimings: false,
      defaultSound: true,
      lightSettings: { color: '#11223344', lightOnDurationMillis: 200, lightOffDurationMillis: 3000 },
      defaultLightSettings: false,
      visibility: 'secret',
      notificationCount: 7,
      proxy: 'if_priority_lowered',
    },
  },
  webpush: {
    headers: { TTL: '60', Urgency: 'high' },
    data: { web: 'data' },
    notification: {
      title: 'Web title',
      body: 'Web body',
      icon: 'https://example.com/icon.png',
      actions: [{ action: 'act', title: 'Act', icon: 'icon' }],
      badge: 'badge',
      data: { any: ['thing', 1, null] },
      dir: 'rtl',
      image: 'https://example.com/web.png',
      lang: 'fa',
      renotify: true,
      requireInteraction: true,
      silent: false,
      tag: 'tag',
      timestamp: 1234567890123,
      vibrate: [1, 2],
      customKey: 'custom',
    },
    fcmOptions: { link: 'https://example.com/link' },
  },
  apns: {
    headers: { 'apns-priority': '10' },
    liveActivityToken: 'live',
    payload: {
      aps: {
        alert: {
          title: 'Apple title',
          subtitle: 'Subtitle',
          body: 'Apple body',
          locKey: 'loc',
          locArgs: ['a'],
          titleLocKey: 'title_loc',
          titleLocArgs: ['b'],
          subtitleLocKey: 'subtitle_loc',
          subtitleLocArgs: ['c'],
          actionLocKey: 'action',
          launchImage: 'launch',
        },
        badge: 3,
        sound: { critical: true, name: 'alarm', volume: 0.5 },
        contentAvailable: true,
        category: 'category',
        threadId: 'thread',
        mutableContent: true,
        own: 1,
      },
      customKey: 'custom',
    },
    fcmOptions: { analyticsLabel: 'apple_label', imageUrl: 'https://example.com/apple.png' },
  },
  fcmOptions: { analyticsLabel: 'label' },
});

const ANDROID = {
  text: undefined,
  now_or_never: { ttl: 0, priority: 'normal' },
  collapsible: { collapseKey: 'score', ttl: 60000, priority: 'normal' },
};

function message({ message: kind, token, to, text = '' }) {
  switch (kind) {
    case 'topic':
    case 'condition':
      return { [kind]: to, data: { text } };
    case 'whole':
      return whole(token);
    case 'fid':
      return { fid: token, data: { text } };
    default:
      return { token, data: { text }, ...(ANDROID[kind] && { android: ANDROID[kind] }) };
  }
}

const outcome = ({ success, messageId, error }) =>
  success ? { name: messageId } : { error: error.code, text: error.message };

const texts = (tokens) =>
  tokens.map((token, index) => ({ token, data: { text: String(index) } }));

// Tokens join or leave a topic.
async function change({ do: change, how, tokens, topic }) {
  const name = change === 'subscribe' ? 'subscribeToTopic' : 'unsubscribeFromTopic';
  const answer = await messaging[how === 'legacy' ? `${name}Legacy` : name](tokens, topic);
  return {
    success_count: answer.successCount,
    failure_count: answer.failureCount,
    errors: answer.errors.map(({ index, error }) => ({ index, reason: error.code })),
  };
}

async function carryOut(step) {
  const dryRun = step.dry_run ?? false;
  try {
    switch (step.do) {
      case 'send':
        return { name: await messaging.send(message(step), dryRun) };
      case 'send_each':
        return (await messaging.sendEach(texts(step.tokens), dryRun)).responses.map(outcome);
      case 'multicast': {
        const toAll = { tokens: step.tokens, data: { text: 'to all' } };
        return (await messaging.sendEachForMulticast(toAll, dryRun)).responses.map(outcome);
      }
      case 'subscribe':
      case 'unsubscribe':
        return await change(step);
    }
  } catch (error) {
    return { error: error.code ?? error.name, text: String(error.message) };
  }
  throw new Error(step.do);
}

(async () => {
  const outcomes = [];
  for (const step of plan.steps) {
    outcomes.push(await carryOut(step));
  }
  process.stdout.write(JSON.stringify({ sdk: SDK_VERSION, outcomes }), () => process.exit());
})();
