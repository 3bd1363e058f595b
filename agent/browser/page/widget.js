// <script src="https://agent.example.com/widget.js" data-tenant="acme" data-lang="he" data-position="left"
//         data-go="#0b6b4f" data-label="Talk to us"></script>
// puts a button on a page of another site, and the phone behind it into a frame. The site must be one of the tenant's
// origins, or in AGENT_BROWSER_ORIGINS.
(() => {
  const script = document.currentScript;
  const { tenant = "", lang = "", position = "right", go = "#0b6b4f", label } = script.dataset;
  const words = lang === "he"
    ? { call: "Call – דברו איתנו", title: "שיחה עם הסוכן", no: "אי אפשר להתקשר מהאתר הזה.", gone: "אין קשר עם השרת. נסו שוב בעוד רגע." }
    : { call: "Call us", title: "Talk to the agent", no: "This site cannot phone.", gone: "The server cannot be reached. Try again in a moment." };
  const address = (path, fields) => {
    const url = new URL(path, script.src);
    for (const [name, value] of Object.entries(fields)) if (value) url.searchParams.set(name, value);
    return url.href;
  };
  const make = (name, style, attributes) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.style.cssText = `position:fixed;z-index:2147483000;${position === "left" ? "left" : "right"}:1rem;${style}`;
    return made;
  };
  const panel = "bottom:5rem;border:1px solid #8888;border-radius:.75rem;background:#fff;color:#1b1d1c;box-sizing:border-box;"
    + "width:min(24rem,calc(100vw - 2rem));box-shadow:0 .5rem 2rem #0003;";
  const colour = /^#[0-9a-f]{3,8}$/i.test(go) ? go : "#0b6b4f";
  const button = make("button", "bottom:1rem;min-height:3rem;padding:.6rem 1.2rem;border:0;border-radius:2rem;"
    + `font:600 1rem system-ui,sans-serif;color:#fff;background:${colour};cursor:pointer`, { type: "button", textContent: label || words.call });
  button.setAttribute("aria-expanded", "false");
  const frame = make("iframe", `${panel}height:min(36rem,calc(100vh - 7rem))`,
    { title: words.title, allow: "microphone; autoplay", hidden: true });
  const notice = make("p", `${panel}margin:0;padding:1rem;font:1rem/1.5 system-ui,sans-serif`, { hidden: true, dir: lang === "he" ? "rtl" : "ltr" });
  notice.setAttribute("role", "alert");

  // A browser shows a frame that its site may not have as an empty one; so it is asked first.
  const refusal = async () => {
    try {
      const { detail } = await (await fetch(address("browser/site", { tenant }))).json();
      if (detail) console.warn(`call-agent: ${detail}`);
      return detail && `${words.no} (${detail})`;
    } catch {
      return words.gone;
    }
  };
  button.addEventListener("click", async () => {
    const opens = button.getAttribute("aria-expanded") === "false";
    button.setAttribute("aria-expanded", String(opens));
    frame.hidden = notice.hidden = true;
    if (!opens) return;
    const why = frame.src ? "" : await refusal();
    if (button.getAttribute("aria-expanded") === "false") return;
    notice.textContent = why;
    notice.hidden = !why;
    frame.hidden = Boolean(why);
    if (!why && !frame.src) frame.src = address("widget", { tenant, lang, go });
  });

  const host = document.createElement("div");
  host.attachShadow({ mode: "open" }).append(frame, notice, button);
  document.body.append(host);
})();
