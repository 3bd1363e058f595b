// <script src="https://agent.example.com/widget.js" data-tenant="acme" data-lang="he" data-position="left"
//         data-go="#0b6b4f" data-label="Talk to us"></script>
// puts a button on a page of another site, and the phone behind it into a frame. The site must be in AGENT_BROWSER_ORIGINS.
(() => {
  const script = document.currentScript;
  const { tenant = "", lang = "", position = "right", go = "#0b6b4f", label } = script.dataset;
  const source = new URL("widget", script.src);
  for (const [name, value] of Object.entries({ tenant, lang, go })) if (value) source.searchParams.set(name, value);
  const host = document.createElement("div");
  const inside = host.attachShadow({ mode: "open" });
  const hebrew = lang === "he";
  const side = position === "left" ? "left" : "right";
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label || (hebrew ? "Call – דברו איתנו" : "Call us");
  button.setAttribute("aria-expanded", "false");
  const frame = document.createElement("iframe");
  frame.title = hebrew ? "שיחה עם הסוכן" : "Talk to the agent";
  frame.allow = "microphone; autoplay";
  frame.hidden = true;
  const style = `position:fixed;z-index:2147483000;bottom:1rem;${side}:1rem;`;
  button.style.cssText = `${style}min-height:3rem;padding:.6rem 1.2rem;border:0;border-radius:2rem;font:600 1rem system-ui;color:#fff;`
    + `background:${/^#[0-9a-f]{3,8}$/i.test(go) ? go : "#0b6b4f"};cursor:pointer`;
  frame.style.cssText = `${style}bottom:5rem;width:min(24rem,calc(100vw - 2rem));height:min(36rem,calc(100vh - 7rem));`
    + "border:1px solid #8888;border-radius:.75rem;background:#fff";
  button.addEventListener("click", () => {
    if (!frame.src) frame.src = source.href;
    frame.hidden = !frame.hidden;
    button.setAttribute("aria-expanded", String(!frame.hidden));
  });
  inside.append(frame, button);
  document.body.append(host);
})();
