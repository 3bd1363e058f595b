// The page: one phone, one call at a time.

import { Sound, openMicrophone } from "./audio.js";
import { Line, askForToken } from "./line.js";
import { formatFor, keepChoice } from "./recorder.js";
import { Captions, clock, drawTimeline, showLatency } from "./telling.js";
import { Trouble, endOf } from "./trouble.js";
import { directionOf, wordsFor } from "./words.js";

const root = document.documentElement;
const at = (id) => document.getElementById(id);
const asked = new URLSearchParams(location.search);
const base = new URL(location.pathname.replace(/widget$/, ""), location.href);
const LIVE = ["connecting", "talking", "reconnecting"];

let language = asked.get("lang") || (navigator.language.startsWith("he") ? "he" : "en");
let words = wordsFor(language);
let trouble = "";
let detail = "";
let call = null;
let last = null; // the call whose times and timeline are shown
const captions = new Captions(at("captions"), at("announced"));

function speak() {
  words = wordsFor(language);
  root.lang = language;
  root.dir = directionOf(language);
  document.title = words.title;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = words[element.dataset.word];
  at("language").textContent = words.language;
  at("language").lang = language === "he" ? "en" : "he";
  at("theme").setAttribute("aria-label", words.theme);
  at("keys").setAttribute("aria-label", words.keys);
  for (const key of at("keys").children) key.setAttribute("aria-label", `${words.key} ${key.textContent}`);
  captions.words = words;
  captions.draw();
  drawCall();
  show(root.dataset.call);
}

/** A button's text, and a name that begins with the English word in every language. */
function label(button, text, english) {
  button.textContent = text;
  button.setAttribute("aria-label", text.startsWith(english) ? text : `${english} – ${text}`);
}

function show(state) {
  const live = LIVE.includes(state);
  root.dataset.call = state;
  at("state").textContent = words[state];
  at("trouble").textContent = trouble ? [words[trouble] || trouble, detail].filter(Boolean).join(" ") : "";
  at("low").disabled = live;
  at("call").hidden = live;
  label(at("call"), state === "idle" ? words.call : words.again, "Call");
  at("hangup").hidden = !live;
  label(at("hangup"), words.hangUp, "Hang up");
  at("said").hidden = !live && !captions.turns.size;
}

/** What the last call took and, once it is over, how it went in time. */
function drawCall() {
  at("times").hidden = !last?.latencies.length && !last?.firstWord;
  at("after").hidden = !last || last === call || !last.turns.size;
  if (!last) return;
  showLatency(at("latency"), last.latencies, words);
  const first = document.createElement("bdi");
  first.textContent = `${Math.round(last.firstWord)} ms`;
  at("first-word").replaceChildren(...(last.firstWord ? [`${words.firstWord} `, first] : []));
  if (!at("after").hidden) drawTimeline(at("timeline"), [...last.turns.values()], words);
}

function tick() {
  if (call?.talkingSince) at("clock").textContent = clock(performance.now() - call.talkingSince);
}

function move(state) {
  const focused = document.activeElement;
  show(state);
  if (focused === at("call") || focused === at("hangup")) (at("call").hidden ? at("hangup") : at("call")).focus();
}

async function begin() {
  if (call) return;
  if (trouble === "release") return location.reload();
  const clicked = performance.now();
  const mine = (call = last = { turns: new Map(), latencies: [] });
  trouble = detail = "";
  captions.clear();
  at("clock").textContent = at("pressed").textContent = "";
  drawCall();
  move("connecting");
  try {
    const [stream, { token, formats }] = await Promise.all([openMicrophone(), askForToken(base, asked.get("tenant") || "")]);
    const format = formatFor(at("low").checked, formats);
    if (call !== mine || !format) stream.getTracks().forEach((track) => track.stop());
    if (call !== mine) return;
    if (!format) throw new Trouble("no_low");
    if (at("low").checked && format === "pcm16") trouble = "not_low";
    mine.sound = new Sound(stream, format, {
      audio: (buffer) => mine.line?.send(buffer),
      played: (mark) => { mine.line?.send({ type: "played", mark }); },
      delay: (ms) => mine.line?.send({ type: "delay", ms }),
      levels: (ours, theirs) => { at("mine").value = meterOf(ours); at("theirs").value = meterOf(theirs); },
      started: () => {
        if (mine.firstWord) return;
        mine.firstWord = performance.now() - clicked + mine.sound.outputMs;
        root.dataset.firstWordMs = mine.line.firstWordMs = Math.round(mine.firstWord);
        drawCall();
      },
      unplugged: () => finish(mine, "unplugged"),
    });
    await mine.sound.open();
    if (call !== mine) return mine.sound.close();
    mine.line = new Line(socketUrl(), token, format, {
      welcome: () => { mine.talkingSince ||= performance.now(); },
      state: (state) => call === mine && move(state),
      audio: (buffer) => mine.sound.play(buffer),
      message: (message) => told(mine, message),
      full: (is) => {
        mine.sound.listen(!is);
        trouble = is ? "full" : "";
        show(root.dataset.call);
      },
      over: (what, why) => finish(mine, what, why),
    });
  } catch (error) {
    finish(mine, error instanceof Trouble ? error.trouble : "broken", error.detail || "");
    if (!(error instanceof Trouble)) console.error(error);
  }
}

function told(mine, message) {
  switch (message.type) {
    case "mark": return mine.sound.mark(message.name);
    case "clear": return mine.sound.clear();
    case "caption":
      mine.turns.set(message.id, message);
      return captions.put(message);
    case "latency": {
      mine.latencies.push({ ...message, way_ms: Math.round((mine.line.roundTripMs || 0) + mine.sound.delayMs) });
      return drawCall();
    }
    case "ended": mine.end = endOf(message.outcome);
  }
}

function finish(mine, what, why = "") {
  if (call !== mine) return;
  what ||= mine.end || "";
  call = null;
  mine.line?.send({ type: "hangup" }); // what went wrong here is no broken connection: nobody comes back
  mine.line?.end("");
  mine.sound?.close();
  root.dataset.playedMs = Math.round(mine.sound?.playedMs || 0);
  at("mine").value = at("theirs").value = 0;
  trouble = what;
  detail = what === "forbidden" ? why : "";
  drawCall();
  move(!what || what.startsWith("end_") ? "ended" : "error");
}

function press(digit) {
  if (!call?.line) return;
  call.line.send({ type: "key", digit });
  at("pressed").textContent += digit;
}

function meterOf(level) { return Math.max(0, Math.min(1, 1 + Math.log10(level + 1e-6) / 2.5)); }

function socketUrl() {
  const url = new URL("browser-stream", base);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = key;
  button.addEventListener("click", () => press(key));
  at("keys").append(button);
}
document.addEventListener("keydown", ({ key, ctrlKey, metaKey, altKey }) => {
  if (/^[0-9*#]$/.test(key) && !ctrlKey && !metaKey && !altKey) press(key);
});
at("call").addEventListener("click", begin);
at("hangup").addEventListener("click", () => (call?.line ? call.line.hangUp() : call && finish(call, "")));
at("language").addEventListener("click", () => { language = language === "he" ? "en" : "he"; speak(); });
at("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
keepChoice(at("low"));
setInterval(tick, 1000);
addEventListener("resize", drawCall);
addEventListener("pagehide", () => call?.line?.send({ type: "hangup" }));
if (location.pathname.endsWith("/widget")) root.dataset.widget = "";
for (const [name, colour] of [["go", asked.get("go")], ["ground", asked.get("ground")]]) {
  if (/^#[0-9a-f]{3,8}$/i.test(colour || "")) root.style.setProperty(`--${name}`, colour);
}
speak();
