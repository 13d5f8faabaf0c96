// Splats instead of frames from the server: the switch beside the streamed view. The scene's splats are fetched once; from
// then on the visitor's own GPU draws every view of the same camera, also when the server is gone.
//
//   nvs.splats.take(text)       what the server made: {look, words, revision}, or {error}
(() => {
  "use strict";
  const one = (name) => document.querySelector(`#nvs-stage [data-nvs=${name}]`);
  const state = { view: null, on: false, wanted: false, words: "", error: "" };
  // The address that gradio itself uses: behind a proxy the page may live under a prefix.
  const base = () => new URL(window.gradio_config?.root || location.href, location.href).href.replace(/[?#].*$/, "").replace(/\/+$/, "");

  function script() {
    state.script ??= new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.type = "module"; element.src = `${base()}/nvs/splats.js`;
      element.onload = resolve; element.onerror = () => { state.script = null; reject(new Error("the viewer could not be fetched")); };
      document.head.append(element);
    });
    return state.script;
  }
  function show(on) {
    const { viewer } = window.nvs;
    state.on = on; viewer.local = on;
    state.canvas.hidden = !on;
    one("splats").setAttribute("aria-pressed", String(on));
    if (on) requestAnimationFrame(tick); else { viewer.move(); one("pixels").textContent = ""; }
    one("timing").textContent = on ? `${state.words}, drawn here` : "";
  }
  function tick() {
    if (!state.on) return;
    const camera = window.nvs.viewer.camera();
    if (camera && !document.hidden) state.view.draw(camera);
    requestAnimationFrame(tick);
  }
  function forget() {
    if (state.on) show(false);
    state.view?.dispose(); state.view = null; state.wanted = false;
    state.canvas?.remove(); state.canvas = null;
  }
  function busy(words) { state.wanted = Boolean(words); one("splats").toggleAttribute("aria-busy", state.wanted); window.nvs.notice(words); }
  async function take(text) {
    const made = JSON.parse(text || "{}");
    if (!state.wanted) return;
    try {
      if (made.error) throw new Error(made.error);
      if (!made.look) { busy(""); return; } // cancelled
      const { revision } = window.nvs.viewer.scene;
      if (made.revision !== revision) { busy(""); return; } // another scene came meanwhile
      const [answer] = await Promise.all([fetch(`${base()}/nvs/scene.splat?visit=${encodeURIComponent(window.nvs.token)}`), script()]);
      if (!answer.ok) throw new Error("the splats could not be fetched");
      const bytes = await answer.arrayBuffer();
      if (window.nvs.viewer.scene?.revision !== revision) { busy(""); return; }
      forget();
      state.words = made.words;
      state.canvas = document.createElement("canvas");
      state.canvas.className = "nvs-splats-canvas"; state.canvas.ariaHidden = "true";
      window.nvs.viewer.canvas.after(state.canvas);
      state.view = new window.nvsSplats.SplatView(state.canvas, bytes, made.look);
      state.error = ""; busy(""); show(true);
    } catch (error) {
      state.error = error.message; busy(""); window.nvs.notice(`Splats: ${error.message}`);
    }
  }
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#nvs-stage [data-nvs=splats]") || !window.nvs.viewer?.scene) return;
    if (state.view) { show(!state.on); return; }
    if (state.wanted) { busy(""); document.querySelector("#nvs-splats-stop").click(); return; }
    busy("Making splats of the scene …");
    document.querySelector("#nvs-splats-do").click();
  });
  document.addEventListener("nvs-scene", ({ detail }) => {
    if (state.revision !== detail.revision && (state.view || state.wanted)) forget();
    state.revision = detail.revision;
    one("splats").disabled = Boolean(detail.no_depth);
  });
  window.nvs.splats = { take, state };
})();
