// The audio thread's half of the phone: a microphone in pieces of 20 ms, and a speaker that tells what it played.
// Both sides are 24 kHz PCM16; where the device runs at another rate it is changed here, by straight lines.

const RATE = 24000;
const FRAME = RATE / 50;
const JITTER = RATE * 0.06; // what is waited for before a talk spurt begins, if it does not come at once
const JITTER_S = 0.06;

class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / RATE;
    this.at = 0; // where the next sample of ours lies, in samples of the device behind this.last
    this.last = 0;
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.energy = 0;
    this.on = true;
    this.port.onmessage = ({ data }) => { this.on = data !== "stop"; };
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return this.on;
    for (; this.at < samples.length; this.at += this.step) {
      const index = Math.floor(this.at);
      const before = index ? samples[index - 1] : this.last;
      this.put(before + (samples[index] - before) * (this.at - index));
    }
    this.at -= samples.length;
    this.last = samples[samples.length - 1];
    return this.on;
  }

  put(sample) {
    const value = Math.max(-1, Math.min(1, sample));
    this.frame[this.filled++] = Math.round(value * 32767);
    this.energy += value * value;
    if (this.filled < FRAME) return;
    const audio = this.frame.buffer;
    this.port.postMessage({ audio, level: Math.sqrt(this.energy / FRAME) }, [audio]);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.energy = 0;
  }
}

class Speaker extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = RATE / sampleRate;
    this.pieces = []; // Int16Array, or the name of a mark
    this.at = 0; // in the first piece
    this.waiting = 0; // samples in all pieces
    this.playing = false;
    this.firstAt = 0;
    this.energy = 0;
    this.blocks = 0;
    this.total = 0; // samples played
    this.port.onmessage = ({ data }) => this.take(data);
  }

  get playedMs() { return (1000 * this.total) / RATE; }

  take(data) {
    if (data.clear) {
      this.port.postMessage({ cleared: true, playedMs: this.playedMs });
      this.pieces = [];
      this.at = this.waiting = 0;
      this.playing = false;
      return;
    }
    if (data.mark !== undefined) {
      this.pieces.push(data.mark);
      if (!this.waiting) this.marks();
      return;
    }
    const audio = new Int16Array(data.audio);
    if (!this.playing && !this.waiting) this.firstAt = currentTime;
    this.pieces.push(audio);
    this.waiting += audio.length;
  }

  process(_inputs, [output]) {
    const left = output[0];
    if (!this.playing && this.waiting && (this.waiting >= JITTER || currentTime - this.firstAt >= JITTER_S)) {
      this.playing = true;
      this.port.postMessage({ started: true, delay: currentTime - this.firstAt });
    }
    let energy = 0;
    if (this.playing) {
      for (let index = 0; index < left.length; index++) {
        const sample = this.next();
        left[index] = sample;
        energy += sample * sample;
      }
      if (!this.waiting) this.playing = false;
    }
    for (const channel of output.slice(1)) channel.set(left);
    this.energy += energy / left.length;
    if (++this.blocks === 16) {
      this.port.postMessage({ level: Math.sqrt(this.energy / 16), playedMs: this.playedMs });
      this.energy = this.blocks = 0;
    }
    return true;
  }

  next() {
    this.marks();
    const piece = this.pieces[0];
    if (!piece) return 0;
    const index = Math.floor(this.at);
    const sample = piece[index] / 32768;
    const after = index + 1 < piece.length ? piece[index + 1] / 32768 : sample;
    const value = sample + (after - sample) * (this.at - index);
    this.at += this.step;
    this.total += this.step;
    if (this.at >= piece.length) {
      this.at -= piece.length;
      this.waiting -= piece.length;
      this.pieces.shift();
      this.marks();
    }
    return value;
  }

  marks() {
    while (typeof this.pieces[0] === "string") {
      this.port.postMessage({ played: this.pieces.shift(), playedMs: this.playedMs });
    }
  }
}

registerProcessor("microphone", Microphone);
registerProcessor("speaker", Speaker);
