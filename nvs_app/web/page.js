// While a slider is held, window.nvsHeld is true and the page asks for smaller pictures. A key that is let go
// counts as a pointer that is lifted, of which alone gradio tells the server.
(() => {
  const slider = (event) => event.target instanceof Element && event.target.matches("#nvs-controls input[type=range]");
  window.nvsHeld = false;
  document.addEventListener("pointerdown", (event) => { if (slider(event)) window.nvsHeld = true; }, true);
  document.addEventListener("keydown", (event) => { if (slider(event) && event.repeat) window.nvsHeld = true; }, true);
  const letGo = () => { window.nvsHeld = false; };
  window.addEventListener("pointerup", letGo, true);
  window.addEventListener("pointercancel", letGo, true);
  window.addEventListener("blur", letGo); // of the window itself: without capture, no other blur arrives here
  document.addEventListener("keyup", (event) => {
    if (!slider(event) || !window.nvsHeld) return;
    event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
  }, true);
})();
