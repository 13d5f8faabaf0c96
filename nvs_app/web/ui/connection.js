// The line to the server: one WebSocket on the page's own address, opened again when it breaks; and what the hand
// does to the viewer: pointer, wheel, touch, keys, and the controls under the image.
(() => {
  "use strict";
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  class Connection {
    constructor(onMessage, onState) {
      this.onMessage = onMessage; this.onState = onState;
      this.socket = null; this.token = null; this.wait = 500; this.over = false; this.answers = new Map(); this.asked = 0;
    }
    connect(token) {
      this.token = token; this.over = false;
      clearTimeout(this.timer);
      if (this.socket) { this.socket.onclose = null; this.socket.close(); }
      // The address that gradio itself uses: behind a proxy the page may live under a prefix.
      const root = new URL(window.gradio_config?.root || location.href, location.href).pathname.replace(/\/+$/, "");
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      const socket = new WebSocket(`${scheme}://${location.host}${root}/nvs/socket?visit=${encodeURIComponent(token)}`);
      socket.binaryType = "arraybuffer";
      socket.onopen = () => { this.wait = 500; this.onState("open"); };
      socket.onmessage = (event) => this.take(event.data);
      socket.onclose = (event) => {
        this.socket = null;
        for (const [, answer] of this.answers) answer({ type: "error", message: "The connection was lost; try again." });
        this.answers.clear();
        if (event.code === 4401 || event.code === 4409) this.over = true;
        if (this.over) { this.onState("over", event.reason); return; }
        this.onState("lost");
        this.timer = setTimeout(() => this.connect(this.token), this.wait * (0.8 + 0.4 * Math.random()));
        this.wait = Math.min(10000, this.wait * 1.8);
      };
      this.socket = socket;
    }
    send(message) {
      if (this.socket?.readyState !== WebSocket.OPEN || this.socket.bufferedAmount > 65536) return false;
      this.socket.send(JSON.stringify(message));
      return true;
    }
    // Asks and waits for the answer of the same number.
    ask(message) {
      return new Promise((resolve) => {
        const id = `q${++this.asked}`;
        this.answers.set(id, resolve);
        if (!this.send({ ...message, id })) { this.answers.delete(id); resolve({ type: "error", message: "There is no connection; try again." }); }
      });
    }
    take(data) {
      if (typeof data === "string") {
        const message = JSON.parse(data), answer = this.answers.get(message.id);
        if (answer) { this.answers.delete(message.id); answer(message); return; }
        this.onMessage(message);
        return;
      }
      const length = new DataView(data).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
      const image = { type: "image", header, data: new Uint8Array(data, 4 + length) }, answer = this.answers.get(header.id);
      if (answer) { this.answers.delete(header.id); answer(image); } else this.onMessage(image);
    }
  }

  // Pointers, wheel and keys on the canvas.
  function steer(viewer) {
    const { canvas } = viewer, pointers = new Map(), held = new Set();
    let mode = null, gap = 0, middle = null;
    const at = (event) => { const box = canvas.getBoundingClientRect(); return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]; };
    const half = () => Math.tan(viewer.view.fov * Math.PI / 360);
    const pan = (x, y) => { const aspect = canvas.clientWidth / canvas.clientHeight; viewer.view.pan(-2 * x * half() * aspect, -2 * y * half()); };
    const both = () => { const [a, b] = [...pointers.values()]; return [Math.hypot(a[0] - b[0], a[1] - b[1]), [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2]]; };
    canvas.addEventListener("pointerdown", (event) => {
      if (!viewer.view) return;
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at(event));
      viewer.hand();
      if (pointers.size === 1) mode = event.button === 2 || event.button === 1 || event.shiftKey ? "pan" : "orbit";
      if (pointers.size === 2) { mode = "pinch"; [gap, middle] = both(); }
      canvas.classList.add("held");
      event.preventDefault();
    });
    const drag = (event) => {
      const before = pointers.get(event.pointerId);
      if (!before || !viewer.view) return;
      const now = at(event);
      pointers.set(event.pointerId, now);
      const x = now[0] - before[0], y = now[1] - before[1];
      if (!x && !y) return;
      viewer.pointer ??= event.timeStamp; // until a frame is asked for: the first move counts
      if (mode === "orbit" && viewer.flying) viewer.view.look(2 * x * half() * viewer.aspect(), 2 * y * half());
      else if (mode === "orbit") viewer.orbit(-x * Math.PI, -y * Math.PI * 0.75);
      else if (mode === "pan") pan(x, y);
      else if (mode === "pinch" && pointers.size === 2) {
        const [wide, centre] = both();
        if (gap > 0 && wide > 0) viewer.surfaces.zoom(clamp(gap / wide, 0.5, 2), middle);
        pan(centre[0] - middle[0], centre[1] - middle[1]);
        [gap, middle] = [wide, centre];
      }
      viewer.move(); viewer.follow();
    };
    canvas.addEventListener("pointermove", drag);
    // Browsers keep pointermove for the next refresh of the screen; this one comes at once, up to 17 ms earlier.
    if ("onpointerrawupdate" in window) canvas.addEventListener("pointerrawupdate", drag);
    const lift = (event) => {
      pointers.delete(event.pointerId);
      if (pointers.size === 1) mode = "orbit";
      if (!pointers.size) { mode = null; canvas.classList.remove("held"); }
    };
    canvas.addEventListener("pointerup", lift);
    canvas.addEventListener("pointercancel", lift);
    canvas.addEventListener("lostpointercapture", lift);
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!viewer.view) return;
      viewer.hand();
      const lines = event.deltaMode === 1 ? 30 : event.deltaMode === 2 ? 400 : 1; // pixels, lines or pages
      viewer.surfaces.zoom(Math.exp(clamp(event.deltaY * lines, -400, 400) * (event.ctrlKey ? 0.008 : 0.0015)), at(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => { if (viewer.view) viewer.recentre(...at(event)); });
    const keys = { KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyE: [0, 1, 0], KeyQ: [0, -1, 0] };
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    canvas.addEventListener("keydown", (event) => {
      if (!viewer.view || event.ctrlKey || event.metaKey || event.altKey) return;
      const { code } = event;
      if (keys[code] || arrows[code] || code === "Equal" || code === "Minus") { held.add(code); held.shift = event.shiftKey; viewer.hand(); }
      else if (code === "KeyR") viewer.reset();
      else if (code === "KeyF") full(viewer.stage);
      else if (code === "Space") viewer.setAuto(!viewer.auto);
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("keyup", (event) => held.delete(event.code));
    canvas.addEventListener("blur", () => held.clear());
    viewer.steer = (seconds) => {
      if (!held.size) return;
      for (const code of held) {
        if (keys[code]) viewer.view.fly(...keys[code], seconds * 0.8 * viewer.scene.radius * (held.shift ? 3 : 1));
        else if (arrows[code]) {
          const [x, y] = arrows[code];
          if (held.shift) pan(-x * seconds * 0.6, -y * seconds * 0.6); else viewer.orbit(x * seconds * 1.2, -y * seconds * 0.9);
        } else viewer.view.dolly(Math.exp((code === "Minus" ? 1 : -1) * seconds));
      }
      viewer.move();
    };
  }

  function full(stage) {
    if (document.fullscreenElement) document.exitFullscreen(); else stage.requestFullscreen?.();
  }

  // The controls under the image.
  function controls(viewer) {
    const { stage } = viewer, one = (name) => stage.querySelector(`[data-nvs=${name}]`);
    const fov = one("fov"), fovText = one("fov-text"), side = one("side"), up = one("up"), auto = one("auto");
    const showFov = (value) => { fov.value = value; fovText.textContent = `${Math.round(value)}°`; };
    fov.addEventListener("input", () => { viewer.setFov(Number(fov.value)); showFov(viewer.view?.fov ?? fov.value); });
    side.addEventListener("change", () => { viewer.setRest(Number(side.value)); });
    up.addEventListener("change", () => viewer.setUp(up.value));
    auto.addEventListener("click", () => viewer.setAuto(!viewer.auto));
    one("reset").addEventListener("click", () => viewer.reset());
    one("full").addEventListener("click", () => full(stage));
    stage.addEventListener("nvs-fov", (event) => showFov(event.detail));
    stage.addEventListener("nvs-up", (event) => { up.value = event.detail; });
    stage.addEventListener("nvs-auto", (event) => auto.setAttribute("aria-pressed", String(event.detail)));
    stage.addEventListener("nvs-frame", ({ detail }) => {
      const { header, rest } = detail, round = (x) => (x < 10 ? x.toFixed(1) : Math.round(x));
      one("timing").textContent = `${round(header.model_ms)} ms model + ${round(rest)} ms`;
      one("timing").title = `model ${round(header.model_ms)} ms, connection and display ${round(rest)} ms, waiting for others ${round(header.wait_ms)} ms`;
      one("pixels").textContent = `${header.hw[1]} × ${header.hw[0]}`;
      stage.dataset.state = "live"; one("words").textContent = "";
    });
    stage.addEventListener("nvs-problem", (event) => say(stage, event.detail, "problem"));
    stage.addEventListener("nvs-scene", ({ detail }) => {
      viewer.canvas.setAttribute("aria-label", `Rendered view of ${detail.name}. Drag to orbit; arrow keys turn, W A S D Q E fly, R resets.`);
    });
    stage.addEventListener("nvs-plan", ({ detail }) => {
      for (const option of side.options) option.disabled = !detail.sides.includes(Number(option.value));
      side.value = detail.side;
    });
  }

  // Words over the image: state is "wait", "problem", "over" or "live" (none).
  function say(stage, words, state) {
    stage.dataset.state = state;
    stage.querySelector("[data-nvs=words]").textContent = words;
  }

  const nvs = { viewer: null, line: null, token: "" };
  function start(stage) {
    const line = new Connection((message) => {
      const { viewer } = nvs;
      if (message.type === "image") viewer.show(message.header, message.data);
      else if (message.type === "scene") { nvs.notice(""); viewer.open(message); }
      else if (message.type === "plan") { if (message.plan && !viewer.planning) viewer.takePlan(message.plan); }
      else if (message.type === "dropped") viewer.sent.delete(message.id);
      else if (message.type === "error") viewer.failed(message);
      else if (message.type === "ended") { line.over = true; viewer.hand(); say(stage, message.message, "over"); }
      else stage.dispatchEvent(new CustomEvent("nvs-message", { detail: message, bubbles: true }));
    }, (state, reason) => {
      stage.dataset.line = state;
      if (state === "lost") nvs.viewer.sent.clear();
      if (state === "open") { nvs.viewer.sent.clear(); nvs.viewer.move(); nvs.viewer.tellStage(); }
      if (state === "over" && stage.dataset.state !== "over") say(stage, reason || "This visit has ended. Reload the page to start again.", "over");
    });
    nvs.line = line;
    nvs.viewer = new window.nvsViewer(stage, line);
    nvs.viewer.surfaces = new window.nvsSurfaces(nvs.viewer, line);
    steer(nvs.viewer); controls(nvs.viewer);
    stage.dispatchEvent(new CustomEvent("nvs-ready", { bubbles: true }));
    if (nvs.token) line.connect(nvs.token);
  }
  nvs.connect = (token) => {
    if (!token) return;
    nvs.token = token;
    try { sessionStorage.setItem("nvs-visit", token); } catch { /* storage is off: a reload starts anew */ }
    nvs.line?.connect(token);
  };
  nvs.kept = () => { try { return sessionStorage.getItem("nvs-visit") || ""; } catch { return ""; } };
  // Of work that a new scene waits for: over the image of the one before, until it is there.
  nvs.notice = (words) => {
    const stage = document.querySelector("#nvs-stage");
    if (!stage) return;
    stage.querySelector("[data-nvs=notice]").textContent = words;
    if (!nvs.viewer?.scene) say(stage, words, "wait");
  };
  nvs.say = (words, state = "wait") => { const stage = document.querySelector("#nvs-stage"); if (stage) say(stage, words, state); };
  window.nvs = nvs;
  const look = () => {
    const stage = document.querySelector("#nvs-stage");
    if (stage && !nvs.viewer) { start(stage); return true; }
    return Boolean(nvs.viewer);
  };
  if (!look()) {
    const watcher = new MutationObserver(() => { if (look()) watcher.disconnect(); });
    watcher.observe(document.documentElement, { childList: true, subtree: true });
  }
})();
