// What the viewer tells and offers beside its image: views that no photo covers, the horizon, details, keyboard help.
(() => {
  "use strict";
  const start = (stage) => {
    const one = (name) => stage.querySelector(`[data-nvs=${name}]`), { viewer } = window.nvs, { canvas } = viewer;
    stage.addEventListener("nvs-beyond", ({ detail }) => { one("beyond").hidden = !detail; one("beyond-words").textContent = detail && `This is ${detail}: expect blur.`; });
    one("beyond-back").onclick = () => { viewer.jump({ c2w: viewer.scene.turn.path[viewer.nearestTurn()], fov: viewer.scene.fov }); viewer.setUp("scene"); canvas.focus({ preventScroll: true }); };
    one("level").onclick = () => viewer.levelled();
    canvas.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.code === "KeyL") viewer.levelled();
      else if (event.key === "," || event.key === ".") viewer.roll(event.key === "," ? -2 : 2);
      else return;
      event.preventDefault();
    });
  };
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);
})();
