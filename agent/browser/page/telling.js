// What a call looks like: captions as they are heard, what each answer took, and the whole of it in time.

export class Captions {
  constructor(place) {
    this.place = place;
    this.turns = new Map();
    this.words = {};
  }

  clear() {
    this.turns.clear();
    this.place.replaceChildren();
  }

  put(turn) {
    const known = this.turns.get(turn.id);
    if (!turn.text && !known) return;
    const line = known?.line || this.add(turn);
    this.turns.set(turn.id, { turn, line });
    this.fill(line, turn);
    this.place.scrollTop = this.place.scrollHeight;
  }

  add(turn) {
    const line = document.createElement("p");
    line.className = turn.role;
    this.place.append(line);
    return line;
  }

  fill(line, turn) {
    const who = document.createElement("b");
    who.textContent = turn.role === "agent" ? this.words.agent : this.words.you;
    const said = document.createElement("bdi"); // the language of the words may not be the page's
    said.append(turn.role === "agent" ? turn.heard : turn.text);
    const parts = [who, said];
    if (turn.interrupted && turn.text.length > turn.heard.length) {
      const rest = document.createElement("del");
      rest.textContent = turn.text.startsWith(turn.heard) ? turn.text.slice(turn.heard.length) : turn.text;
      const note = document.createElement("i");
      note.textContent = ` (${this.words.interrupted})`;
      said.append(rest);
      parts.push(note);
    }
    line.replaceChildren(...parts);
  }

  draw() {
    for (const { turn, line } of this.turns.values()) this.fill(line, turn);
  }
}

export function showLatency(place, latencies, words) {
  place.replaceChildren(...latencies.map((one) => {
    const item = document.createElement("li");
    const total = one.total_ms + one.way_ms;
    item.textContent = `${total} ms = ${words.turn} ${one.turn_ms} + ${words.voice} ${one.voice_ms} + ${words.way} ${one.way_ms}`;
    return item;
  }));
}

const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

export function drawTimeline(place, turns, words) {
  const end = Math.max(1000, ...turns.map((turn) => turn.started_ms + turn.length_ms));
  const x = (ms) => (ms / end) * 1000;
  const picture = shape("svg", { viewBox: "0 0 1000 150", role: "img", "aria-label": words.timeline });
  for (const turn of turns) {
    const y = turn.role === "agent" ? 10 : 65;
    const heard = turn.role === "agent" ? turn.heard_ms : turn.length_ms;
    if (turn.length_ms > heard) {
      picture.append(shape("rect", { class: "cut", x: x(turn.started_ms), y, width: x(turn.length_ms), height: 45 }));
    }
    const bar = shape("rect", { class: turn.role, x: x(turn.started_ms), y, width: Math.max(x(heard), 1), height: 45 });
    bar.append(shape("title", {}, `${turn.role === "agent" ? words.agent : words.you}: ${turn.text}`));
    picture.append(bar);
  }
  const seconds = Math.max(1, Math.ceil(end / 8000));
  for (let second = 0; second * 1000 <= end; second += seconds) {
    picture.append(shape("text", { x: x(second * 1000), y: 140 }, `${second} s`));
  }
  place.replaceChildren(picture);
}
