// The microphone and the speaker of one call.

import { Trouble } from "./trouble.js";

const WANTED = { echoCancellation: true, noiseSuppression: true, autoGainControl: false, channelCount: 1 };

/** Ask for the microphone. Throws Trouble. */
export async function openMicrophone() {
  if (!window.isSecureContext) throw new Trouble("insecure");
  if (!navigator.mediaDevices?.getUserMedia) throw new Trouble("no_microphone");
  if (!window.AudioWorkletNode) throw new Trouble("no_worklet");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: WANTED });
  } catch (error) {
    const refused = error.name === "NotAllowedError" || error.name === "SecurityError";
    throw new Trouble(refused ? "refused" : error.name === "NotReadableError" ? "taken" : "no_microphone");
  }
}

/** Sound in both directions. `on` has audio(buffer), played(mark), delay(ms), started(), levels(mine, theirs), unplugged(). */
export class Sound {
  constructor(stream, on) {
    this.stream = stream;
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
    await this.context.audioWorklet.addModule(new URL("./worklets.js", import.meta.url));
    this.microphone = new AudioWorkletNode(this.context, "microphone", { numberOfOutputs: 0 });
    this.speaker = new AudioWorkletNode(this.context, "speaker", { numberOfInputs: 0, outputChannelCount: [1] });
    this.microphone.port.onmessage = ({ data }) => {
      this.mine = data.level;
      this.on.audio(data.audio);
    };
    this.speaker.port.onmessage = ({ data }) => this.heard(data);
    source.connect(this.microphone);
    this.speaker.connect(this.context.destination);
    for (const track of this.stream.getTracks()) track.addEventListener("ended", () => this.on.unplugged());
  }

  /** From the arrival of audio to the ear. */
  get delayMs() { return this.waitMs + this.outputMs; }

  /** What the device keeps, and plays even when cleared: from the moment audio leaves the worklet to the ear. */
  get outputMs() {
    return 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
  }

  heard(data) {
    if (data.played !== undefined) {
      setTimeout(() => this.on.played(data.played), this.outputMs);
    } else if (data.started) {
      this.waitMs = 1000 * data.delay;
      this.tellDelay();
      this.on.started();
    } else {
      this.theirs = data.level;
      this.playedMs = data.playedMs;
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

  play(buffer) { this.speaker.port.postMessage({ audio: buffer }, [buffer]); }
  mark(name) { this.speaker.port.postMessage({ mark: name }); }
  clear() { this.speaker.port.postMessage({ clear: true }); }

  close() {
    this.microphone?.port.postMessage("stop");
    for (const track of this.stream.getTracks()) track.stop();
    this.context?.close();
  }
}
