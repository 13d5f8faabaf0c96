// The tab of paths: keyframes with an image each, their field of view and time; presets; the preview in the viewer.
//
//   nvs.path.spec()      what is exported: {preset, …} until a keyframe is changed, then {timeline}
//   nvs.path.load(timeline)
(() => {
  "use strict";
  const state = { keys: [], preset: null, busy: false };
  let root = null;
  const one = (name) => root?.querySelector(`[data-path=${name}]`);
  const number = (name, fallback) => { const value = Number(one(name)?.value); return Number.isFinite(value) && value > 0 ? value : fallback; };
  const hw = () => { const side = number("side", 256), shape = one("shape")?.value || "1"; const wide = Number(shape); return [side, Math.min(1024, Math.round(side * wide / 8) * 8)]; };
  const timeline = () => ({
    keyframes: state.keys.map(({ c2w, fov, seconds }) => ({ c2w, fov, seconds })),
    fps: number("fps", 24), loop: one("loop").checked, image_hw: hw(),
  });
  const spec = () => {
    if (state.preset) return { preset: state.preset, seconds: number("seconds", 4), fps: number("fps", 24), image_hw: hw(), start: state.start };
    return { timeline: timeline() };
  };
  const named = (name) => {
    state.preset = name; one("preset-now").textContent = name || "";
    for (const button of root.querySelectorAll("[data-preset]")) button.setAttribute("aria-pressed", String(button.dataset.preset === name));
  };
  const edited = () => { named(null); say(""); document.querySelectorAll("#nvs-video-progress [role=alert]").forEach((box) => { box.hidden = true; }); };
  const say = (words) => { one("words").textContent = words; };

  // The list is built anew with each change: the keyboard stays where it was.
  const place = (list) => {
    const item = document.activeElement?.closest?.("[data-path=keys] li");
    return item && [[...list.children].indexOf(item), [...item.querySelectorAll("button, input")].indexOf(document.activeElement)];
  };
  const refocus = (list, held) => {
    if (!held) return;
    const item = list.children[Math.min(state.moved ?? held[0], list.children.length - 1)];
    state.moved = undefined;
    (item ? item.querySelectorAll("button, input")[held[1]] : one("add"))?.focus({ preventScroll: true });
    item?.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  // Where each keyframe lies on the timeline.
  function marks(total) {
    let at = 0;
    one("marks").replaceChildren(...(state.keys.length > 1 && total > 0 ? state.keys : []).map((key, index) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: index + 1, title: `${at.toFixed(1)} s, ${Math.round(key.fov)}°` });
      button.setAttribute("aria-label", `keyframe ${index + 1} at ${at.toFixed(1)} seconds`);
      button.style.left = `${100 * at / total}%`;
      button.onclick = () => { one("scrub").value = 1000 * Number.parseFloat(button.style.left) / 100; window.nvs.viewer.jump(key); };
      at += key.seconds;
      return button;
    }));
  }
  function draw() {
    const list = one("keys"), held = place(list);
    list.replaceChildren(...state.keys.map((key, index) => {
      const item = document.createElement("li");
      item.innerHTML = `<button type="button" class="nvs-key" title="Look from here"><img alt="keyframe ${index + 1}"><span>${index + 1}</span></button>
        <div><label>field of view <input type="number" min="5" max="120" step="1" aria-label="field of view of keyframe ${index + 1}, degrees"></label>
        <label>seconds to next <input type="number" min="0.1" max="60" step="0.1" aria-label="seconds after keyframe ${index + 1}"></label></div>
        <div class="nvs-key-buttons"><button type="button" data-do="left" title="Earlier" aria-label="earlier">◀</button><button type="button" data-do="right" title="Later" aria-label="later">▶</button>
        <button type="button" data-do="set" title="Replace by the current view" aria-label="replace by the current view">⟳</button><button type="button" data-do="delete" title="Delete" aria-label="delete">✕</button></div>`;
      const image = item.querySelector("img"), [fov, seconds] = item.querySelectorAll("input");
      if (key.image) image.src = key.image; else image.remove();
      fov.value = Math.round(key.fov * 10) / 10; seconds.value = Math.round(key.seconds * 100) / 100;
      // Once focus has moved on, so that Tab goes where it would have gone.
      const later = (change) => () => { change(); edited(); setTimeout(draw); };
      fov.onchange = later(() => { key.fov = Math.min(120, Math.max(5, Number(fov.value) || key.fov)); });
      seconds.onchange = later(() => { key.seconds = Math.min(60, Math.max(0.1, Number(seconds.value) || key.seconds)); });
      item.querySelector(".nvs-key").onclick = () => window.nvs.viewer.jump(key);
      const swap = (other) => { if (!state.keys[other]) return; [state.keys[index], state.keys[other]] = [state.keys[other], state.keys[index]]; state.moved = other; edited(); draw(); };
      item.querySelector("[data-do=left]").onclick = () => swap(index - 1);
      item.querySelector("[data-do=right]").onclick = () => swap(index + 1);
      item.querySelector("[data-do=delete]").onclick = () => { state.keys.splice(index, 1); edited(); draw(); };
      item.querySelector("[data-do=set]").onclick = () => { const view = window.nvs.viewer.camera(); if (!view) return; Object.assign(key, view, { image: window.nvs.viewer.thumbnail() }); edited(); draw(); };
      return item;
    }));
    refocus(list, held);
    possible();
    one("empty").hidden = state.keys.length > 0;
    const round = one("loop").checked || state.keys.length === 1, gaps = round ? state.keys : state.keys.slice(0, -1);
    list.classList.toggle("nvs-round", round);
    marks(gaps.reduce((sum, key) => sum + key.seconds, 0));
    const total = state.preset ? number("seconds", 4) : gaps.reduce((sum, key) => sum + key.seconds, 0);
    one("length").textContent = state.keys.length ? `${total.toFixed(1)} s, ${Math.max(1, Math.round(total * number("fps", 24)) + (round || state.preset ? 0 : 1))} frames` : "";
  }
  // What can be done with as many keyframes as there are, and while a video is rendered.
  function possible() {
    const some = state.keys.length > 0, path = state.keys.length > 1 || state.preset !== null, { busy } = state;
    one("clear").disabled = !some || busy; one("play").disabled = !path || busy; one("scrub").disabled = !path || busy;
    const row = document.querySelector("#nvs-export-row");
    if (!row) return;
    const of = (name) => row.querySelector(`[data-export=${name}]`);
    of("video").disabled = !some || busy; of("save").disabled = !some || busy; of("video").hidden = busy; of("cancel").hidden = !busy;
    of("why").hidden = some;
  }
  // A preview beside an export would only make both slow.
  function render() {
    const { viewer } = window.nvs, player = document.querySelector("#nvs-player");
    viewer.hand(); viewer.stop(); say("");
    state.busy = true; player.hidden = true; player.removeAttribute("src"); possible();
    document.querySelector("#nvs-video-do").click();
  }
  function exported() {
    state.busy = false; possible();
    const failed = document.querySelector("#nvs-video-progress [role=alert]"), file = document.querySelector("#nvs-video-files a[download$='.mp4']");
    const player = document.querySelector("#nvs-player");
    if (failed || !document.querySelector("#nvs-video-progress details") || !file) return;
    player.src = file.href; player.hidden = false; player.play().catch(() => {}); player.scrollIntoView({ block: "nearest" });
  }
  function take(found, kept = []) {
    state.keys = found.keyframes.map((key, index) => ({ seconds: 2, image: kept[index]?.image, ...key }));
    one("loop").checked = Boolean(found.loop);
    draw();
  }
  // A file's own rate and shape, as near as the fields come.
  function load(text) {
    if (!text) return;
    const found = JSON.parse(text), [high, wide] = found.image_hw;
    const nearest = (name, wanted) => { one(name).value = [...one(name).options].map((o) => o.value).reduce((a, b) => (Math.abs(Math.log(b / wanted)) < Math.abs(Math.log(a / wanted)) ? b : a)); };
    one("fps").value = Math.min(60, Math.max(1, found.fps));
    nearest("side", high); nearest("shape", wide / high);
    edited(); take(found); images();
    const [height, width] = hw(), same = height === high && width === wide;
    say(`${state.keys.length} keyframes loaded.${same ? "" : ` The file asks for ${wide} × ${high} pixels; here it will be ${width} × ${height}.`}`);
  }
  async function preset(name) {
    state.preset = name; state.start = window.nvs.viewer.camera();
    const answer = await window.nvs.line.ask({ type: "path", spec: spec() });
    if (answer.type === "dropped") return; // a newer one took its place
    if (answer.type === "error") { named(null); say(answer.message); return; }
    named(name); take(answer.timeline);
    images(); say("");
  }
  // Images of keyframes that came without: rendered one after the other, small.
  async function images() {
    const round = state.round = (state.round || 0) + 1;
    for (const key of [...state.keys]) {
      if (key.image) continue;
      const answer = await window.nvs.line.ask({ type: "frame", small: true, c2w: key.c2w, fov: key.fov, hw: [128, 128], quality: 80, auto: true });
      if (answer.type !== "image" || round !== state.round) return;
      key.image = URL.createObjectURL(new Blob([answer.data], { type: "image/jpeg" }));
      draw();
    }
  }
  async function play() {
    if (window.nvs.viewer.playing) { window.nvs.viewer.stop(); return; }
    const answer = await window.nvs.line.ask({ type: "path", spec: spec() });
    if (answer.type !== "path") { say(answer.message || ""); return; }
    say("");
    state.views = answer.views; state.fps = answer.fps;
    window.nvs.viewer.play(answer.views, answer.fps, one("loop").checked);
  }
  async function scrub(share) {
    if (!state.views || state.scrubbed !== JSON.stringify(spec())) {
      state.scrubbed = JSON.stringify(spec());
      const answer = await window.nvs.line.ask({ type: "path", spec: spec() });
      if (answer.type !== "path") { state.scrubbed = null; say(answer.message || ""); return; }
      state.views = answer.views; state.fps = answer.fps;
    }
    window.nvs.viewer.jump(state.views[Math.round(share * (state.views.length - 1))]);
  }
  function start(element) {
    root = element;
    one("add").onclick = () => {
      const view = window.nvs.viewer.camera();
      if (!view) return;
      state.keys.push({ ...view, seconds: 2, image: window.nvs.viewer.thumbnail() });
      edited(); draw();
    };
    one("clear").onclick = () => { state.keys = []; edited(); say(""); draw(); };
    one("play").onclick = play;
    one("loop").onchange = () => { if (state.preset !== null) edited(); draw(); };
    for (const name of ["seconds", "fps"]) one(name).onchange = () => { state.preset ? preset(state.preset) : draw(); };
    for (const button of root.querySelectorAll("[data-preset]")) button.onclick = () => preset(button.dataset.preset);
    one("scrub").oninput = () => scrub(one("scrub").value / 1000);
    const stage = document.querySelector("#nvs-stage");
    stage.addEventListener("nvs-play", ({ detail }) => { one("play").textContent = detail ? "Stop" : "Play"; one("play").setAttribute("aria-pressed", String(detail)); });
    stage.addEventListener("nvs-time", ({ detail }) => { one("scrub").value = 1000 * detail.seconds / Math.max(detail.total, 1e-6); });
    stage.addEventListener("nvs-opened", () => { document.querySelector("#nvs-player").hidden = true; state.keys = []; state.views = null; edited(); say(""); draw(); });
    draw();
  }
  document.addEventListener("click", (event) => {
    const what = event.target.closest?.("[data-export]")?.dataset.export;
    if (what === "video") render();
    else if (what === "cancel") document.querySelector("#nvs-video-cancel-do").click();
    else if (what === "save") document.querySelector("#nvs-path-save-do").click();
  });
  window.nvs.path = { spec: () => JSON.stringify(spec()), load, state, preset, exported };
  const look = () => { const element = document.querySelector("#nvs-path"); if (element && element !== root) start(element); };
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
  look();
})();
