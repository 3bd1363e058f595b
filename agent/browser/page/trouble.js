// What can go wrong, by a name that words.js has a sentence for.

export class Trouble extends Error {
  constructor(name, detail = "") {
    super(name);
    this.trouble = name;
    this.detail = detail;
  }
}

/** What a close code means: the name of a trouble, or "" if the call is simply over; undefined: come back. */
export function meaningOf(code) {
  const known = {
    1000: "", 4400: "broken", 4401: "token", 4404: "gone", 4406: "release", 4408: "broken", 4409: "elsewhere",
    4413: "broken", 4415: "audio", 4429: "busy",
  };
  return known[code];
}

/** What is said of an outcome, besides that the call has ended: the name of a sentence, or "". */
export function endOf(outcome) {
  const known = {
    server_stopped: "stopped", model_unavailable: "no_model", model_lost: "no_model", crashed: "no_model", error: "no_model",
    idle: "end_idle", time_limit: "end_time",
  };
  return known[outcome] || "";
}
