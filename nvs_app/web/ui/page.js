// What the page itself does: the slider between rendering and photo, the plot of cameras, notices.
(() => {
  "use strict";
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-nvs-split]")) event.target.closest(".nvs-split").style.setProperty("--split", `${event.target.value}%`);
  });
  // A number of views beyond what there is becomes the nearest that there is: gradio would only refuse it.
  document.addEventListener("input", (event) => {
    const { target } = event;
    if (!target.matches?.("#nvs-views input[type=number]") || target.value === "") return;
    const [low, high] = [Number(target.min || 1), Number(target.max || target.value)];
    const fitting = Math.min(high, Math.max(low, Math.round(Number(target.value))));
    if (fitting !== Number(target.value)) target.value = fitting;
  }, true);
  // A click on a camera, on an input view or on a row of the comparison: look from there.
  window.nvs.look = async (index) => {
    const view = await window.nvs.line.ask({ type: "view", index });
    if (view.type === "view") window.nvs.viewer.jump(view);
  };
  // What the page's address asks for: ?shared=SECRET or ?scene=NAME of an example.
  window.nvs.wanted = () => {
    const asked = new URLSearchParams(location.search);
    // A reload goes on with what the visit has come to.
    if (performance.getEntriesByType("navigation")[0]?.type === "reload") return "";
    return asked.has("shared") ? `shared:${asked.get("shared")}` : asked.has("scene") ? `example:${asked.get("scene")}` : "";
  };
  window.nvs.shared = (secret) => {
    const place = document.querySelector("[data-nvs=shared]"), field = document.querySelector("[data-nvs=shared-link]");
    place.hidden = !secret;
    field.value = secret ? `${location.origin}${location.pathname}?shared=${encodeURIComponent(secret)}` : "";
    if (secret) { field.focus(); field.select(); }
    window.nvs.possible();
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-nvs-copy]")) return;
    const field = document.querySelector("[data-nvs=shared-link]");
    field.select();
    navigator.clipboard?.writeText(field.value).catch(() => document.execCommand("copy"));
  });
  document.addEventListener("nvs-camera", ({ detail }) => window.nvs.look(detail.index));
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-nvs-view]");
    if (!button) return;
    window.nvs.look(Number(button.dataset.nvsView));
    if (button.dataset.nvsHeld !== undefined) window.nvs.compare(Number(button.dataset.nvsHeld));
  });
  document.addEventListener("nvs-message", ({ detail }) => { if (detail.type === "notice") window.nvs.notice(detail.words); });
  // Light or dark: gradio follows the system; this button, and a note in this browser, say otherwise.
  const theme = () => { try { const kept = localStorage.getItem("nvs-theme"); if (kept) document.body.classList.toggle("dark", kept === "dark"); } catch { /* storage is off */ } };
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-nvs-theme]")) return;
    const dark = document.body.classList.toggle("dark");
    try { localStorage.setItem("nvs-theme", dark ? "dark" : "light"); } catch { /* storage is off */ }
  });
  document.addEventListener("nvs-ready", theme);
  const mark = (name) => document.querySelectorAll("#nvs-examples [data-name]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === name)));
  document.addEventListener("nvs-scene", ({ detail }) => mark(detail.name));
  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-nvs=again]")) location.reload();
    if (event.target.closest?.("#nvs-encode, #nvs-video")) window.nvs.viewer?.setAuto(false); // the machine has better to do
  });
  // Until the tabs have caught up with a new scene, what they show is of the one before.
  document.addEventListener("nvs-scene", ({ detail }) => {
    if (detail.revision !== shown) document.querySelector("#nvs-tools")?.classList.add("nvs-stale");
    shown = detail.revision;
  });
  let shown = null;
  // What cannot be done yet is off: before a scene is there, before one was kept; and while a reconstruction is under way,
  // what would begin another one. What stops something takes the place of what began it.
  let held = false;
  const possible = () => {
    const scene = Boolean(window.nvs.viewer?.scene), kept = Boolean(document.querySelector("#nvs-kept input")?.value);
    const shared = document.querySelector("[data-nvs=shared]")?.hidden === false;
    const making = Boolean(document.querySelector("#nvs-geometry-progress .nvs-progress"));
    const early = "#nvs-hold, #nvs-geometry, [id^=nvs-take-], [data-path=add], [data-preset]", works = window.nvs.working();
    const cases = [[!scene, early], [!kept, "#nvs-kept-open, #nvs-share"], [!shared, "#nvs-unshare"], [!scene || works, "#nvs-sharpen, #nvs-grow"], [works, "#nvs-model-use"]];
    document.querySelector("#nvs-photos")?.toggleAttribute("inert", works); // what covers it is for the eye only
    for (const [no, which] of cases) for (const button of document.querySelectorAll(which)) button.disabled = no;
    for (const [on, begin, end] of [[held, "#nvs-hold", "#nvs-release"], [making, "#nvs-geometry", "#nvs-geometry-cancel"]]) {
      const [goes, comes] = (on ? [begin, end] : [end, begin]).map((which) => document.querySelector(which)), focused = goes && goes === document.activeElement;
      if (goes) { goes.style.display = "none"; comes.style.display = ""; }
      if (focused) comes.focus({ preventScroll: true });
    }
    for (const bar of document.querySelectorAll("#nvs-stage .nvs-bar")) bar.inert = !scene;
  };
  window.nvs.possible = possible;
  document.addEventListener("nvs-message", ({ detail }) => { if (detail.type === "beside") { held = detail.held; possible(); } });
  document.addEventListener("nvs-scene", possible);
  const together = () => document.querySelectorAll("[data-nvs-split]").forEach((slider) => slider.closest(".nvs-split").style.setProperty("--split", `${slider.value}%`));
  window.nvs.fresh = () => { together(); stale(); };
  const stale = () => document.querySelector("#nvs-tools")?.classList.remove("nvs-stale");
  // Tab leaves a list of choices: gradio would open it again behind whoever goes, and a long list would take the focus.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Tab" || event.target.getAttribute?.("role") !== "combobox") return;
    document.querySelectorAll(".option-list").forEach((list) => { list.tabIndex = -1; });
    event.stopPropagation();
  }, true);
  // The estimate is written anew with each setting; who has opened its details sees them still.
  let detailed = false;
  document.addEventListener("toggle", (event) => { if (event.target.closest?.(".nvs-plan")) detailed = event.target.open; }, true);
  // What gradio leaves without a name for screen readers: tabs' panels, rows of choices, icons that only decorate.
  const named = () => {
    for (const panel of document.querySelectorAll("[role=tabpanel][id]:not([aria-labelledby])")) panel.setAttribute("aria-labelledby", `${panel.id}-button`);
    for (const choices of document.querySelectorAll("#nvs-main fieldset:not([aria-label])")) choices.setAttribute("aria-label", choices.querySelector("[data-testid=block-info]")?.textContent.trim() || "Choices");
    for (const row of document.querySelectorAll("#nvs-tools .nvs-take")) { // "Make" of what?
      const what = row.querySelector("b, [data-testid=block-info]")?.textContent.trim();
      for (const button of row.querySelectorAll("button[id^=nvs-]:not([aria-label])")) if (what && button.textContent.trim() !== what) button.setAttribute("aria-label", `${button.textContent.trim()}: ${what}`);
    }
    for (const icon of document.querySelectorAll("#nvs-main :is(.icon-wrap, button, .wrap) svg:not([aria-hidden]), svg.dropdown-arrow:not([aria-hidden]), #js-plotly-tester:not([aria-hidden])")) icon.setAttribute("aria-hidden", "true");
  };
  // On a phone the second button opens the camera itself.
  new MutationObserver(() => {
    document.querySelector("input[data-testid='Take photos-upload-button']:not([capture])")?.setAttribute("capture", "environment");
    const details = detailed && document.querySelector(".nvs-plan details:not([open])");
    if (details && !details.dataset.seen) details.open = true;
    if (details) details.dataset.seen = "1";
    named(); possible();
    const plot = document.querySelector("#nvs-plot");
    if (plot && window.nvsCameras && !plot.dataset.attached) { plot.dataset.attached = "1"; window.nvsCameras.attach(plot); }
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
