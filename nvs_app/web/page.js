// What the page itself does: the slider between rendering and photo, the plot of cameras, pasted pictures, notices.
(() => {
  "use strict";
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-nvs-split]")) event.target.closest(".nvs-split").style.setProperty("--split", `${event.target.value}%`);
  });
  // A click on a camera in the plot: look from there.
  document.addEventListener("nvs-camera", async ({ detail }) => {
    const view = await window.nvs.line.ask({ type: "view", index: detail.index });
    if (view.type === "view") window.nvs.viewer.jump(view);
  });
  document.addEventListener("nvs-message", ({ detail }) => { if (detail.type === "notice") window.nvs.say(detail.words); });
  // Light or dark: gradio follows the system; this button, and a note in this browser, say otherwise.
  const theme = () => { try { const kept = localStorage.getItem("nvs-theme"); if (kept) document.body.classList.toggle("dark", kept === "dark"); } catch { /* storage is off */ } };
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-nvs-theme]")) return;
    const dark = document.body.classList.toggle("dark");
    try { localStorage.setItem("nvs-theme", dark ? "dark" : "light"); } catch { /* storage is off */ }
  });
  document.addEventListener("nvs-ready", theme);
  // Pasted pictures go the way of the field for files.
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files || [])].filter((file) => file.type.startsWith("image/") || file.type.startsWith("video/"));
    const field = document.querySelector("#nvs-upload input[type=file]");
    if (!files.length || !field) return;
    event.preventDefault();
    const carrier = new DataTransfer();
    files.forEach((file) => carrier.items.add(file));
    field.files = carrier.files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  });
  const mark = (name) => document.querySelectorAll("#nvs-examples [data-name]").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === name)));
  document.addEventListener("nvs-scene", ({ detail }) => mark(detail.name));
  // On a phone the second button opens the camera itself.
  new MutationObserver(() => {
    document.querySelector("input[data-testid='Take photos-upload-button']:not([capture])")?.setAttribute("capture", "environment");
    const plot = document.querySelector("#nvs-plot");
    if (plot && window.nvsCameras && !plot.dataset.attached) { plot.dataset.attached = "1"; window.nvsCameras.attach(plot); }
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
