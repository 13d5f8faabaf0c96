// Flight for fingers: a stick moves the camera, two buttons let it rise and sink, and a drag over the image looks around.
(() => {
  "use strict";
  const start = (stage) => {
    const { viewer } = window.nvs, one = (name) => stage.querySelector(`[data-nvs=${name}]`), stick = one("stick"), knob = stick.firstElementChild;
    const push = [0, 0, 0]; // right, up, ahead: -1 to 1 each
    const lean = (x, y) => { push[0] = x; push[2] = -y; knob.style.transform = `translate(${100 * x}%, ${100 * y}%)`; };
    const follow = (event) => {
      if (!stick.hasPointerCapture(event.pointerId)) return;
      const box = stick.getBoundingClientRect(), x = 2 * (event.clientX - box.left) / box.width - 1, y = 2 * (event.clientY - box.top) / box.height - 1;
      const long = Math.max(1, Math.hypot(x, y));
      lean(x / long, y / long);
    };
    const hold = (element, begin, end) => {
      element.addEventListener("pointerdown", (event) => { element.setPointerCapture(event.pointerId); viewer.hand(); begin(event); event.preventDefault(); });
      element.addEventListener("lostpointercapture", end);
    };
    hold(stick, follow, () => lean(0, 0));
    stick.addEventListener("pointermove", follow);
    for (const [name, way] of [["rise", 1], ["sink", -1]]) {
      hold(one(name), () => { push[1] = way; }, () => { push[1] = 0; });
      one(name).onclick = ({ detail }) => { if (!detail && viewer.view) { viewer.view.fly(0, way, 0, 0.1 * viewer.scene.radius); viewer.move(); } }; // by key
    }
    one("fly").onclick = () => {
      viewer.flying = !viewer.flying; one("fly-pad").hidden = !viewer.flying; push.fill(0); viewer.hand();
      one("fly").setAttribute("aria-pressed", String(viewer.flying));
    };
    const keys = viewer.steer;
    viewer.steer = (seconds) => {
      keys(seconds);
      if (push.some(Boolean)) { viewer.view.fly(...push, seconds * 0.8 * viewer.scene.radius); viewer.move(); }
    };
  };
  document.addEventListener("nvs-ready", ({ target }) => start(target));
  if (window.nvs.viewer) start(window.nvs.viewer.stage);
})();
