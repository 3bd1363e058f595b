// The microphone and the speaker of one call.

import { Recorder, canRecord, levelOf } from "./recorder.js";
import { ScheduledSpeaker, workletSpeaker } from "./speaker.js";
import { Trouble } from "./trouble.js";

const WANTED = { echoCancellation: true, noiseSuppression: true, autoGainControl: false, channelCount: 1 };

/** Ask for the microphone. Throws Trouble. */
export async function openMicrophone() {
  if (!window.isSecureContext) throw new Trouble("insecure");
  if (!navigator.mediaDevices?.getUserMedia) throw new Trouble("no_microphone");
  if (!window.AudioWorkletNode && !canRecord()) throw new Trouble("no_worklet");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: WANTED });
  } catch (error) {
    const refused = error.name === "NotAllowedError" || error.name === "SecurityError";
    throw new Trouble(refused ? "refused" : error.name === "NotReadableError" ? "taken" : "no_microphone");
  }
}

/** Sound in both directions. `on` has audio(buffer), played(mark), delay(ms), started(), levels(mine, theirs), unplugged(). */
export class Sound {
  constructor(stream, format, on) {
    this.stream = stream;
    this.format = format; // what audio(buffer) gets: "pcm16", or WebM
    this.on = on;
    this.mine = this.theirs = 0;
    this.waitMs = 0; // between the arrival of a talk spurt and its start
    this.reported = -1;
  }

  async open() {
    this.context = new AudioContext({ sampleRate: 24000, latencyHint: "interactive" });
    let source;
    try {
      source = this.context.createMediaStreamSource(this.stream);
    } catch {
      // Where a microphone of another rate cannot be had at this one, the worklets change the rate.
      await this.context.close();
      this.context = new AudioContext({ latencyHint: "interactive" });
      source = this.context.createMediaStreamSource(this.stream);
    }
    await this.context.resume();
    const heard = (data) => this.heard(data);
    if (window.AudioWorkletNode) {
      await this.context.audioWorklet.addModule(new URL("./worklets.js", import.meta.url));
      this.speaker = workletSpeaker(this.context, heard);
    } else {
      this.speaker = new ScheduledSpeaker(this.context, heard);
    }
    if (this.format === "pcm16") {
      this.microphone = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
      this.microphone.port.onmessage = ({ data }) => {
        this.mine = data.level;
        this.on.audio(data.audio);
      };
      source.connect(this.microphone);
    } else {
      this.level = levelOf(this.context, source);
    }
    this.listen(true);
    for (const track of this.stream.getTracks()) track.addEventListener("ended", () => this.on.unplugged());
  }

  /** From the arrival of audio to the ear. */
  get delayMs() { return this.waitMs + this.outputMs; }

  /** What the device keeps, and plays even when cleared: from the moment audio leaves the worklet to the ear. */
  get outputMs() {
    return 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
  }

  heard(data) {
    this.playedMs = data.playedMs ?? this.playedMs;
    if (data.played !== undefined) {
      this.on.played(data.played); // at once: a timer would be late by a second in a tab behind others
    } else if (data.started) {
      this.waitMs = 1000 * data.delay;
      this.tellDelay();
      this.on.started();
    } else if (!data.cleared) {
      this.theirs = data.level;
      if (this.level) this.mine = this.level();
      this.on.levels(this.mine, this.theirs);
    }
  }

  // What left the worklet is heard whatever comes, so that only the wait is taken off what counts as heard.
  tellDelay() {
    const delay = Math.round(this.waitMs);
    if (Math.abs(delay - this.reported) < 5) return;
    this.reported = delay;
    this.on.delay(delay);
  }

  /** Open the microphone, or close it for a while; what was recorded and not sent yet is let go. */
  listen(open) {
    for (const track of this.stream.getTracks()) track.enabled = open;
    this.recorder?.stop();
    this.recorder = open && this.format !== "pcm16" ? new Recorder(this.stream, this.on.audio) : undefined;
  }

  play(buffer) { this.speaker.play(buffer); }
  mark(name) { this.speaker.mark(name); }
  clear() { this.speaker.clear(); }

  close() {
    this.microphone?.port.postMessage("stop");
    this.recorder?.stop();
    this.speaker?.close();
    for (const track of this.stream.getTracks()) track.stop();
    this.context?.close();
  }
}
