// A reconstruction over the viewer: stage, share, time left and Cancel, and what structure from motion has found so
// far. It stays until the first view of the new scene is there.
//
//   await nvs.settled()      the scene that was opened last has been shown once
//   nvs.working()            whether a reconstruction is under way
(() => {
  "use strict";
  const SPIN = 0.25; // radians a second, of the sparse points
  let stage = null, found = null, busy = false, turning = 0, before = 0; // before: revision of the scene until now
  const one = (name) => stage.querySelector(`[data-nvs=${name}]`);

  function show(message) {
    const work = one("work"), failed = message.type === "worked";
    if (!busy && !failed) { before = window.nvs.viewer?.scene?.revision || 0; window.nvs.viewer?.setAuto(false); clearTimeout(window.nvs.viewer?.later); }
    const held = document.querySelector("#nvs-photos")?.contains(document.activeElement); // the button that began it
    busy = !failed; window.nvs.possible();
    work.hidden = false; work.dataset.state = failed ? "failed" : "busy";
    if (held && busy) work.focus({ preventScroll: true }); // not Cancel: a second Enter would press it
    one("work-stage").textContent = failed ? (message.words ? "Cancelled" : "This did not work") : message.stage;
    one("work-words").textContent = failed ? "" : message.words;
    one("work-problem").textContent = message.problem || ""; one("work-problem").hidden = !message.problem;
    one("work-left").textContent = failed ? message.words || "" : message.left;
    one("work-share").textContent = failed ? "" : `${Math.round(100 * message.share)} %`;
    one("work-cancel").hidden = failed; one("work-close").hidden = !failed;
    const meter = one("work-meter"), percent = Math.round(100 * (message.share || 0));
    meter.hidden = failed; meter.setAttribute("aria-valuenow", percent); meter.firstElementChild.style.width = `${percent}%`;
    if (failed) one("work-close").focus({ preventScroll: true });
  }
  function hide() {
    if (one("work").hidden) return;
    const held = one("work").contains(document.activeElement);
    one("work").hidden = true; busy = false; found = null; cancelAnimationFrame(turning);
    one("sparse").replaceChildren(); delete one("work").dataset.sparse; window.nvs.possible();
    if (held) stage.querySelector("canvas").focus({ preventScroll: true });
  }
  const current = () => { const { viewer } = window.nvs; return Boolean(viewer?.scene && viewer.shown && viewer.shown.header.revision === viewer.scene.revision); };
  const come = () => current() && window.nvs.viewer.scene.revision > before;

  // Sparse points and cameras in the mapper's frame, seen from a turning place beside them.
  function draw(now) {
    turning = requestAnimationFrame(draw);
    const canvas = one("sparse").firstElementChild, { clientWidth: w, clientHeight: h } = canvas;
    if (!w || !h) return;
    const scale = Math.min(2, devicePixelRatio || 1);
    if (canvas.width !== Math.round(w * scale)) { canvas.width = Math.round(w * scale); canvas.height = Math.round(h * scale); }
    const paper = canvas.getContext("2d"), { centre, axes, extent, points, cameras } = found;
    const angle = window.nvs.viewer.calm ? 0.6 : now / 1000 * SPIN, c = Math.cos(angle), s = Math.sin(angle), zoom = 0.42 * Math.min(canvas.width, canvas.height) / extent;
    const place = (p) => {
      const d = [p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]];
      const [x, y, z] = axes.map((axis) => axis[0] * d[0] + axis[1] * d[1] + axis[2] * d[2]);
      const side = c * x + s * z, deep = (c * z - s * x) / extent, near = 3 / (3 + deep);
      return [canvas.width / 2 + side * zoom * near, canvas.height * 0.44 - (0.94 * y - 0.34 * deep * extent) * zoom * near];
    };
    paper.clearRect(0, 0, canvas.width, canvas.height);
    for (const p of points) { const [x, y] = place(p); paper.fillStyle = `rgb(${p[3]},${p[4]},${p[5]})`; paper.fillRect(x, y, 2 * scale, 2 * scale); }
    paper.strokeStyle = "#a5b4fc"; paper.lineWidth = 1.2 * scale;
    for (const m of cameras) {
      const eye = [m[3], m[7], m[11]], size = 0.1 * extent;
      const corner = (x, y) => place([0, 1, 2].map((i) => eye[i] + size * (x * m[4 * i] + y * m[4 * i + 1] + 1.2 * m[4 * i + 2])));
      const tip = place(eye), ends = [corner(-0.7, -0.5), corner(0.7, -0.5), corner(0.7, 0.5), corner(-0.7, 0.5)];
      paper.beginPath();
      ends.forEach((end, i) => { paper.moveTo(...tip); paper.lineTo(...end); paper.lineTo(...ends[(i + 1) % 4]); });
      paper.stroke();
    }
  }
  const middle = (values) => [...values].sort((a, b) => a - b)[values.length >> 1] || 0;
  function sparse({ points, cameras }) {
    if (!busy || !cameras.length) return;
    const all = points.length ? points : cameras.map((m) => [m[3], m[7], m[11], 200, 200, 200]);
    const centre = [0, 1, 2].map((i) => middle(all.map((p) => p[i])));
    const off = (p) => Math.hypot(p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]);
    const eyes = cameras.map((m) => [m[3], m[7], m[11]]), extent = Math.max(middle(all.map(off)), ...eyes.map(off)) || 1;
    // Up is away from the cameras' down; the other two are square to it.
    const up = [0, 1, 2].map((i) => -cameras.reduce((sum, m) => sum + m[4 * i + 1], 0)), size = Math.hypot(...up) || 1, y = up.map((v) => v / size);
    const other = Math.abs(y[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0], cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
    const side = cross(y, other), length = Math.hypot(...side), x = side.map((v) => v / length);
    if (!found) { one("sparse").replaceChildren(document.createElement("canvas")); turning = requestAnimationFrame(draw); }
    found = { centre, extent, axes: [x, y, cross(x, y)], points: points.filter((p) => off(p) < 2.5 * extent), cameras };
    one("work").dataset.sparse = cameras.length;
  }

  const start = (element) => {
    stage = element;
    one("work-cancel").onclick = () => document.querySelector("#nvs-cancel").click();
    one("work-close").onclick = hide;
    document.addEventListener("nvs-message", ({ detail }) => {
      if (detail.type === "sparse") sparse(detail);
      else if (detail.type === "worked" && !detail.problem && !detail.words) { if (come()) hide(); }
      else if (detail.type === "work" || detail.type === "worked") show(detail);
    });
    stage.addEventListener("nvs-scene", () => { if (busy) document.querySelector("#nvs-photos .nvs-photos")?.classList.add("nvs-away"); });
    stage.addEventListener("nvs-frame", () => { if (busy && come()) { hide(); visible(); } });
  };
  // On a phone the page may have been left further down.
  const visible = () => {
    const box = stage.getBoundingClientRect();
    if (box.top < 0 || box.top > innerHeight / 3) stage.scrollIntoView({ block: "start", behavior: window.nvs.viewer.calm ? "auto" : "smooth" });
  };
  window.nvs.working = () => busy;
  window.nvs.settled = () => new Promise((go) => {
    const until = performance.now() + 8000;
    const look = () => (current() || !window.nvs.viewer?.scene || document.hidden || performance.now() > until ? go() : setTimeout(look, 40));
    look();
  });
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);

  // Buttons of the grid of photos, wherever they are.
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-photos]");
    if (!button) return;
    const action = button.dataset.photos;
    if (action === "add") document.querySelector("#nvs-upload input[type=file]")?.click();
    else if (action === "go") document.querySelector("#nvs-go").click();
    else if (action === "advanced") {
      const panel = document.querySelector("#nvs-advanced"), toggle = panel.querySelector("button");
      if (!panel.querySelector("#nvs-views")?.offsetParent) toggle.click();
      panel.scrollIntoView({ block: "nearest" }); toggle.focus({ preventScroll: true });
    } else window.nvs.photos(action, button.dataset.key);
  });
})();
