// The microphone in low bandwidth: WebM/Opus in pieces of 250 ms, a sixteenth of what PCM takes.

const KIND = "audio/webm;codecs=opus";
const FORMAT = "webm/opus"; // the server's name for it
const REMEMBERED = "call-agent.low-bandwidth";

export const canRecord = () => Boolean(window.MediaRecorder?.isTypeSupported(KIND));

/** The format to call in: `low` is wanted. Undefined: nothing that both this browser and the server can do. */
export function formatFor(low, formats = ["pcm16"]) {
  const recorded = canRecord() && formats.includes(FORMAT) ? FORMAT : undefined;
  const plain = window.AudioWorkletNode ? "pcm16" : undefined;
  return low ? recorded || plain : plain || recorded;
}

/** Have a checkbox say whether low bandwidth is wanted; remembered where the browser allows it. */
export function keepChoice(box) {
  box.closest("label").hidden = !canRecord() || !window.AudioWorkletNode; // there is a choice
  try {
    box.checked = localStorage.getItem(REMEMBERED) === "1";
    box.addEventListener("change", () => localStorage.setItem(REMEMBERED, box.checked ? "1" : "0"));
  } catch {
    // A frame of another site may have nothing to remember with.
  }
}

/** Records a stream; `on` gets the pieces in order. Each recorder begins a WebM of its own. */
export class Recorder {
  constructor(stream, on) {
    this.on = on;
    this.recorder = new MediaRecorder(stream, { mimeType: KIND, audioBitsPerSecond: 24000 });
    let before = Promise.resolve();
    this.recorder.addEventListener("dataavailable", ({ data }) => {
      before = before.then(() => data.arrayBuffer()).then((piece) => piece.byteLength && this.on?.(piece));
    });
    this.recorder.start(250);
  }

  /** Nothing more is given out, what is recorded and not given out yet included. */
  stop() {
    this.on = undefined;
    if (this.recorder.state !== "inactive") this.recorder.stop();
  }
}

/** How loud `source` is: a function to ask, from 0 to 1. */
export function levelOf(context, source) {
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  const samples = new Float32Array(analyser.fftSize);
  source.connect(analyser);
  return () => {
    analyser.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
  };
}
