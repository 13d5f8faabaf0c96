// Over the view, when it is switched on: the photos' cameras as frusta, sparse points, and a map that says where the
// view is. Hovering a camera shows its photo in the frustum, a click goes there.
(() => {
  "use strict";
  const COLOURS = { input: "#56b4e9", "held out": "#e69f00", "not used": "#9aa4b4" };
  const REACH = 18, MAP = 116; // pixels: how near the pointer must be to a camera; side of the map
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  let stage = null, viewer = null, canvas = null, paper = null, capture = null, hovered = null, places = [], pressed = null;
  const on = () => canvas !== null;

  function project(point, { c2w: m, fov }, w, h) {
    const d = [point[0] - m[3], point[1] - m[7], point[2] - m[11]], ahead = m[2] * d[0] + m[6] * d[1] + m[10] * d[2];
    if (ahead < 1e-6) return null;
    const scale = 0.5 * h / (Math.tan(fov * Math.PI / 360) * ahead);
    return [w / 2 + scale * (m[0] * d[0] + m[4] * d[1] + m[8] * d[2]), h / 2 + scale * (m[1] * d[0] + m[5] * d[1] + m[9] * d[2]), ahead];
  }
  // Apex and corners (top left, top right, bottom right, bottom left) of a camera in the world.
  function frustum(view, size) {
    const m = view.c2w, high = Math.tan(view.fov * Math.PI / 360), wide = high * view.aspect, unit = size / Math.sqrt(4 * high * wide);
    const at = (x, y, z) => [0, 1, 2].map((i) => m[4 * i + 3] + unit * (x * m[4 * i] + y * m[4 * i + 1] + z * m[4 * i + 2]));
    return [at(0, 0, 0), at(-wide, -high, 1), at(wide, -high, 1), at(wide, high, 1), at(-wide, high, 1)];
  }
  function draw() {
    if (!on()) return;
    const { clientWidth: w, clientHeight: h } = viewer.canvas, scale = Math.min(2, devicePixelRatio || 1);
    if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) { canvas.width = Math.round(w * scale); canvas.height = Math.round(h * scale); }
    paper.setTransform(scale, 0, 0, scale, 0, 0); paper.clearRect(0, 0, w, h);
    const camera = viewer.shown?.camera;
    places = [];
    if (!capture || !camera || capture.revision !== viewer.scene?.revision || viewer.shown.header.revision !== capture.revision) return;
    for (const p of capture.points) {
      const at = project(p, camera, w, h);
      if (at && at[0] > 0 && at[0] < w && at[1] > 0 && at[1] < h) { paper.fillStyle = `rgb(${p[3]},${p[4]},${p[5]})`; paper.fillRect(at[0] - 1, at[1] - 1, 2.2, 2.2); }
    }
    const size = 0.14 * viewer.scene.radius;
    for (const view of capture.views) {
      const [apex, ...corners] = frustum(view, size).map((p) => project(p, camera, w, h));
      if (!apex || corners.some((c) => !c) || apex[2] < 0.05 * viewer.scene.radius) continue;
      const middle = [0, 1].map((i) => (apex[i] + corners.reduce((sum, c) => sum + c[i], 0)) / 5);
      places.push({ view, middle });
      if (hovered === view.index && view.image?.complete) picture(view.image, corners);
      for (const [colour, width] of [["rgb(13 16 23 / 70%)", 3.4], [COLOURS[view.group], hovered === view.index ? 2.6 : 1.4]]) {
        paper.strokeStyle = colour; paper.lineWidth = width; paper.beginPath();
        corners.forEach((corner, i) => { paper.moveTo(apex[0], apex[1]); paper.lineTo(corner[0], corner[1]); paper.lineTo(corners[(i + 1) % 4][0], corners[(i + 1) % 4][1]); });
        paper.stroke();
      }
    }
    map(camera, w, h);
  }
  function picture(image, [a, b, , d]) { // the photo between three corners
    paper.save();
    paper.transform((b[0] - a[0]) / image.width, (b[1] - a[1]) / image.width, (d[0] - a[0]) / image.height, (d[1] - a[1]) / image.height, a[0], a[1]);
    paper.drawImage(image, 0, 0); paper.restore();
  }
  // Seen from above: the photos' cameras, what they look at, and where the view is.
  function map(camera, w, h) {
    const { focus, up, radius } = viewer.scene, north = viewer.scene.turn.middle, east = cross(north, up), side = Math.min(MAP, 0.3 * w);
    const centre = [w - side / 2 - 12, h - side / 2 - 12], m = camera.c2w, far = (p) => Math.hypot(...[east, north].map((axis) => dot([p[0] - focus[0], p[1] - focus[1], p[2] - focus[2]], axis)));
    const eye = [m[3], m[7], m[11]], reach = Math.max(1.2 * radius, ...capture.views.map((v) => Math.min(3 * radius, far([v.c2w[3], v.c2w[7], v.c2w[11]]))));
    const at = (p) => { const d = [p[0] - focus[0], p[1] - focus[1], p[2] - focus[2]]; return [dot(d, east), -dot(d, north)].map((x, i) => centre[i] + 0.42 * side * Math.max(-1.1, Math.min(1.1, x / reach))); };
    paper.fillStyle = "rgb(13 16 23 / 82%)"; paper.beginPath(); paper.arc(...centre, side / 2, 0, 7); paper.fill();
    paper.fillStyle = "#e5e7eb"; paper.fillRect(centre[0] - 2, centre[1] - 2, 4, 4);
    for (const { c2w, group } of capture.views) { paper.fillStyle = COLOURS[group]; paper.beginPath(); paper.arc(...at([c2w[3], c2w[7], c2w[11]]), 2.4, 0, 7); paper.fill(); }
    let line = centre[1] - side / 2 - 8;
    paper.font = "12px system-ui, sans-serif"; paper.textAlign = "right";
    for (const [group, colour] of Object.entries(COLOURS).reverse()) {
      if (!capture.views.some((view) => view.group === group)) continue;
      const words = group === "input" ? "input views" : group, right = w - 12, long = paper.measureText(words).width + 34;
      paper.fillStyle = "rgb(13 16 23 / 82%)"; paper.beginPath(); paper.roundRect(right - long, line - 18, long, 20, 10); paper.fill();
      paper.fillStyle = colour; paper.beginPath(); paper.arc(right - long + 13, line - 8, 4, 0, 7); paper.fill();
      paper.fillStyle = "#f3f4f6"; paper.fillText(words, right - 10, line - 4);
      line -= 24;
    }
    const here = at(eye), ahead = Math.atan2(-dot([m[2], m[6], m[10]], north), dot([m[2], m[6], m[10]], east));
    paper.fillStyle = "rgb(253 230 138 / 45%)"; paper.strokeStyle = "#fde68a"; paper.lineWidth = 1.4;
    paper.beginPath(); paper.moveTo(...here); paper.arc(...here, 0.22 * side, ahead - 0.42, ahead + 0.42); paper.closePath(); paper.fill(); paper.stroke();
  }
  function hover(event) {
    if (!on()) return;
    const box = viewer.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = null, nearest = REACH;
    for (const place of places) { const off = Math.hypot(place.middle[0] - x, place.middle[1] - y); if (off < nearest) { nearest = off; best = place; } }
    const index = best ? best.view.index : null;
    viewer.canvas.title = best ? `${best.view.name} (${best.view.group}): click to look from there` : "";
    if (index === hovered) return;
    hovered = index;
    if (best && !best.view.image && best.view.photo) { best.view.image = new Image(); best.view.image.onload = draw; best.view.image.src = best.view.photo; }
    draw();
  }
  function toggle() {
    const button = stage.querySelector("[data-nvs=cameras]");
    if (on()) { canvas.remove(); canvas = null; hovered = null; viewer.canvas.title = ""; } else {
      canvas = document.createElement("canvas"); canvas.setAttribute("aria-hidden", "true"); canvas.className = "nvs-over-canvas"; canvas.tabIndex = -1;
      viewer.canvas.after(canvas); paper = canvas.getContext("2d");
      ask(); draw();
    }
    button.setAttribute("aria-pressed", String(on()));
  }
  const ask = () => { if (on() && capture?.revision !== viewer.scene?.revision) document.querySelector("#nvs-capture").click(); };
  function start(element) {
    stage = element; viewer = window.nvs.viewer;
    stage.querySelector("[data-nvs=cameras]").onclick = toggle;
    document.addEventListener("nvs-message", ({ detail }) => { if (detail.type === "capture") { capture = detail; draw(); } });
    stage.addEventListener("nvs-scene", () => { hovered = null; ask(); });
    stage.addEventListener("nvs-frame", draw);
    viewer.canvas.addEventListener("pointermove", hover);
    viewer.canvas.addEventListener("pointerleave", () => { if (hovered !== null) { hovered = null; draw(); } });
    viewer.canvas.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; hover(event); });
    viewer.canvas.addEventListener("pointerup", (event) => {
      if (!on() || hovered === null || !pressed || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > 5) return;
      window.nvs.look(hovered);
    });
    viewer.canvas.addEventListener("keydown", (event) => { if (event.code === "KeyC" && !event.ctrlKey && !event.metaKey && !event.altKey) { toggle(); event.preventDefault(); } });
  }
  window.nvs.overlay = { places: () => places.map(({ view, middle }) => ({ index: view.index, middle })), toggle };
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);
})();
