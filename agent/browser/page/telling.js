// What a call looks like: captions as they are heard, what each answer took, and the whole of it in time.

function made(name, className, ...parts) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...parts);
  return element;
}

/** Captions in `place`; a turn that is over is told once to `announced`, for those who listen to the page. */
export class Captions {
  constructor(place, announced) {
    this.place = place;
    this.announced = announced;
    this.turns = new Map();
    this.words = {};
  }

  clear() {
    this.turns.clear();
    this.place.replaceChildren();
    this.announced.textContent = "";
  }

  put(turn) {
    const known = this.turns.get(turn.id);
    if (!turn.text && !known) return;
    const line = known?.line || this.add(turn);
    const one = { turn, line, told: known?.told || false };
    this.turns.set(turn.id, one);
    this.fill(line, turn);
    this.place.scrollTop = this.place.scrollHeight;
    if (!one.told && (turn.role === "caller" || turn.interrupted || turn.heard === turn.text)) {
      one.told = true;
      this.announced.textContent = line.textContent;
    }
  }

  add(turn) {
    const line = made("p", turn.role);
    this.place.append(line);
    return line;
  }

  fill(line, turn) {
    const said = made("bdi", "", turn.role === "agent" ? turn.heard : turn.text); // its language may not be the page's
    const parts = [made("b", "", `${turn.role === "agent" ? this.words.agent : this.words.you}: `), said];
    if (turn.interrupted && turn.text.length > turn.heard.length) {
      said.append(made("del", "", turn.text.startsWith(turn.heard) ? turn.text.slice(turn.heard.length) : turn.text));
      parts.push(made("i", "", ` (${this.words.interrupted})`));
    }
    line.replaceChildren(...parts);
  }

  draw() {
    for (const { turn, line } of this.turns.values()) this.fill(line, turn);
  }
}

/** Each answer as a sum: "812 ms = … 300 + … 480 + … 32", and as a bar of the same parts. */
export function showLatency(place, latencies, words) {
  const longest = Math.max(1, ...latencies.map((one) => one.total_ms + one.way_ms));
  place.replaceChildren(...latencies.map((one) => {
    const total = one.total_ms + one.way_ms;
    const parts = [["turn", one.turn_ms], ["voice", one.voice_ms], ["way", one.way_ms]];
    const bar = made("span", "bar");
    bar.style.width = `${(100 * total) / longest}%`;
    bar.setAttribute("aria-hidden", "true");
    const sum = [];
    for (const [name, ms] of parts) {
      const piece = made("span", name);
      piece.style.flexGrow = ms;
      bar.append(piece);
      sum.push(sum.length ? " + " : " = ", made("span", name, `${words[name]} `, made("bdi", "", String(ms))));
    }
    return made("li", "", bar, made("span", "sum", made("bdi", "", made("b", "", `${total} ms`)), ...sum));
  }));
}

const SVG = "http://www.w3.org/2000/svg";
const GUTTER = 8;
const ROW = 30;

function shape(name, attributes, text) {
  const drawn = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) drawn.setAttribute(key, value);
  if (text) drawn.textContent = text;
  return drawn;
}

/** Who spoke when: the agent above, the caller below, what was cut off grey, an interruption a line across. */
export function drawTimeline(place, turns, words) {
  const width = Math.max(place.clientWidth, 200);
  const end = Math.max(1000, ...turns.map((turn) => turn.started_ms + Math.max(turn.length_ms, 0)));
  const x = (ms) => GUTTER + (ms / end) * (width - 2 * GUTTER);
  const picture = shape("svg", { viewBox: `0 0 ${width} ${3 * ROW + 18}`, role: "img" });
  const cuts = turns.filter((turn) => turn.interrupted);
  picture.setAttribute("aria-label", `${words.timeline}: ${clock(end)}, ${words.interruptions} ${cuts.length}`);
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((seconds) => x(seconds * 1000) - GUTTER >= 48) || 1200;
  for (let second = 0; second * 1000 <= end; second += step) {
    const at = x(second * 1000);
    picture.append(shape("line", { class: "grid", x1: at, x2: at, y1: 0, y2: 2 * ROW + 8 }));
    const anchor = second === 0 ? "start" : at > width - 40 ? "end" : "middle";
    picture.append(shape("text", { x: second === 0 ? 0 : at, y: 3 * ROW + 2, "text-anchor": anchor }, clock(second * 1000)));
  }
  for (const turn of turns) {
    if (turn.length_ms <= 0) continue;
    const agents = turn.role === "agent";
    const y = agents ? 4 : ROW + 6;
    const heard = Math.min(agents ? turn.heard_ms : turn.length_ms, turn.length_ms);
    const bar = (className, from, to) => {
      const drawn = shape("rect", { class: className, x: x(from), y, rx: 4, width: Math.max(x(to) - x(from), 2), height: ROW - 6 });
      drawn.append(shape("title", {}, `${agents ? words.agent : words.you}: ${turn.text}`));
      picture.append(drawn);
    };
    if (heard < turn.length_ms) bar("cut", turn.started_ms + heard, turn.started_ms + turn.length_ms);
    if (heard) bar(turn.role, turn.started_ms, turn.started_ms + heard);
  }
  for (const turn of cuts) {
    const at = x(turn.started_ms + turn.heard_ms);
    picture.append(shape("line", { class: "stop", x1: at, x2: at, y1: 0, y2: 2 * ROW + 8 }));
  }
  place.replaceChildren(picture);
}

/** Milliseconds as 0:07. */
export function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
