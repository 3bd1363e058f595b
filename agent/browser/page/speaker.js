// The two speakers. Both take play(buffer), mark(name) and clear(), and tell `heard` what the worklet tells:
// { started, delay } when a talk spurt begins, { played } at a mark, { level, playedMs } now and then.

import { levelOf } from "./recorder.js";

const RATE = 24000;
const JITTER_S = 0.06;

export function workletSpeaker(context, heard) {
  const node = new AudioWorkletNode(context, "speaker", { numberOfInputs: 0, outputChannelCount: [1] });
  node.port.onmessage = ({ data }) => heard(data);
  node.connect(context.destination);
  return {
    play: (buffer) => node.port.postMessage({ audio: buffer }, [buffer]),
    mark: (name) => node.port.postMessage({ mark: name }),
    clear: () => node.port.postMessage({ clear: true }),
    close: () => {},
  };
}

/** Without AudioWorklet: each piece is timed to begin where the one before ends. */
export class ScheduledSpeaker {
  constructor(context, heard) {
    this.context = context;
    this.heard = heard;
    this.out = new GainNode(context);
    this.out.connect(context.destination);
    this.level = levelOf(context, this.out);
    this.pieces = []; // { source, from, to }, or { mark, to }
    this.until = 0;
    this.playedS = 0; // of pieces that are over
    this.beats = 0;
    this.clock = setInterval(() => this.beat(), 20);
  }

  play(buffer) {
    const samples = Float32Array.from(new Int16Array(buffer), (sample) => sample / 32768);
    const now = this.context.currentTime;
    if (this.until <= now) {
      this.until = now + JITTER_S;
      setTimeout(() => this.heard({ started: true, delay: JITTER_S }), 1000 * JITTER_S);
    }
    const audio = new AudioBuffer({ length: samples.length, sampleRate: RATE });
    audio.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(this.context, { buffer: audio });
    source.connect(this.out);
    source.start(this.until);
    const from = this.until;
    this.until += audio.duration;
    this.pieces.push({ source, from, to: this.until });
  }

  mark(name) { this.pieces.push({ mark: name, to: this.until }); }

  clear() {
    this.playedS = this.played();
    for (const { source } of this.pieces) source?.stop();
    this.pieces = [];
    this.until = 0;
  }

  played() {
    const now = this.context.currentTime;
    const [first] = this.pieces.filter(({ source }) => source);
    return this.playedS + (first ? Math.max(0, Math.min(now, first.to) - first.from) : 0);
  }

  beat() {
    while (this.pieces.length && this.pieces[0].to <= this.context.currentTime) {
      const { source, mark, from, to } = this.pieces.shift();
      if (source) this.playedS += to - from;
      else this.heard({ played: mark });
    }
    if (++this.beats % 5 === 0) this.heard({ level: this.level(), playedMs: 1000 * this.played() });
  }

  close() { clearInterval(this.clock); }
}
