// One call's connections to /browser-stream (docs/browser-stream.md): numbered, acknowledged, made good when broken.

import { Trouble, meaningOf } from "./trouble.js";

const VERSION = 1;
const SILENT_MS = 3000;
const PAUSES_MS = [100, 300, 600, 1000, 1500];
const MOST_BUFFERED = 2 * 1024 * 1024; // then the microphone is closed (WB-6),
const FEW_BUFFERED = 64 * 1024; // and opened again
const MOST_KEPT = 700; // 14 s of microphone: what the call waits for us, and a little

/** `on` has welcome(message), message(message), audio(buffer), state("talking"|"reconnecting"), full(is), over(trouble, detail). */
export class Line {
  constructor(url, token, format, on) {
    this.base = this.url = url;
    this.on = on;
    this.opening = { type: "hello", token, version: VERSION, format };
    this.sent = [];
    this.acknowledged = 0;
    this.received = 0;
    this.tries = 0;
    this.closed = false;
    this.back = [];
    this.full = false;
    this.connect();
  }

  connect() {
    const socket = new WebSocket(this.url, "call-agent.v1");
    this.socket = socket;
    this.ready = false;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => socket.send(JSON.stringify({ ...this.opening, received: this.received }));
    socket.onmessage = ({ data }) => socket === this.socket && this.take(data);
    socket.onclose = ({ code, reason }) => socket === this.socket && this.lost(code, reason);
    this.heard = performance.now();
    clearInterval(this.beat);
    this.beat = setInterval(() => this.tick(), 1000);
  }

  tick() {
    if (performance.now() - this.heard > SILENT_MS) {
      const silent = this.socket;
      this.lost(1006, "");
      silent.close();
    } else if (this.ready) {
      this.isFull();
      this.socket.send(JSON.stringify({ type: "ping", received: this.received, sent_ms: performance.now(), first_word_ms: this.firstWordMs || 0 }));
    }
  }

  take(data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      this.received++;
      this.on.audio(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "welcome") this.welcome(message);
    else if (message.type === "pong") {
      this.acknowledge(message.received);
      this.roundTripMs = performance.now() - message.sent_ms;
    } else {
      this.received++;
      this.on.message(message);
    }
  }

  welcome(message) {
    this.acknowledge(message.received);
    this.opening = { type: "resume", call: message.call, token: message.token };
    this.url = new URL(message.path, this.base).href; // the process that has the call
    this.window = message.window_s * 1000;
    for (const kept of this.sent) this.socket.send(kept);
    this.ready = true;
    this.tries = 0;
    if (this.lostAt) this.back.push(performance.now() - this.lostAt);
    this.lostAt = 0;
    this.on.state("talking");
    this.on.welcome(message);
  }

  acknowledge(count) {
    const fresh = Math.min(count - this.acknowledged, this.sent.length);
    if (fresh > 0) {
      this.sent.splice(0, fresh);
      this.acknowledged += fresh;
    }
  }

  /** Send a message of the call: now, or on the next connection. */
  send(message) {
    if (this.closed) return;
    const isAudio = message instanceof ArrayBuffer;
    if (isAudio && this.isFull()) return;
    const raw = isAudio ? message : JSON.stringify(message);
    this.sent.push(raw);
    if (this.ready) this.socket.send(raw);
    else if (this.sent.length > MOST_KEPT) this.end("lost");
  }

  /** Whether the network takes no more audio, until it has caught up. */
  isFull() {
    const full = this.socket.bufferedAmount > (this.full ? FEW_BUFFERED : MOST_BUFFERED);
    if (full !== this.full) this.on.full((this.full = full));
    return full;
  }

  lost(code, reason) {
    if (this.closed) return;
    clearInterval(this.beat);
    this.ready = false;
    const meaning = meaningOf(code);
    const welcomed = this.opening.type === "resume";
    if (meaning !== undefined) return this.end(meaning, reason);
    if (!welcomed) return this.end("unreachable", reason);
    this.lostAt ||= performance.now();
    if (performance.now() - this.lostAt > this.window) return this.end("lost", reason);
    this.on.state("reconnecting");
    this.retry = setTimeout(() => this.connect(), PAUSES_MS[Math.min(this.tries++, PAUSES_MS.length - 1)]);
  }

  hangUp() {
    this.send({ type: "hangup" });
    setTimeout(() => this.end(""), 1500); // the server closes before, with its last word
  }

  end(trouble, detail = "") {
    if (this.closed) return;
    this.closed = true;
    clearInterval(this.beat);
    clearTimeout(this.retry);
    this.socket.close(1000);
    this.on.over(trouble, detail);
  }
}

/** A token for one call, and the formats that the server takes. Throws Trouble. */
export async function askForToken(base, tenant) {
  let answer;
  try {
    answer = await fetch(new URL("browser/token", base), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ tenant }),
    });
  } catch {
    throw new Trouble("unreachable");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.status === 404) throw new Trouble("nobody");
  if (answer.status === 429) throw new Trouble("often");
  if (!answer.ok) throw new Trouble("forbidden", body.detail || "");
  return body;
}
