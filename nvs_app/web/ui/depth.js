// What the viewer knows of surfaces: the switches for depth and coverage with their legend, and the point under the
// cursor, on which a double-click centres the view and towards which wheel and pinch move it.
//
//   const surfaces = new window.nvsSurfaces(viewer, line)
//   await surfaces.under(x, y)         [x, y, z] in the scene's frame, or null: no surface there, or none is known
//   surfaces.zoom(factor, [x, y])      closer (below 1) to what is under that place of the frame
(() => {
  "use strict";
  const HOLD_MS = 160, GESTURE_MS = 1200, NEAR = 0.03; // how long a zoom waits for its point; how long and where it serves
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  const shown = (x) => (x >= 1000 ? Math.round(x) : Number(x.toPrecision(3))).toString();

  class Surfaces {
    constructor(viewer, line) {
      this.viewer = viewer; this.line = line; this.anchor = null; this.header = null; this.pointer = null;
      const { stage, canvas } = viewer, one = (name) => stage.querySelector(`[data-nvs=${name}]`);
      this.buttons = { depth: one("depth"), coverage: one("coverage") };
      this.one = one;
      for (const [name, button] of Object.entries(this.buttons)) button.addEventListener("click", () => this.show(viewer.shows === name ? "image" : name));
      stage.addEventListener("nvs-scene", ({ detail }) => this.scene(detail));
      stage.addEventListener("nvs-frame", ({ detail }) => { this.header = detail.header; this.legend(); });
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        this.pointer = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        this.value();
      });
      canvas.addEventListener("pointerleave", () => { this.pointer = null; this.value(); });
    }
    get known() { return Boolean(this.viewer.scene) && !this.viewer.scene.no_depth; }
    scene(message) {
      const why = message.no_depth || "";
      this.anchor = null;
      for (const button of Object.values(this.buttons)) button.disabled = Boolean(why);
      const note = document.querySelector("[data-nvs=no-depth]");
      note.textContent = why && `Depth and coverage are off: ${why}`;
      if (why && this.viewer.shows !== "image") this.show("image");
    }
    // What frames show from now on: "image", "depth" or "coverage".
    show(what) {
      this.viewer.shows = what;
      for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(name === what));
      this.legend();
      if (this.viewer.view) this.viewer.move();
    }
    legend() {
      const { header, viewer } = this, fits = header && header.output === viewer.shows ? header : {};
      this.one("legend").dataset.shows = viewer.shows;
      const reach = fits.range || null;
      this.one("near").textContent = reach ? shown(reach[0]) : "";
      this.one("far").textContent = reach ? shown(reach[1]) : "";
      this.one("ramp").hidden = !reach;
      if (viewer.shows === "coverage") this.one("said").textContent = fits.unseen === undefined ? "" : `no photo shows ${Math.round(100 * fits.unseen)} % of it`;
      this.value();
    }
    // Depth under the pointer, in the scene's units.
    value() {
      if (this.viewer.shows !== "depth") return;
      const { pointer, header } = this, rows = (header?.output === "depth" && header.values) || [];
      let words = header?.output === "depth" && !header.range ? "no surface in view" : "units";
      if (pointer && rows.length && pointer.every((x) => x >= 0 && x <= 1)) {
        const row = rows[Math.min(rows.length - 1, Math.floor(pointer[1] * rows.length))];
        const depth = row[Math.min(row.length - 1, Math.floor(pointer[0] * row.length))];
        words = depth === null ? "here: unsure" : `here: ${shown(depth)}`;
      }
      this.one("said").textContent = words;
    }
    async under(x, y) {
      const { viewer, line } = this;
      if (!this.known || !viewer.view || !viewer.plan) return null;
      const answer = await line.ask({ type: "point", ...viewer.camera(), hw: viewer.plan.point, at: [clamp(x, 0, 1), clamp(y, 0, 1)] });
      return answer.type === "point" ? answer.point : null;
    }
    // The first step of a gesture asks what is under the cursor, and waits for the answer as long as nobody notices.
    zoom(factor, at) {
      const { viewer } = this, now = performance.now();
      factor = viewer.soft(factor);
      if (!this.known) { viewer.view.dolly(factor); viewer.move(); return; }
      let { anchor } = this;
      if (!anchor || !this.serves(anchor, at, now)) {
        anchor = this.anchor = { view: viewer.view, at, held: 1, point: null, waits: true };
        const mine = anchor, go = () => { if (mine.waits) { mine.waits = false; this.step(mine, mine.held); } };
        this.under(...at).then((point) => { mine.point = point; go(); });
        setTimeout(go, HOLD_MS);
      }
      anchor.last = now;
      if (anchor.waits) anchor.held *= factor; else this.step(anchor, factor);
    }
    step(anchor, factor) {
      const { view } = this.viewer;
      if (view !== anchor.view) return;
      if (anchor.point) view.approach(anchor.point, factor); else view.dolly(factor);
      this.viewer.move();
    }
    // Whether the gesture goes on: at the same place, and the point is still there.
    serves(anchor, at, now) {
      const close = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) < NEAR;
      if (anchor.view !== this.viewer.view || now - anchor.last > GESTURE_MS) return false;
      const place = anchor.point ? this.viewer.place(anchor.point) : anchor.at;
      return place !== null && close(place, at);
    }
  }

  window.nvsSurfaces = Surfaces;
})();
