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
