// What the viewer tells and offers beside its image: views that no photo covers, the horizon, details, keyboard help.
(() => {
  "use strict";
  const start = (stage) => {
    const one = (name) => stage.querySelector(`[data-nvs=${name}]`), { viewer } = window.nvs, { canvas } = viewer;
    stage.addEventListener("nvs-beyond", ({ detail }) => { one("beyond").hidden = !detail; one("beyond-words").textContent = detail && `This is ${detail}: expect blur.`; });
    one("beyond-back").onclick = () => { viewer.jump({ c2w: viewer.scene.turn.path[viewer.nearestTurn()], fov: viewer.scene.fov }); viewer.setUp("scene"); canvas.focus({ preventScroll: true }); };
    // Times and sizes are for those who ask.
    const details = () => { const shown = one("details").getAttribute("aria-pressed") !== "true"; one("details").setAttribute("aria-pressed", String(shown)); one("chips").classList.toggle("nvs-shown", shown); };
    one("details").onclick = details;
    one("level").onclick = () => viewer.levelled();
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.code === "KeyL") viewer.levelled();
      else if (event.code === "KeyI") details();
      else if (event.key === "," || event.key === ".") viewer.roll(event.key === "," ? -2 : 2);
      else return;
      event.preventDefault();
    });
  };
  // The keys, for whoever asks; not while somebody writes into a field.
  const help = () => { const dialog = document.querySelector("#nvs-keys"); if (dialog.open) dialog.close(); else dialog.showModal(); };
  document.addEventListener("click", (event) => { if (event.target.closest?.("[data-nvs-help]")) help(); else if (event.target.id === "nvs-keys") event.target.close(); });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.ctrlKey || event.metaKey || event.target.closest?.("input, textarea, select, [contenteditable]")) return;
    help(); event.preventDefault();
  });
  // In another page (?embed=1) there is the viewer alone.
  if (new URLSearchParams(location.search).get("embed") === "1") document.documentElement.classList.add("nvs-embed");
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);
})();
