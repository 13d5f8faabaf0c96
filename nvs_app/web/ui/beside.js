// Another reconstruction of the same photos beside the view, from the same camera, under one slider.
(() => {
  "use strict";
  let viewer = null, stage = null, words = null, bitmap = null, waits = false, split = 0.5;
  const on = () => Boolean(words?.other);
  // After each frame of the view the same camera of the other one; while one is on its way, no second is asked for.
  async function follow() {
    if (!on() || waits || !viewer.shown) return;
    const { camera, header } = viewer.shown;
    waits = true;
    const answer = await window.nvs.line.ask({ type: "frame", beside: true, c2w: camera.c2w, fov: camera.fov, hw: header.hw, output: header.output, format: viewer.format, quality: 88, auto: true });
    waits = false;
    if (!on()) return;
    if (answer.type === "image") {
      bitmap = await createImageBitmap(new Blob([answer.data], { type: `image/${answer.header.format}` }));
      window.nvs.beside.shown = { camera, header: answer.header, data: answer.data };
      viewer.paint();
    }
    if (viewer.shown.camera !== camera) follow();
  }
  function over() {
    if (!on() || !bitmap) return;
    const { paper, canvas } = viewer, edge = Math.round(split * canvas.width);
    paper.save(); paper.beginPath(); paper.rect(0, 0, edge, canvas.height); paper.clip();
    paper.drawImage(bitmap, 0, 0, canvas.width, canvas.height); paper.restore();
    paper.fillStyle = "#fff"; paper.fillRect(edge - 1, 0, 2, canvas.height);
  }
  function take(message) {
    const place = stage.querySelector("[data-nvs=beside]");
    words = message; bitmap = null; window.nvs.beside.shown = null;
    place.hidden = !on();
    place.querySelector("[data-nvs=beside-other]").textContent = message.other; place.querySelector("[data-nvs=beside-own]").textContent = message.own;
    viewer.paint(); follow();
  }
  function start(element) {
    stage = element; viewer = window.nvs.viewer;
    const paint = viewer.paint.bind(viewer);
    viewer.paint = () => { paint(); over(); };
    stage.querySelector("[data-nvs=beside-split]").addEventListener("input", ({ target }) => { split = target.value / 100; viewer.paint(); });
    document.addEventListener("nvs-message", ({ detail }) => { if (detail.type === "beside") take(detail); });
    stage.addEventListener("nvs-frame", follow);
  }
  window.nvs.beside = { shown: null };
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);
})();
