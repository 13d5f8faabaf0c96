// The orbit viewer: a camera that follows the hand, and a line to the server that renders what it sees.
//
//   nvs.connect(token)          opens the line; the server sends the scene, the viewer asks for frames
//   nvs.viewer.jump(view)       {c2w: 16 numbers row by row, fov: degrees}: look from there
//   nvs.viewer.camera()         the same, of now
//   nvs.viewer.play(views, fps, loop)
//
// Cameras have OpenCV axes (x right, y down, z forward) in the scene's own frame; fov is vertical, in degrees.
// While the camera moves, frames of a lower resolution follow it; at rest it is rendered again, at the full one. Which
// sizes these are the server decides: `viewer.plan` is what it sent last (services/frame_plan.py).
(() => {
  "use strict";
  const add = (a, b, s = 1) => [a[0] + s * b[0], a[1] + s * b[1], a[2] + s * b[2]];
  const times = (a, s) => [a[0] * s, a[1] * s, a[2] * s];
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const size = (a) => Math.sqrt(dot(a, a));
  const unit = (a) => times(a, 1 / Math.max(size(a), 1e-12));
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
  // Rodrigues: v turned about the unit vector k.
  const turned = (v, k, angle) => {
    const c = Math.cos(angle), s = Math.sin(angle);
    return add(add(times(v, c), cross(k, v), s), k, dot(k, v) * (1 - c));
  };
  const rad = Math.PI / 180;
  const FOV = [5, 120];
  const AUTO_SPEED = 14, AUTO_SECONDS = 90; // degrees a second; then it rests, whoever still looks can turn it on again
  const JOIN_SECONDS = 1.5; // from any view to the turn
  // Beyond these the photos show little: distances of the capture's own, degrees above and beside the photos.
  const CLOSEST = 0.3, FARTHEST = 2, HIGHER = 20, ASIDE = 20, SOFT = 0.3;

  // A camera as axes and eye; distance is how far ahead the point lies about which dragging turns.
  class Camera {
    constructor(view, focus, up) {
      const m = view.c2w;
      this.right = unit([m[0], m[4], m[8]]);
      this.forward = unit([m[2], m[6], m[10]]);
      this.down = cross(this.forward, this.right);
      this.right = cross(this.down, this.forward);
      this.eye = [m[3], m[7], m[11]];
      this.fov = clamp(view.fov, ...FOV);
      this.up = up;
      const ahead = dot(add(focus, this.eye, -1), this.forward);
      this.distance = ahead > 0 ? ahead : size(add(focus, this.eye, -1)) || 1;
    }
    c2w() {
      const { right: r, down: d, forward: f, eye: e } = this;
      return [r[0], d[0], f[0], e[0], r[1], d[1], f[1], e[1], r[2], d[2], f[2], e[2], 0, 0, 0, 1];
    }
    target() { return add(this.eye, this.forward, this.distance); }
    turn(axis, angle) { for (const name of ["right", "down", "forward"]) this[name] = unit(turned(this[name], axis, angle)); }
    look(yaw, pitch) { // around, from where it stands
      this.turn(this.up, yaw);
      // Not over the pole, where left and right would change places.
      const height = Math.asin(clamp(dot(this.forward, this.up), -1, 1));
      const wanted = clamp(height + pitch, Math.min(height, -85 * rad), Math.max(height, 85 * rad));
      this.turn(this.right, this.tilt() * (wanted - height));
    }
    orbit(yaw, pitch) {
      const target = this.target();
      this.look(yaw, pitch);
      this.eye = add(target, this.forward, -this.distance);
    }
    // Which way a turn about `right` raises the view: upright or upside down.
    tilt() { return dot(this.down, this.up) <= 0 ? 1 : -1; }
    pan(x, y) {
      this.eye = add(add(this.eye, this.right, x * this.distance), this.down, y * this.distance);
    }
    dolly(factor) {
      const target = this.target();
      this.distance = clamp(this.distance * factor, 1e-4, 1e6);
      this.eye = add(target, this.forward, -this.distance);
    }
    // Closer to a point of the world (factor below 1) or away from it; it keeps its place in the frame.
    approach(point, factor) {
      const off = add(this.eye, point, -1), ahead = -dot(off, this.forward);
      if (ahead < 1e-6) { this.dolly(factor); return; }
      this.eye = add(point, off, factor);
      this.distance = clamp(ahead * factor, 1e-4, 1e6);
    }
    face(point) { // a point of the world comes to the middle, and dragging turns about it
      const way = add(point, this.eye, -1);
      this.forward = unit(way); this.distance = clamp(size(way), 1e-4, 1e6);
      this.level(this.up);
    }
    fly(x, y, z, step) {
      this.eye = add(add(add(this.eye, this.right, x * step), this.up, y * step), this.forward, z * step);
    }
    // Level: the horizon is horizontal again, looking the same way.
    level(up) {
      this.up = unit(up);
      let right = cross(this.forward, this.up);
      if (size(right) < 1e-3) right = this.right;
      this.right = unit(right);
      this.down = cross(this.forward, this.right);
    }
    copy() { return Object.assign(Object.create(Camera.prototype), structuredClone({ ...this })); }
  }

  class Viewer {
    constructor(stage, line) {
      this.stage = stage; this.line = line;
      this.canvas = stage.querySelector("canvas");
      this.paper = this.canvas.getContext("2d", { alpha: false });
      this.scene = null; this.view = null; this.bitmap = null;
      this.number = 0; this.sent = new Map(); this.shown = null;
      this.plan = null; this.chosenSide = null; this.stages = 0; this.planning = false;
      this.format = "jpeg"; this.shows = "image"; this.times = [];
      this.dirty = false; this.moved = 0; this.ladder = []; this.playing = null; this.auto = false; this.autoStart = 0;
      this.calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.touched = false; this.last = 0;
      new ResizeObserver(() => this.resize()).observe(this.canvas);
      requestAnimationFrame((now) => this.tick(now));
    }

    // -- the scene and the camera
    open(message) {
      // Encoded otherwise, the same capture keeps its view; another one of the same name begins anew.
      const same = (a, b) => size(add(a.focus, b.focus, -1)) < 0.3 * b.radius && Math.abs(Math.log(a.radius / b.radius)) < 0.3;
      const first = !this.scene || this.scene.name !== message.name || !same(this.scene, message);
      const kept = !first && this.view;
      if (message.plan && !this.planning) this.takePlan(message.plan);
      this.scene = message; this.bitmap = first ? null : this.bitmap;
      this.sent.clear(); this.stop();
      if (!kept) this.reset(false);
      this.moved = 0; this.dirty = true;
      // First a sharp look, then a gentle turn.
      clearTimeout(this.later);
      this.setAuto(false);
      if (!this.calm && !this.touched) this.later = setTimeout(() => { if (!this.touched) this.setAuto(true); }, 1500);
      if (first) this.emit("opened", message);
      this.emit("scene", message);
    }
    reset(byHand = true) {
      if (!this.scene) return;
      const { focus, up } = this.scene;
      this.view = new Camera(this.scene, focus, unit(up));
      if (byHand) this.hand();
      this.move(); this.emit("fov", this.view.fov); this.emit("up", "scene");
    }
    // Somebody took hold of the camera: nothing turns or plays by itself any more.
    hand() { this.touched = true; this.setAuto(false); this.stop(); }
    move() { this.dirty = true; this.moved = performance.now(); this.ladder = []; }
    camera() { return this.view && { c2w: this.view.c2w(), fov: this.view.fov }; }
    still() { return this.view && this.plan && { ...this.camera(), hw: this.plan.rest.at(-1).hw }; } // as at rest
    jump(view, byHand = true) {
      if (!this.scene) return;
      if (byHand) this.hand();
      const up = this.view ? this.view.up : unit(this.scene.up);
      this.view = new Camera(view, this.scene.focus, up);
      this.move(); this.emit("fov", this.view.fov);
    }
    setFov(degrees) { if (!this.view) return; this.hand(); this.view.fov = clamp(degrees, ...FOV); this.move(); }
    setUp(name) {
      if (!this.view) return;
      const axis = { x: [1, 0, 0], y: [0, 1, 0], z: [0, 0, 1] }[name.slice(-1)];
      const own = { scene: this.scene.up, view: times(this.view.down, -1) }[name];
      this.hand(); this.view.level(own || times(axis, name[0] === "-" ? -1 : 1)); this.move();
    }
    setRest(side) { this.chosenSide = side; this.move(); this.tellStage(); }
    // The surface under the pointer comes to the middle; where there is none, a point as far away as the present one.
    async recentre(x, y) {
      this.hand();
      const { view } = this, half = Math.tan(view.fov * rad / 2);
      const ray = unit(add(add(view.forward, view.right, (2 * x - 1) * half * this.aspect()), view.down, (2 * y - 1) * half));
      const otherwise = add(view.eye, ray, view.distance);
      const point = await this.surfaces.under(x, y);
      if (this.view !== view) return; // it looks from elsewhere by now
      view.face(point || otherwise); this.move();
      this.emit("centre", { point });
    }
    aspect() { return this.canvas.clientWidth / Math.max(1, this.canvas.clientHeight); }
    place(point) { // where a point of the world is in the frame: right and down in [0, 1]; null behind the camera
      const { view } = this, way = add(point, view.eye, -1), ahead = dot(way, view.forward);
      if (ahead <= 0) return null;
      const half = Math.tan(view.fov * rad / 2) * ahead;
      return [0.5 + dot(way, view.right) / (2 * half * this.aspect()), 0.5 + dot(way, view.down) / (2 * half)];
    }
    setAuto(on) {
      if (this.auto === on) return;
      if (on && !this.scene) return;
      this.auto = on; this.autoStart = performance.now(); this.emit("auto", on);
      if (on) { this.autoFrom = this.view.copy(); this.autoAt = this.nearestTurn(); this.autoGone = 0; this.emit("up", "scene"); }
      if (!on) this.move();
    }
    play(views, fps, loop) {
      this.hand();
      this.playing = { views, fps, loop, start: performance.now() };
      this.emit("play", true);
    }
    stop() { if (!this.playing) return; this.playing = null; this.move(); this.emit("play", false); }
    emit(name, detail) { this.stage.dispatchEvent(new CustomEvent(`nvs-${name}`, { detail, bubbles: true })); }

    // -- frames: asked for as the camera moves, at most three on their way; the server renders the newest
    async tellStage() { // where frames are shown, and the side that was chosen; the answer is the plan
      const stage = ++this.stages;
      this.planning = true;
      const answer = await this.line.ask({ type: "stage", hw: [this.canvas.height, this.canvas.width], side: this.chosenSide });
      if (stage !== this.stages) return;
      this.planning = false;
      if (answer.plan) this.takePlan(answer.plan);
    }
    takePlan(plan) {
      const sharp = (of) => of && String(of.rest.at(-1).hw), same = sharp(this.plan) === sharp(plan);
      this.plan = plan;
      if (!same) this.move();
      this.emit("plan", plan);
    }
    ask({ hw, quality, quick }) {
      if (this.local) return false; // drawn by the visitor's own GPU
      const id = ++this.number, view = this.camera();
      const own = this.auto || (this.playing && !this.touched);
      const message = { type: "frame", id, ...view, hw, format: this.format, quality, output: this.shows, auto: !!own, quick };
      if (!this.line.send(message)) { this.number--; return false; }
      this.sent.set(id, { ...view, hw, at: performance.now(), pointer: this.pointer }); // pointer: when the hand moved
      this.pointer = null; this.askedAtRest = !quick;
      return true;
    }
    follow() { // a frame of the present view, small enough to keep up with the hand
      if (!this.dirty || this.sent.size >= 3 || !this.plan || this.planning) return;
      if (this.ask(this.auto ? this.plan.turn : this.plan.drag)) this.dirty = false;
    }
    tick(now) {
      requestAnimationFrame((later) => this.tick(later));
      const seconds = Math.min(0.1, (now - this.last) / 1000 || 0);
      this.last = now;
      if (!this.view || document.hidden) return;
      this.steer?.(seconds);
      const words = this.beyond();
      if (words !== this.said) this.emit("beyond", this.said = words);
      if (this.auto) {
        if (now - this.autoStart > 1000 * AUTO_SECONDS) this.setAuto(false);
        else { this.turnOn(seconds); this.move(); }
      }
      if (this.playing) this.playOn(now);
      for (const [id, sent] of this.sent) if (now - sent.at > 60000) this.sent.delete(id);
      if (this.sent.size >= 3 || !this.plan || this.planning) return;
      const still = performance.now() - this.moved > 140;
      // By itself it turns at 25 frames a second at most: the server has others to serve.
      if (this.auto && now - (this.autoAsked || 0) < 40) return;
      if (this.dirty && !still) { this.autoAsked = now; this.follow(); return; }
      // What the last frame of a drag shows already is not rendered again.
      if (still && this.dirty !== null && !this.ladder.length) {
        this.ladder = this.dirty === false && this.askedAtRest ? [] : [...this.plan.rest];
        this.dirty = null;
      }
      // One step after the other: were both asked for, the server would drop the first.
      if (this.dirty === null && this.ladder.length && !this.sent.size && this.ask(this.ladder[0])) this.ladder.shift();
    }
    // Along the scene's own turn, which runs beside the photos' cameras; from elsewhere it goes there first.
    turnOn(seconds) {
      const { path } = this.scene.turn, goal = this.turned(this.autoAt), { fov } = this.view;
      this.autoAt = (this.autoAt + seconds * path.length / this.turnSeconds()) % path.length;
      const share = clamp((this.autoGone += seconds) / JOIN_SECONDS, 0, 1), way = share * share * (3 - 2 * share);
      this.view = way < 1 ? this.between(this.autoFrom, goal, way) : goal;
      this.view.fov = fov;
    }
    // The camera at a place of the turn: whole numbers are its views.
    turned(at) {
      const { path } = this.scene.turn, first = Math.floor(at) % path.length;
      const [a, b] = [first, (first + 1) % path.length].map((index) => new Camera({ c2w: path[index], fov: this.scene.fov }, this.scene.focus, unit(this.scene.up)));
      return this.between(a, b, at - Math.floor(at));
    }
    between(a, b, share) {
      const view = b.copy(), mix = (x, y) => add(times(x, 1 - share), y, share);
      view.eye = mix(a.eye, b.eye); view.forward = unit(mix(a.forward, b.forward));
      view.distance = (1 - share) * a.distance + share * b.distance;
      view.level(b.up);
      return view;
    }
    turnSeconds() { // all around at AUTO_SPEED, measured by how far the view turns
      const { path } = this.scene.turn, ahead = path.map((m) => [m[2], m[6], m[10]]);
      const degrees = ahead.reduce((sum, f, i) => sum + Math.acos(clamp(dot(f, ahead[(i + 1) % ahead.length]), -1, 1)) / rad, 0);
      return clamp(degrees / AUTO_SPEED, 6, 60);
    }
    nearestTurn() { // where on the turn the view is nearest to the current one
      const { path } = this.scene.turn, { eye, forward } = this.view, { radius } = this.scene;
      const off = path.map((m) => size(add([m[3], m[7], m[11]], eye, -1)) / radius + 1 - dot([m[2], m[6], m[10]], forward));
      return off.indexOf(Math.min(...off));
    }
    // Where no photo was taken from anywhere near, in words; empty within what the photos cover.
    beyond() {
      const { far, higher, lower, aside } = this.off(this.view);
      if (far < CLOSEST) return "closer than any photo";
      if (far > FARTHEST) return "farther away than any photo";
      if (higher > 0) return "higher than any photo";
      if (lower > 0) return "lower than any photo";
      return aside > 0 ? "further round than any photo" : "";
    }
    // How a camera stands to those of the photos: `far` as often as they from the scene; by how many degrees above, below and
    // beside what they cover (negative: within).
    off(view) {
      const { around, middle, half, elevation, outward } = this.scene.turn, up = unit(this.scene.up), { focus, radius } = this.scene;
      const way = outward ? times(view.forward, -radius) : add(view.eye, focus, -1), far = size(way) / radius;
      const height = Math.asin(clamp(dot(way, up) / size(way), -1, 1)) / rad;
      const azimuth = Math.atan2(dot(way, cross(up, middle)), dot(way, middle)) / rad;
      return { far, higher: height - elevation[1] - HIGHER, lower: elevation[0] - HIGHER - height, aside: around ? -1 : Math.abs(azimuth) - half - ASIDE };
    }
    // Beyond what the photos cover an orbit and a zoom go on slowly, and back at their own pace.
    orbit(yaw, pitch) {
      const next = this.view.copy(), before = this.off(this.view);
      next.orbit(yaw, pitch);
      const after = this.off(next), out = (way) => after[way] > Math.max(0, before[way]);
      this.view.orbit(out("aside") ? SOFT * yaw : yaw, out("higher") || out("lower") ? SOFT * pitch : pitch);
    }
    soft(factor) {
      const far = size(add(this.view.eye, this.scene.focus, -1)) / this.scene.radius;
      if (this.scene.turn.outward) return factor;
      return (far > FARTHEST && factor > 1) || (far < CLOSEST && factor < 1) ? factor ** SOFT : factor;
    }
    levelled() { if (this.view) { this.hand(); this.view.level(this.view.up); this.move(); } }
    roll(degrees) { if (this.view) { this.hand(); this.view.turn(this.view.forward, degrees * rad); this.move(); } }
    playOn(now) {
      const { views, fps, loop, start } = this.playing;
      let index = Math.max(0, Math.floor((now - start) / 1000 * fps)); // a frame may be of before the click
      if (index >= views.length && !loop) { index = views.length - 1; }
      const view = views[index % views.length];
      if (this.playing.index !== index) {
        this.playing.index = index;
        const up = this.view.up;
        this.view = new Camera(view, this.scene.focus, up);
        this.move(); this.emit("time", { seconds: (index % views.length) / fps, total: views.length / fps });
      }
      if (index === views.length - 1 && !loop) this.stop();
    }
    async show(header, data) {
      const sent = this.sent.get(header.id);
      this.sent.delete(header.id);
      const late = () => !this.scene || header.revision !== this.scene.revision || (this.shown && header.id < this.shown.id);
      if (!sent || late()) return;
      const bitmap = await createImageBitmap(new Blob([data], { type: `image/${header.format}` }));
      if (late()) return; // another scene was opened, or a newer frame was ready first
      this.bitmap = bitmap; this.paint();
      const total = performance.now() - sent.at;
      this.shown = { id: header.id, camera: sent, header, data, total, rest: Math.max(0, total - header.model_ms - header.wait_ms) };
      this.times.push({ total, model: header.model_ms, wait: header.wait_ms, rest: this.shown.rest, side: header.hw[0], at: performance.now(),
        photon: sent.pointer ? performance.now() - sent.pointer : null });
      if (this.times.length > 400) this.times.shift();
      this.emit("frame", this.shown);
    }
    failed(message) {
      this.sent.delete(message.id);
      this.emit("problem", message.message);
    }
    resize() {
      const scale = Math.min(2, devicePixelRatio || 1);
      const width = Math.round(this.canvas.clientWidth * scale), height = Math.round(this.canvas.clientHeight * scale);
      if (!width || !height || (width === this.canvas.width && height === this.canvas.height)) return;
      this.canvas.width = width; this.canvas.height = height; this.paint();
      this.tellStage();
    }
    paint() {
      const { paper, canvas, bitmap } = this;
      paper.fillStyle = "#0d1017"; paper.fillRect(0, 0, canvas.width, canvas.height);
      if (!bitmap) return;
      paper.imageSmoothingEnabled = true; paper.imageSmoothingQuality = "high";
      paper.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    }
    thumbnail(side = 96) {
      const small = document.createElement("canvas"), { width, height } = this.canvas, cut = Math.min(width, height);
      small.width = small.height = side;
      small.getContext("2d").drawImage(this.canvas, (width - cut) / 2, (height - cut) / 2, cut, cut, 0, 0, side, side);
      return small.toDataURL("image/jpeg", 0.8);
    }
  }

  window.nvsCamera = Camera;
  window.nvsViewer = Viewer;
})();
